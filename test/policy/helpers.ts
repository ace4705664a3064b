/** Builders that the policy tests share: addresses, selectors and packets from short text. */
import { type AddressRange, addressToBytes, parseAddress, prefixRange } from '../../src/base/address.ts';
import { Flow, FlowError, readFlow } from '../../src/policy/flow.ts';
import { protocolByName } from '../../src/policy/protocols.ts';
import { icmpPorts, makeSelector, OPAQUE_PORTS, type TrafficSelector } from '../../src/policy/selector.ts';

export function range(text: string): AddressRange {
  const [first, last] = text.split('-');
  const [address, prefix] = first!.split('/');
  const start = parseAddress(address!)!;
  if (last !== undefined) return { start, end: parseAddress(last)! };
  return prefixRange(start, prefix === undefined ? (start.family === 4 ? 32 : 128) : Number(prefix));
}

/** `10.1.0.0/30`, `10.0.0.1-10.0.0.5 udp 5000-5010`, `10.1.0.0/30 icmp type 8 [code 1]`, `::/0 tcp opaque`. */
export function sel(text: string): TrafficSelector {
  const [addresses, protocol = 'any', ...rest] = text.split(' ');
  const number = protocolByName(protocol)!;
  if (rest[0] === undefined) return makeSelector(range(addresses!), number);
  if (rest[0] === 'opaque') return makeSelector(range(addresses!), number, OPAQUE_PORTS);
  if (rest[0] === 'type') {
    return makeSelector(
      range(addresses!),
      number,
      icmpPorts(Number(rest[1]), rest[3] === undefined ? undefined : Number(rest[3])),
    );
  }
  const [start, end = start] = rest[0].split('-').map(Number);
  return makeSelector(range(addresses!), number, { startPort: start!, endPort: end! });
}

export interface PacketFields {
  readonly src: string;
  readonly dst: string;
  readonly protocol: number;
  readonly payload?: Uint8Array;
  /** Fragment offset in bytes. */
  readonly offset?: number;
  readonly more?: boolean;
  readonly id?: number;
  readonly options?: Uint8Array;
  readonly extensions?: readonly { readonly type: number; readonly bytes: Uint8Array }[];
}

/** A transport header's first eight bytes: two ports and zeros. */
export function ports(source: number, destination: number): Uint8Array {
  return Uint8Array.of(source >>> 8, source, destination >>> 8, destination, 0, 8, 0, 0);
}

/** The first bytes of an ICMP message. */
export function icmp(type: number, code: number): Uint8Array {
  return Uint8Array.of(type, code, 0, 0, 0, 0, 0, 0);
}

export function packet(fields: PacketFields): Uint8Array {
  return fields.src.includes(':') ? packetV6(fields) : packetV4(fields);
}

function packetV4({
  src,
  dst,
  protocol,
  payload = ports(1, 2),
  offset = 0,
  more = false,
  id = 0,
  options,
}: PacketFields): Uint8Array {
  const headerLength = 20 + (options?.length ?? 0);
  const bytes = new Uint8Array(headerLength + payload.length);
  bytes[0] = 0x40 | (headerLength / 4);
  bytes[2] = bytes.length >>> 8;
  bytes[3] = bytes.length;
  bytes[4] = id >>> 8;
  bytes[5] = id;
  bytes[6] = (more ? 0x20 : 0) | (offset >>> 11);
  bytes[7] = offset >>> 3;
  bytes[8] = 64;
  bytes[9] = protocol;
  bytes.set(addressToBytes(parseAddress(src)!), 12);
  bytes.set(addressToBytes(parseAddress(dst)!), 16);
  if (options !== undefined) bytes.set(options, 20);
  bytes.set(payload, headerLength);
  return bytes;
}

function packetV6({
  src,
  dst,
  protocol,
  payload = ports(1, 2),
  offset,
  more,
  id,
  extensions = [],
}: PacketFields): Uint8Array {
  const chain = [...extensions];
  if (offset !== undefined || more !== undefined || id !== undefined)
    chain.push(fragmentHeader(offset ?? 0, more ?? false, id ?? 0));
  const length = chain.reduce((sum, { bytes }) => sum + bytes.length, payload.length);
  const bytes = new Uint8Array(40 + length);
  bytes[0] = 0x60;
  bytes[4] = length >>> 8;
  bytes[5] = length;
  bytes[6] = chain[0]?.type ?? protocol;
  bytes[7] = 64;
  bytes.set(addressToBytes(parseAddress(src)!), 8);
  bytes.set(addressToBytes(parseAddress(dst)!), 24);
  let at = 40;
  for (const [index, header] of chain.entries()) {
    bytes.set(header.bytes, at);
    bytes[at] = chain[index + 1]?.type ?? protocol;
    at += header.bytes.length;
  }
  bytes.set(payload, at);
  return bytes;
}

/** An extension header of `length` bytes; its next-header byte is set by `packet`. */
export function extension(type: number, length = 8): { readonly type: number; readonly bytes: Uint8Array } {
  const bytes = new Uint8Array(length);
  bytes[1] = length / 8 - 1;
  return { type, bytes };
}

export function fragmentHeader(
  offset: number,
  more: boolean,
  id: number,
): { readonly type: number; readonly bytes: Uint8Array } {
  return {
    type: 44,
    bytes: Uint8Array.of(0, 0, offset >>> 8, (offset & 0xf8) | (more ? 1 : 0), id >>> 24, id >>> 16, id >>> 8, id),
  };
}

/** The flow of a packet that must be readable. */
export function flowOf(fields: PacketFields): Flow {
  const bytes = packet(fields);
  const flow = new Flow();
  const error = readFlow(bytes, 0, bytes.length, flow);
  if (error !== FlowError.none) throw new Error(`the test's packet is refused with ${error}`);
  return flow;
}
