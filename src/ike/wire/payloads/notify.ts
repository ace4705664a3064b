/** Notify payload (RFC 7296 §3.10). */
import type { ByteReader, ByteWriter } from '../../../base/bytes.ts';

export interface NotifyPayload {
  readonly type: 'notify';
  /** One of `ProtocolId`; 0 when the notify speaks of no existing SA. Anything a peer may send is kept. */
  readonly protocol: number;
  readonly spi: Uint8Array;
  /** One of `NotifyType`, or what the peer sent. */
  readonly notify: number;
  readonly data: Uint8Array;
}

export function decodeNotify(reader: ByteReader): NotifyPayload {
  const protocol = reader.u8();
  const spiSize = reader.u8();
  const notify = reader.u16();
  const spi = reader.bytes(spiSize);
  return { type: 'notify', protocol, spi, notify, data: reader.rest() };
}

export function encodeNotify(writer: ByteWriter, payload: NotifyPayload): void {
  writer.u8(payload.protocol);
  writer.u8(payload.spi.length);
  writer.u16(payload.notify);
  writer.bytes(payload.spi);
  writer.bytes(payload.data);
}

const NOTHING = new Uint8Array(0);

/** A notify that speaks of no existing SA. */
export function notifyPayload(notify: number, data: Uint8Array = NOTHING): NotifyPayload {
  return { type: 'notify', protocol: 0, spi: NOTHING, notify, data };
}

/** A notify that speaks of an existing SA: REKEY_SA, CHILD_SA_NOT_FOUND. */
export function saNotifyPayload(notify: number, protocol: number, spi: Uint8Array): NotifyPayload {
  return { type: 'notify', protocol, spi, notify, data: NOTHING };
}
