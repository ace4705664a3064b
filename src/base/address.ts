/**
 * IP addresses, ranges and socket addresses as plain values. Control path only: the data path compiles them
 * into 32-bit words.
 *
 * Text forms: RFC 1123 dotted quad (four decimal parts, no leading zeros), RFC 4291 §2.2 in, RFC 5952 out.
 */

export type IpFamily = 4 | 6;

/**
 * An IPv4 or IPv6 address: immutable, so that it can be shared and kept. Made by `parseAddress` or
 * `addressFromBytes`.
 */
export interface IpAddress {
  readonly family: IpFamily;
  /** The address as an unsigned integer of 32 or 128 bits. */
  readonly value: bigint;
}

/** Both ends included; `start <= end`; one family. */
export interface AddressRange {
  readonly start: IpAddress;
  readonly end: IpAddress;
}

/** An address with a port: one end of a UDP flow. Port 0 (`NO_PORT`) where ESP goes straight over IP. */
export interface SocketAddress {
  readonly address: IpAddress;
  readonly port: number;
  /** Of an own end: the routing domain (VRF) that its socket is bound to; left out: the default one. */
  readonly vrf?: string | undefined;
}

export function addressBits(family: IpFamily): 32 | 128 {
  return family === 4 ? 32 : 128;
}

/** Parses either family; `undefined` when the text is not an address. Zone ids are not accepted. */
export function parseAddress(text: string): IpAddress | undefined {
  return text.includes(':') ? parseV6(text) : parseV4(text);
}

function parseV4(text: string): IpAddress | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  let value = 0n;
  for (const part of parts) {
    if (!/^(0|[1-9][0-9]{0,2})$/.test(part) || Number(part) > 255) return undefined;
    value = (value << 8n) | BigInt(part);
  }
  return { family: 4, value };
}

function parseV6(text: string): IpAddress | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const head = v6Groups(halves[0]!, halves.length === 1);
  const tail = halves.length === 2 ? v6Groups(halves[1]!, true) : [];
  if (head === undefined || tail === undefined) return undefined;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  const groups = [...head, ...new Array<number>(missing).fill(0), ...tail];
  return { family: 6, value: groups.reduce((value, group) => (value << 16n) | BigInt(group), 0n) };
}

/** The 16-bit groups of one side of `::`; on the last side a dotted quad may stand last and counts as two. */
function v6Groups(text: string, last: boolean): number[] | undefined {
  if (text === '') return [];
  const groups: number[] = [];
  const parts = text.split(':');
  for (const [index, part] of parts.entries()) {
    if (part.includes('.')) {
      const quad = last && index === parts.length - 1 ? parseV4(part) : undefined;
      if (quad === undefined) return undefined;
      groups.push(Number(quad.value >> 16n), Number(quad.value & 0xffffn));
    } else {
      if (!/^[0-9a-fA-F]{1,4}$/.test(part)) return undefined;
      groups.push(Number.parseInt(part, 16));
    }
  }
  return groups;
}

/** RFC 5952: lower case, the longest run of two or more zero groups (the first of equals) as `::`. */
export function formatAddress(address: IpAddress): string {
  const { family, value } = address;
  if (family === 4) return [24n, 16n, 8n, 0n].map((shift) => String((value >> shift) & 0xffn)).join('.');
  const groups = Array.from({ length: 8 }, (_, i) => Number((value >> BigInt(112 - 16 * i)) & 0xffffn));
  let bestAt = -1;
  let bestLength = 1;
  for (let at = 0; at < 8; at++) {
    let length = 0;
    while (at + length < 8 && groups[at + length] === 0) length++;
    if (length > bestLength) {
      bestAt = at;
      bestLength = length;
    }
  }
  const hex = (part: readonly number[]): string => part.map((group) => group.toString(16)).join(':');
  if (bestAt < 0) return hex(groups);
  return `${hex(groups.slice(0, bestAt))}::${hex(groups.slice(bestAt + bestLength))}`;
}

/** The address that 4 or 16 bytes hold, in network order. @throws RangeError for any other number of bytes */
export function addressFromBytes(bytes: Uint8Array): IpAddress {
  if (bytes.length !== 4 && bytes.length !== 16)
    throw new RangeError(`an address has 4 or 16 bytes, not ${bytes.length}`);
  let value = 0n;
  for (const byte of bytes) value = (value << 8n) | BigInt(byte);
  return { family: bytes.length === 4 ? 4 : 6, value };
}

