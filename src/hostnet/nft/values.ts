/** What fields of packets are compared with, and sets contain: types of values, and how they are written in text and in bytes. */
import { addressBits, addressToBytes, parseAddress } from '../../base/address.ts';
import { compareBytes } from '../../base/bytes.ts';
import { linkName } from './writer.ts';

/** From one value to another, both included, in the order of bytes that the kernel compares. */
export interface Span {
  readonly start: Uint8Array;
  readonly end: Uint8Array;
  /** Where it is written as a prefix. */
  readonly prefixLength?: number;
}

export interface ValueType {
  /** The number by which nft(8) remembers it with a set. */
  readonly id: number;
  readonly length: number;
  /** How nft(8) remembers the order of its bytes in a named set. */
  readonly order: number;
  /** `undefined` when the text is no such value. */
  readonly parse: (text: string) => Span | undefined;
}

/** enum byteorder of nft(8). */
export const ORDER = { NONE: 0, HOST: 1, BIG: 2 } as const;

const NFPROTO_WORDS = { ipv4: 2, ipv6: 10 };
/** RTN_… of linux/rtnetlink.h. */
const ADDRESS_TYPES = { unicast: 1, local: 2, broadcast: 3, anycast: 4, multicast: 5, unreachable: 7 };

type TypeName =
  | 'ipv4_addr'
  | 'ipv6_addr'
  | 'inet_proto'
  | 'inet_service'
  | 'ifname'
  | 'fib_addrtype'
  | 'nf_proto'
  | 'host32';

export const TYPES: Readonly<Record<TypeName, ValueType>> = {
  ipv4_addr: { id: 7, length: 4, order: ORDER.BIG, parse: addressParser(4) },
  ipv6_addr: { id: 8, length: 16, order: ORDER.BIG, parse: addressParser(6) },
  inet_proto: { id: 12, length: 1, order: ORDER.NONE, parse: numberParser(1) },
  inet_service: { id: 13, length: 2, order: ORDER.BIG, parse: numberParser(2) },
  ifname: { id: 41, length: 16, order: ORDER.HOST, parse: parseLink },
  fib_addrtype: { id: 38, length: 4, order: ORDER.HOST, parse: wordParser(ADDRESS_TYPES, 4) },
  /** NFPROTO_…, which has no set here. */
  nf_proto: { id: 2, length: 1, order: ORDER.HOST, parse: wordParser(NFPROTO_WORDS, 1) },
  /** Indexes and marks, in the host's order. */
  host32: { id: 4, length: 4, order: ORDER.HOST, parse: single((text) => hostBytes(numberOf(text))) },
};

/** Numbers of the packet itself. @param length in bytes */
export function integerType(length: number): ValueType {
  return { id: 4, length, order: ORDER.BIG, parse: numberParser(length) };
}

export function hostBytes(value: number): Uint8Array;
export function hostBytes(value: number | undefined): Uint8Array | undefined;
export function hostBytes(value: number | undefined): Uint8Array | undefined {
  if (value === undefined) return undefined;
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

/** @returns undefined when it does not fit */
export function bigEndian(value: number | undefined, length: number): Uint8Array | undefined {
  if (value === undefined || value >= 2 ** (8 * length)) return undefined;
  const bytes = new Uint8Array(length);
  for (let at = length - 1, rest = value; at >= 0; at--, rest = Math.floor(rest / 256)) bytes[at] = rest % 256;
  return bytes;
}

/** Decimal or hexadecimal. */
export function numberOf(text: string): number | undefined {
  return /^(\d{1,10}|0x[0-9a-f]{1,8})$/.test(text) ? Number(text) : undefined;
}

/** The value behind one of these bytes; `undefined` behind the last of all. */
export function after(bytes: Uint8Array): Uint8Array | undefined {
  const next = Uint8Array.from(bytes);
  for (let at = next.length - 1; at >= 0; at--) {
    next[at] = (next[at]! + 1) & 0xff;
    if (next[at] !== 0) return next;
  }
  return undefined;
}

function single(parse: (text: string) => Uint8Array | undefined): (text: string) => Span | undefined {
  return (text) => {
    const value = parse(text);
    return value && { start: value, end: value };
  };
}

function wordParser(words: Readonly<Record<string, number>>, length: number): (text: string) => Span | undefined {
  return single((text) => {
    const value = Object.hasOwn(words, text) ? words[text] : undefined;
    return length === 4 ? hostBytes(value) : bigEndian(value, length);
  });
}

/** `58`, `0x45`, `133-137`. */
function numberParser(length: number): (text: string) => Span | undefined {
  return (text) => {
    const [first = '', last = first, more] = text.split('-');
    const [start, end] = [first, last].map((part) => bigEndian(numberOf(part), length));
    return more === undefined ? ordered(start, end) : undefined;
  };
}

/** `"stun0"` */
function parseLink(text: string): Span | undefined {
  const name = /^"([^"*\\]+)"$/.exec(text)?.[1];
  if (name === undefined) return undefined;
  const value = linkName(name);
  return { start: value, end: value };
}

/** `10.1.0.7`, `10.1.0.0/24`, `10.1.0.3-10.1.0.9`. */
function addressParser(family: 4 | 6): (text: string) => Span | undefined {
  const address = (text: string): Uint8Array | undefined => {
    const found = parseAddress(text);
    return found?.family === family ? addressToBytes(found) : undefined;
  };
  return (text) => {
    const [, first, sign, last] = /^([0-9a-f.:]+)(?:([/-])([0-9a-f.:]+))?$/.exec(text) ?? [];
    const start = first === undefined ? undefined : address(first);
    if (start === undefined || sign === undefined) return start && { start, end: start };
    if (sign === '/') return prefixSpan(start, numberOf(last!), family);
    return ordered(start, address(last!));
  };
}

function ordered(start: Uint8Array | undefined, end: Uint8Array | undefined): Span | undefined {
  return start === undefined || end === undefined || compareBytes(start, end) > 0 ? undefined : { start, end };
}

/** `undefined` when bits behind the prefix are set. */
function prefixSpan(start: Uint8Array, prefixLength: number | undefined, family: 4 | 6): Span | undefined {
  if (prefixLength === undefined || prefixLength > addressBits(family)) return undefined;
  const mask = prefixMask(prefixLength, start.length);
  if (start.some((byte, at) => (byte & ~mask[at]!) !== 0)) return undefined;
  return { start, end: start.map((byte, at) => byte | (~mask[at]! & 0xff)), prefixLength };
}

export function prefixMask(prefixLength: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, at) => {
    const bits = Math.min(8, Math.max(0, prefixLength - 8 * at));
    return (0xff00 >> bits) & 0xff;
  });
}
