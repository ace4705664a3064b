/** Traffic Selector payloads, TSi and TSr (RFC 7296 §3.13). */
import { addressFromBytes, addressToBytes } from '../../../base/address.ts';
import type { ByteReader, ByteWriter } from '../../../base/bytes.ts';
import type { TrafficSelector } from '../../../policy/selector.ts';
import { TsType } from '../iana.ts';

export interface TsPayload {
  readonly type: 'tsi' | 'tsr';
  readonly selectors: readonly TrafficSelector[];
  /** How many selectors of a type we do not know were passed over (RFC 7296 §2.9: such are narrowed away). */
  readonly unknown: number;
}

const SELECTOR_HEADER = 8;

export function decodeTs(reader: ByteReader, type: TsPayload['type']): TsPayload {
  const count = reader.u8();
  reader.skip(3);
  if (count === 0) reader.fail('bad-value', 'no traffic selector');
  const selectors: TrafficSelector[] = [];
  let unknown = 0;
  for (let i = 0; i < count; i++) {
    const tsType = reader.u8();
    const protocol = reader.u8();
    const length = reader.u16();
    // The length is that of the whole substructure; type, protocol and length are behind us.
    if (length < 4) reader.fail('bad-length', `traffic selector length ${length}`);
    const body = reader.sub(length - 4);
    if (tsType === TsType.IPV4_ADDR_RANGE) selectors.push(decodeSelector(body, protocol, 4));
    else if (tsType === TsType.IPV6_ADDR_RANGE) selectors.push(decodeSelector(body, protocol, 16));
    else unknown++;
  }
  reader.expectEnd('TS payload');
  return { type, selectors, unknown };
}

function decodeSelector(reader: ByteReader, protocol: number, addressLength: 4 | 16): TrafficSelector {
  const startPort = reader.u16();
  const endPort = reader.u16();
  const start = addressFromBytes(reader.bytes(addressLength));
  const end = addressFromBytes(reader.bytes(addressLength));
  reader.expectEnd('traffic selector');
  if (start.value > end.value) reader.fail('bad-value', 'traffic selector starts behind its end');
  const opaque = startPort === 0xffff && endPort === 0;
  if (startPort > endPort && !opaque) reader.fail('bad-value', `port range ${startPort}-${endPort}`);
  // RFC 7296 §3.13.1: without a protocol there are no ports to choose from.
  if (protocol === 0 && (startPort !== 0 || endPort !== 0xffff)) {
    reader.fail('bad-value', `port range ${startPort}-${endPort} of any protocol`);
  }
  return { protocol, startPort, endPort, range: { start, end } };
}

export function encodeTs(writer: ByteWriter, payload: TsPayload): void {
  writer.u8(payload.selectors.length);
  writer.zeros(3);
  for (const { protocol, startPort, endPort, range } of payload.selectors) {
    const start = addressToBytes(range.start);
    writer.u8(range.start.family === 4 ? TsType.IPV4_ADDR_RANGE : TsType.IPV6_ADDR_RANGE);
    writer.u8(protocol);
    writer.u16(SELECTOR_HEADER + 2 * start.length);
    writer.u16(startPort);
    writer.u16(endPort);
    writer.bytes(start);
    writer.bytes(addressToBytes(range.end));
  }
}