/** The 4 or 16 bytes of an address, in network order. */
export function addressToBytes(address: IpAddress): Uint8Array {
  const bytes = new Uint8Array(addressBits(address.family) / 8);
  let value = address.value;
  for (let i = bytes.length - 1; i >= 0; i--) {
    bytes[i] = Number(value & 0xffn);
    value >>= 8n;
  }
  return bytes;
}

export function sameAddress(a: IpAddress, b: IpAddress): boolean {
  return a.family === b.family && a.value === b.value;
}

/** The same text for the same address: what addresses are looked up by. */
export function addressKey({ family, value }: IpAddress): string {
  return `${family} ${value}`;
}

/** The same text for addresses that have so many first bits in common. */
export function prefixKey({ family, value }: IpAddress, bits: bigint): string {
  const width = family === 4 ? 32n : 128n;
  return `${family} ${value >> (width - bits)}/${bits}`;
}

/** The same text for what may be addresses of one host: an IPv6 network of 64 bits is one host's for the asking. */
export function hostPrefix(address: IpAddress): string {
  return prefixKey(address, address.family === 4 ? 32n : 64n);
}

/** In place of a port, where there is none: the end of a path of ESP that goes straight over IP (RFC 4303 §2). */
export const NO_PORT = 0;

export function sameSocketAddress(a: SocketAddress, b: SocketAddress): boolean {
  return a === b || (a.port === b.port && a.vrf === b.vrf && sameAddress(a.address, b.address));
}

/** `192.0.2.1:500` or `[2001:db8::1]:500`. */
export function formatSocketAddress({ address, port }: SocketAddress): string {
  return address.family === 4 ? `${formatAddress(address)}:${port}` : `[${formatAddress(address)}]:${port}`;
}

/** The range of `address/prefixLength`; host bits are cleared. */
export function prefixRange(address: IpAddress, prefixLength: number): AddressRange {
  const bits = addressBits(address.family);
  if (!Number.isInteger(prefixLength) || prefixLength < 0 || prefixLength > bits) {
    throw new RangeError(`a prefix length of 0 to ${bits} is required, not ${prefixLength}`);
  }
  const hostMask = (1n << BigInt(bits - prefixLength)) - 1n;
  const start = address.value & ~hostMask;
  return { start: { family: address.family, value: start }, end: { family: address.family, value: start | hostMask } };
}

/** Every address of a family. */
export function anyRange(family: IpFamily): AddressRange {
  return prefixRange({ family, value: 0n }, 0);
}

export function rangeContains(range: AddressRange, address: IpAddress): boolean {
  return (
    range.start.family === address.family && range.start.value <= address.value && address.value <= range.end.value
  );
}

export function intersectRanges(a: AddressRange, b: AddressRange): AddressRange | undefined {
  if (a.start.family !== b.start.family) return undefined;
  const start = a.start.value > b.start.value ? a.start : b.start;
  const end = a.end.value < b.end.value ? a.end : b.end;
  return start.value <= end.value ? { start, end } : undefined;
}

/** The prefix length when the range is exactly one prefix, else `undefined`. */
export function rangePrefixLength(range: AddressRange): number | undefined {
  const size = range.end.value - range.start.value + 1n;
  if ((size & (size - 1n)) !== 0n || range.start.value % size !== 0n) return undefined;
  return addressBits(range.start.family) - (size.toString(2).length - 1);
}

/** The fewest prefixes that cover exactly the range, in order: what routes are made of. */
export function rangeToPrefixes(range: AddressRange): { readonly address: IpAddress; readonly prefixLength: number }[] {
  const { family } = range.start;
  const bits = addressBits(family);
  const prefixes: { address: IpAddress; prefixLength: number }[] = [];
  let at = range.start.value;
  while (at <= range.end.value) {
    let size = at === 0n ? 1n << BigInt(bits) : at & -at;
    while (at + size - 1n > range.end.value) size >>= 1n;
    prefixes.push({ address: { family, value: at }, prefixLength: bits - (size.toString(2).length - 1) });
    at += size;
  }
  return prefixes;
}

/** `10.1.0.0/24`, `10.1.0.7` for a single address, or `10.1.0.3-10.1.0.9`. */
export function formatRange(range: AddressRange): string {
  if (range.start.value === range.end.value) return formatAddress(range.start);
  const prefixLength = rangePrefixLength(range);
  if (prefixLength !== undefined) return `${formatAddress(range.start)}/${prefixLength}`;
  return `${formatAddress(range.start)}-${formatAddress(range.end)}`;
}
