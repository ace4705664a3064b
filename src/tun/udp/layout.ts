/**
 * The structures of Linux's socket calls, as 32-bit words of 64-bit little-endian memory, and the numbers that go with
 * them; addresses between these structures and their values.
 *
 * Kernel interface: linux/socket.h, linux/in.h, linux/in6.h, linux/udp.h, linux/errqueue.h. RFC 3542 §6 (pktinfo, tclass).
 */
import type { IpAddress, IpFamily, SocketAddress } from '../../base/address.ts';

export const AF_INET = 2;
export const AF_INET6 = 10;

export const SOL_IP = 0;
export const SOL_SOCKET = 1;
export const SOL_UDP = 17;
export const SOL_IPV6 = 41;

export const IP_TOS = 1;
export const IP_PKTINFO = 8;
export const IP_MTU_DISCOVER = 10;
export const IP_RECVERR = 11;
export const IP_RECVTOS = 13;
export const IPV6_MTU_DISCOVER = 23;
export const IPV6_RECVERR = 25;
export const IPV6_V6ONLY = 26;
export const IPV6_RECVPKTINFO = 49;
export const IPV6_PKTINFO = 50;
export const IPV6_RECVTCLASS = 66;
export const IPV6_TCLASS = 67;
export const UDP_SEGMENT = 103;
export const UDP_GRO = 104;

export const MSG_CTRUNC = 0x8;
export const MSG_TRUNC = 0x20;
export const MSG_DONTWAIT = 0x40;
export const MSG_ERRQUEUE = 0x2000;
export const MSG_NOSIGNAL = 0x4000;

/** struct mmsghdr: struct msghdr (pointers and sizes of 64 bits) and the length of what was sent or received. */
export const MMSGHDR_WORDS = 16;
export const MMSGHDR_BYTES = 64;
export const MSG_NAME = 0;
export const MSG_NAMELEN = 2;
export const MSG_IOV = 4;
export const MSG_IOVLEN = 6;
export const MSG_CONTROL = 8;
export const MSG_CONTROLLEN = 10;
export const MSG_FLAGS = 12;
export const MSG_LEN = 14;

/** struct iovec: pointer and 64-bit length. */
export const IOVEC_WORDS = 4;

/** struct cmsghdr: 64-bit length with the header, level, type; then the data. Each one begins at a multiple of 8. */
export const CMSG_LEVEL = 2;
export const CMSG_TYPE = 3;
export const CMSG_DATA = 4;
export const CMSG_BYTES = 16;

/** Words from one control message to the next. */
export function cmsgWords(dataBytes: number): number {
  return CMSG_DATA + ((dataBytes + 7) >> 3) * 2;
}

/** Writes a control message's header; its data follows at `at + CMSG_DATA`. */
export function writeCmsg(words: Int32Array, at: number, level: number, type: number, dataBytes: number): void {
  words[at] = CMSG_BYTES + dataBytes;
  words[at + 1] = 0;
  words[at + CMSG_LEVEL] = level;
  words[at + CMSG_TYPE] = type;
}

/** Pointers have 48 bits at most, which a number holds exactly. */
export function writePointer(words: Int32Array, at: number, address: number): void {
  words[at] = address;
  words[at + 1] = address / 0x1_0000_0000;
}

/** struct sockaddr_in (padding left out of the meaning) or sockaddr_in6. */
export const SOCKADDR_BYTES: Readonly<Record<IpFamily, 16 | 28>> = { 4: 16, 6: 28 };
/** Where the address stands in it, and the zone of a link-local IPv6 address. */
export const SOCKADDR_ADDRESS: Readonly<Record<IpFamily, 1 | 2>> = { 4: 1, 6: 2 };
export const SOCKADDR_SCOPE = 6;

export function encodeSockaddr({ address, port }: SocketAddress, scope: number): Int32Array<ArrayBuffer> {
  const words = new Int32Array(SOCKADDR_BYTES[address.family] / 4);
  words[0] = (address.family === 4 ? AF_INET : AF_INET6) | (swap16(port) << 16);
  writeAddress(words, SOCKADDR_ADDRESS[address.family], address);
  if (address.family === 6) words[SOCKADDR_SCOPE] = scope;
  return words;
}

/** The port in the first word of a sockaddr. */
export function sockaddrPort(word: number): number {
  return swap16(word >>> 16);
}

