/** Delete payload (RFC 7296 §3.11). */
import type { ByteReader, ByteWriter } from '../../../base/bytes.ts';
import { ProtocolId } from '../iana.ts';

export interface DeletePayload {
  readonly type: 'delete';
  readonly protocol: number;
  /** SPIs in the sender's inbound direction; none for the IKE SA itself. */
  readonly spis: readonly Uint8Array[];
}

const CHILD_SPI = 4;

export function decodeDelete(reader: ByteReader): DeletePayload {
  const protocol = reader.u8();
  const spiSize = reader.u8();
  const count = reader.u16();
  const isChild = protocol === ProtocolId.ESP || protocol === ProtocolId.AH;
  const sizeFits = protocol === ProtocolId.IKE ? spiSize === 0 : isChild ? spiSize === CHILD_SPI : true;
  if (!sizeFits) reader.fail('bad-length', `SPI size ${spiSize} in DELETE of protocol ${protocol}`);
  // The list is as long as the bytes that came, whatever the count claims: 65,535 SPIs of no size end here.
  if (spiSize === 0 && count !== 0) reader.fail('bad-length', `${count} SPIs of no size in DELETE`);
  if (spiSize * count !== reader.remaining) {
    reader.fail('bad-length', `${count} SPIs of ${spiSize} bytes in a DELETE with ${reader.remaining} bytes of them`);
  }
  const spis: Uint8Array[] = [];
  for (let i = 0; i < count; i++) spis.push(reader.bytes(spiSize));
  return { type: 'delete', protocol, spis };
}

export function encodeDelete(writer: ByteWriter, payload: DeletePayload): void {
  writer.u8(payload.protocol);
  writer.u8(payload.protocol === ProtocolId.IKE ? 0 : CHILD_SPI);
  writer.u16(payload.spis.length);
  for (const spi of payload.spis) writer.bytes(spi);
}