/** struct in_pktinfo (interface, source, destination) or in6_pktinfo (address, interface). */
export const PKTINFO_BYTES: Readonly<Record<IpFamily, 12 | 20>> = { 4: 12, 6: 20 };
/** Where the local address stands in it. */
export const PKTINFO_ADDRESS: Readonly<Record<IpFamily, 0 | 1>> = { 4: 1, 6: 0 };

/** The data of a control message that names the local address to send from. */
export function encodePktinfo(address: IpAddress): Int32Array<ArrayBuffer> {
  const words = new Int32Array(PKTINFO_BYTES[address.family] / 4);
  writeAddress(words, PKTINFO_ADDRESS[address.family], address);
  return words;
}

function writeAddress(words: Int32Array, at: number, { family, value }: IpAddress): void {
  const count = family === 4 ? 1 : 4;
  for (let i = 0; i < count; i++) {
    words[at + i] = swap32(Number((value >> BigInt(32 * (count - 1 - i))) & 0xffff_ffffn));
  }
}

function swap16(value: number): number {
  return ((value & 0xff) << 8) | (value >>> 8);
}

/** Network order to or from the processor's. */
function swap32(value: number): number {
  return ((value & 0xff) << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24);
}

/** Addresses that are remembered: pairs of places, of which the hash chooses one. */
const PLACES = 2048;

interface Known {
  readonly words: readonly [number, number, number, number];
  readonly port: number;
  readonly scope: number;
  readonly address: SocketAddress;
}

/**
 * Socket addresses by their bytes, so that a peer is the same object in each datagram and nothing is made anew.
 * A flood from forged addresses makes newer ones take the places of older ones, which then are made again.
 */
export class AddressTable {
  readonly #family: IpFamily;
  readonly #vrf: string | undefined;
  // BOUNDED: `PLACES`.
  readonly #known: (Known | undefined)[] = new Array<Known | undefined>(PLACES).fill(undefined);
  readonly #scopes = new WeakMap<IpAddress, number>();

  /** @param vrf the one that the addresses are of, where they are this host's own */
  constructor(family: IpFamily, vrf?: string) {
    this.#family = family;
    this.#vrf = vrf;
  }

  /** The address that stands at `at` in network order, with this port, and for link-local IPv6 its zone. */
  find(words: Int32Array, at: number, port: number, scope: number): SocketAddress {
    const four = this.#family === 4;
    const a = words[at]!;
    const b = four ? 0 : words[at + 1]!;
    const c = four ? 0 : words[at + 2]!;
    const d = four ? 0 : words[at + 3]!;
    const mixed = Math.imul(a ^ Math.imul(b, 3) ^ Math.imul(c, 5) ^ Math.imul(d, 7) ^ (port << 15) ^ port, 0x9e3779b1);
    const place = (mixed >>> 16) & (PLACES - 1);
    const first = this.#known[place];
    if (first !== undefined && isSame(first, a, b, c, d, port, scope)) return first.address;
    const second = this.#known[place ^ 1];
    if (second !== undefined && isSame(second, a, b, c, d, port, scope)) return second.address;
    this.#known[place ^ 1] = first;
    const known = { words: [a, b, c, d], port, scope, address: this.#make(a, b, c, d, port) } as const;
    this.#known[place] = known;
    if (scope !== 0) this.#scopes.set(known.address.address, scope);
    return known.address;
  }

  /** The zone of a link-local address that came out of this table; 0 for others. */
  scopeOf(address: IpAddress): number {
    return this.#scopes.get(address) ?? 0;
  }

  /** Another thread knows the zone of an address. */
  learnScope(address: IpAddress, scope: number): void {
    this.#scopes.set(address, scope);
  }

  #make(a: number, b: number, c: number, d: number, port: number): SocketAddress {
    const parts = this.#family === 4 ? [a] : [a, b, c, d];
    const value = parts.reduce((sum, word) => (sum << 32n) | BigInt(swap32(word) >>> 0), 0n);
    const address = { family: this.#family, value };
    return this.#vrf === undefined ? { address, port } : { address, port, vrf: this.#vrf };
  }
}

function isSame(known: Known, a: number, b: number, c: number, d: number, port: number, scope: number): boolean {
  const { words } = known;
  return (
    words[0] === a && words[1] === b && words[2] === c && words[3] === d && known.port === port && known.scope === scope
  );
}
