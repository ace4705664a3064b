/**
 * Random and adversarial IP packets and sets of fragments, from a seed: header chains in every order, repeated, cut off, of
 * unknown kinds; transports that are too short; fragments that overlap, are tiny, atomic, out of order, or disagree.
 * Nothing here knows how they are judged.
 */
import { addressToBytes, type IpAddress } from '../../../src/base/address.ts';
import { foldSum, sumBytes } from '../../../src/base/checksum.ts';

/** What stands in the payload of each packet, before the number of its shot. */
export const MAGIC: Buffer = Buffer.from('FNCE');

/** Ends as octets of addresses: 10.1.0.LOCAL and fd01::LOCAL here, 10.2.0.REMOTE and fd02::REMOTE there. */
export interface Ends {
  readonly family: 4 | 6;
  readonly local: number;
  readonly remote: number;
  readonly outbound: boolean;
}

export interface Shot {
  readonly tag: number;
  readonly packets: readonly Uint8Array[];
  /** Made of what every host takes: options that are well-formed, true lengths. */
  readonly sane: boolean;
}

/** Numbers from a seed (xorshift32). */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = Math.imul(seed + 1, 0x9e3779b1) | 1;
  }

  word(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }

  below(limit: number): number {
    return this.word() % limit;
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
}

const PORTS = [53, 500, 4500, 4444, 7007, 7007, 7008, 80, 0, 65_535];
const ICMP_TYPES = { 4: [0, 3, 3, 8, 8, 11, 5, 13], 6: [1, 2, 128, 128, 129, 133, 135, 136, 137, 143] } as const;
const PROTOCOLS = {
  4: [17, 17, 6, 6, 1, 50, 51, 200, 4],
  6: [17, 17, 6, 6, 58, 58, 50, 51, 135, 139, 140, 200, 253, 59],
} as const;
/** Weights: those that hosts know come most. */
const CHAINED = [60, 60, 60, 0, 43, 44, 51, 135, 140, 253, 200, 59];

/** One datagram, whole or in fragments. */
export function makeShot(dice: Dice, tag: number, ends: Ends): Shot {
  return ends.family === 4 ? shotV4(dice, tag, ends) : shotV6(dice, tag, ends);
}

/** UDP that is as plain as can be, between given addresses. Its data are the magic and the tag, over and over. */
export function plainPacket(tag: number, [from, to]: readonly [IpAddress, IpAddress], port: number): Uint8Array {
  const [source, destination] = [addressToBytes(from), addressToBytes(to)];
  const body = Buffer.concat([udp(port, port), payload(tag, 32)]);
  body.writeUInt16BE(body.length, 4);
  const pseudo = sumBytes(source, 0, source.length) + sumBytes(destination, 0, source.length) + body.length + 17;
  body.writeUInt16BE(~foldSum(foldSum(pseudo + sumBytes(body, 0, body.length))) & 0xffff || 0xffff, 6);
  const ends = { family: from.family, local: 0, remote: 0, outbound: true };
  const packet = ends.family === 4 ? headerV4(ends, 17, body, {}) : headerV6(ends, 17, body, 64);
  const at = ends.family === 4 ? 12 : 8;
  packet.set(source, at);
  packet.set(destination, at + source.length);
  if (ends.family === 4) writeChecksumV4(packet);
  return packet;
}

/** The same IPv6 packet with two headers of options before its transport header. */
export function behindOptions(packet: Uint8Array): Uint8Array {
  const options = Buffer.of(60, 0, 1, 4, 0, 0, 0, 0, packet[6]!, 0, 1, 4, 0, 0, 0, 0);
  const bytes = Buffer.concat([packet.subarray(0, 40), options, packet.subarray(40)]);
  bytes.writeUInt16BE(bytes.length - 40, 4);
  bytes[6] = 60;
  return bytes;
}

/** The same packet in two fragments, the first one with `size` bytes of what stands behind the IP header, which is plain. */
export function inTwo(packet: Uint8Array, id: number, size = 16): Uint8Array[] {
  const v4 = packet[0]! >>> 4 === 4;
  const [header, body] = [packet.subarray(0, v4 ? 20 : 40), packet.subarray(v4 ? 20 : 40)];
  return [0, size].map((offset) => {
    const piece = body.subarray(offset, offset === 0 ? size : undefined);
    const more = offset === 0;
    if (!v4) {
      const fragment = Buffer.of(packet[6]!, 0, 0, offset | (more ? 1 : 0), 0, 0, id >>> 8, id & 0xff);
      const bytes = Buffer.concat([header, fragment, piece]);
      bytes.writeUInt16BE(bytes.length - 40, 4);
      bytes[6] = 44;
      return bytes;
    }
    const bytes = Buffer.concat([header, piece]);
    bytes.writeUInt16BE(bytes.length, 2);
    bytes.writeUInt16BE(id, 4);
    bytes.writeUInt16BE((more ? 0x2000 : 0) | (offset >> 3), 6);
    writeChecksumV4(bytes);
    return bytes;
  });
}

function payload(tag: number, length: number): Buffer {
  const bytes = Buffer.alloc(length, MAGIC);
  for (let at = 4; at + 4 <= length; at += 8) bytes.writeUInt32BE(tag, at);
  return bytes;
}

function udp(source: number, destination: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt16BE(source, 0);
  bytes.writeUInt16BE(destination, 2);
  return bytes;
}

/** A transport header and its payload. */
function transport(dice: Dice, protocol: number, tag: number, ends: Ends): Buffer {
  const data = payload(tag, 8 * (1 + dice.below(12)));
  const [source, destination] = [dice.pick(PORTS), dice.pick(PORTS)];
  switch (protocol) {
    case 17: {
      const bytes = Buffer.concat([udp(source, destination), data]);
      bytes.writeUInt16BE(bytes.length, 4);
      return bytes;
    }
    case 6: {
      const header = Buffer.alloc(20);
      udp(source, destination).copy(header, 0, 0, 4);
      header[12] = 0x50;
      header[13] = 0x10;
      return Buffer.concat([header, data]);
    }
    case 1:
    case 58:
      return icmp(dice, ends, protocol, data);
    case 51:
      // AH with a transport behind it, as a receiver that knows the SA would go on.
      return Buffer.concat([Buffer.of(17, 4, 0, 0), Buffer.alloc(20), udp(source, destination), data]);
    default:
      return Buffer.concat([udp(source, destination), data]);
  }
}

function icmp(dice: Dice, ends: Ends, protocol: number, data: Buffer): Buffer {
  const type = dice.pick<number>(ICMP_TYPES[ends.family]);
  const error = ends.family === 4 ? [3, 11].includes(type) : type < 5;
  const quoted = error && dice.chance(60) ? quote(dice, ends) : Buffer.alloc(0);
  const bytes = Buffer.concat([Buffer.of(type, dice.below(2), 0, 0, 0, 0, 5, 0), quoted, data]);
  let sum = sumBytes(bytes, 0, bytes.length);
  if (protocol === 58) {
    const [source, destination] = addresses(ends);
    sum += sumBytes(source, 0, 16) + sumBytes(destination, 0, 16) + bytes.length + 58;
  }
  bytes.writeUInt16BE(~foldSum(foldSum(sum)) & 0xffff, 2);
  return bytes;
}

/** The beginning of a packet that an error is about: the tunnel's own, or another. */
function quote(dice: Dice, ends: Ends): Buffer {
  const turned = { ...ends, outbound: !ends.outbound };
  const protocol = dice.pick([50, 17, 17, 6]);
  const body = udp(dice.pick(PORTS), dice.pick(PORTS));
  if (ends.family === 6) return Buffer.from(headerV6(turned, protocol, body, 64));
  // Options that look like the ports of the tunnel where ports would be without them.
  const options = dice.chance(30) ? Buffer.of(0x01, 0xf4, 0x11, 0x94) : undefined;
  return Buffer.from(headerV4(turned, protocol, body, { options }));
}

function addresses({ family, local, remote, outbound }: Ends): readonly [Buffer, Buffer] {
  const address = (side: 1 | 2, host: number): Buffer => {
    if (family === 4) return Buffer.of(10, side, 0, host);
    return Buffer.concat([Buffer.of(0xfd, side), Buffer.alloc(13), Buffer.of(host)]);
  };
  const [here, there] = [address(1, local), address(2, remote)];
  return outbound ? [here, there] : [there, here];
}

interface FieldsV4 {
  readonly options?: Buffer | undefined;
  readonly id?: number;
  readonly offset?: number;
  readonly more?: boolean;
  readonly ihl?: number | undefined;
}

function headerV4(ends: Ends, protocol: number, body: Uint8Array, fields: FieldsV4): Uint8Array {
  const { options = Buffer.alloc(0), id = 0x4242, offset = 0, more = false } = fields;
  const length = 20 + options.length;
  const bytes = Buffer.concat([Buffer.alloc(20), options, body]);
  bytes[0] = 0x40 | (fields.ihl ?? length / 4);
  bytes.writeUInt16BE(bytes.length, 2);
  bytes.writeUInt16BE(id, 4);
  bytes.writeUInt16BE((more ? 0x2000 : 0) | (offset >> 3), 6);
  bytes[8] = 64;
  bytes[9] = protocol;
  const [source, destination] = addresses(ends);
  source.copy(bytes, 12);
  destination.copy(bytes, 16);
  writeChecksumV4(bytes);
  return bytes;
}

function writeChecksumV4(packet: Uint8Array): void {
  packet[10] = 0;
  packet[11] = 0;
  const sum = ~sumBytes(packet, 0, Math.min(4 * (packet[0]! & 15), packet.length));
  packet[10] = sum >>> 8;
  packet[11] = sum;
}

function headerV6(ends: Ends, next: number, body: Uint8Array, hopLimit: number): Uint8Array {
  const bytes = Buffer.concat([Buffer.alloc(40), body]);
  bytes[0] = 0x60;
  bytes.writeUInt16BE(body.length, 4);
  bytes[6] = next;
  bytes[7] = hopLimit;
  const [source, destination] = addresses(ends);
  source.copy(bytes, 8);
  destination.copy(bytes, 24);
  return bytes;
}

/** A piece of the fragmentable part. */
interface Piece {
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly more: boolean;
}

/** Cuts at multiples of eight, anywhere; then it may do worse. */
function cut(dice: Dice, bytes: Uint8Array): Piece[] {
  if (bytes.length === 0) return [{ offset: 0, bytes, more: true }];
  const pieces: Piece[] = [];
  const small = dice.chance(50);
  for (let offset = 0; offset < bytes.length; ) {
    const rest = bytes.length - offset;
    const size = Math.min(rest, 8 * (1 + dice.below(small ? 2 : Math.max(1, rest >> 3))));
    pieces.push({ offset, bytes: bytes.subarray(offset, offset + size), more: offset + size < bytes.length });
    offset += size;
  }
  if (dice.chance(15)) pieces.push(dice.pick(pieces));
  if (dice.chance(15)) {
    // One that overlaps, or stands behind the end.
    const { offset } = dice.pick(pieces);
    pieces.push({ offset, bytes: bytes.subarray(0, 8 * (1 + dice.below(4))), more: dice.chance(70) });
  }
  if (dice.chance(40)) pieces.sort(() => dice.below(3) - 1);
  if (dice.chance(10)) pieces.pop();
  return pieces;
}

function shotV4(dice: Dice, tag: number, ends: Ends): Shot {
  const protocol = dice.pick(PROTOCOLS[4]);
  let body: Uint8Array = transport(dice, protocol, tag, ends);
  const wild = dice.chance(20);
  if (dice.chance(8)) body = body.subarray(0, dice.below(8));
  const options = dice.chance(25) ? optionsV4(dice, wild) : undefined;
  const ihl = wild && dice.chance(20) ? dice.below(16) : undefined;
  const id = 1 + (tag % 0xffff);
  const sane = !wild && options === undefined;
  if (dice.chance(45)) return { tag, packets: [headerV4(ends, protocol, body, { options, ihl, id })], sane };
  const packets = cut(dice, body).map(({ offset, bytes, more }) => {
    const own = dice.chance(5) ? dice.pick(PROTOCOLS[4]) : protocol;
    return headerV4(ends, own, bytes, { options: offset === 0 || wild ? options : undefined, ihl, id, offset, more });
  });
  return { tag, packets, sane };
}

function optionsV4(dice: Dice, wild: boolean): Buffer {
  const bytes = Buffer.alloc(4 * (1 + dice.below(10)), 1);
  if (dice.chance(30)) Buffer.of(148, 4, 0, 0).copy(bytes);
  if (wild) for (let i = 0; i < bytes.length; i++) if (dice.chance(30)) bytes[i] = dice.below(256);
  return bytes;
}

interface ChainHeader {
  readonly type: number;
  readonly bytes: Buffer;
}

/** Options that are padding, or a header of a kind that has none. */
function chainHeader(dice: Dice, type: number, wild: boolean): ChainHeader {
  const units = type === 44 ? 1 : 1 + (dice.chance(30) ? 1 : 0);
  const bytes = Buffer.alloc(8 * units);
  if (type === 44) {
    bytes.writeUInt16BE(dice.chance(60) ? 0 : (8 * dice.below(4)) | dice.below(2), 2);
    bytes.writeUInt32BE(dice.word(), 4);
  } else if (type === 51) {
    bytes[1] = 2 * units - 2;
  } else {
    bytes[1] = units - 1;
    // PadN, or an option of experiments that hosts skip (RFC 4727); a routing header has no segments left.
    bytes[2] = type === 43 ? 0xfd : units === 1 ? 1 : 0x1e;
    bytes[3] = type === 43 ? 0 : 8 * units - 4;
  }
  if (wild && dice.chance(20)) bytes[1] = dice.below(4);
  if (wild && dice.chance(10)) bytes[3] = dice.below(256);
  return { type, bytes };
}

function chain(dice: Dice, most: number, wild: boolean): ChainHeader[] {
  const count = dice.chance(35) ? 0 : dice.below(most + 1);
  return Array.from({ length: count }, () => chainHeader(dice, dice.pick(CHAINED), wild));
}

/** Links the headers; returns the first next header. */
function link(headers: readonly ChainHeader[], last: number): { readonly next: number; readonly bytes: Buffer } {
  const parts = headers.map(({ bytes }, at) => {
    const copy = Buffer.from(bytes);
    copy[0] = headers[at + 1]?.type ?? last;
    return copy;
  });
  return { next: headers[0]?.type ?? last, bytes: Buffer.concat(parts) };
}

function shotV6(dice: Dice, tag: number, ends: Ends): Shot {
  const wild = dice.chance(25);
  const protocol = wild && dice.chance(20) ? dice.pick(CHAINED) : dice.pick(PROTOCOLS[6]);
  const hopLimit = dice.chance(10) ? 255 : 64;
  let body: Uint8Array = transport(dice, protocol, tag, ends);
  if (dice.chance(8)) body = body.subarray(0, dice.below(8));
  const sane = !wild;
  if (dice.chance(45)) {
    const { next, bytes } = link(chain(dice, 4, wild), protocol);
    return { tag, packets: [headerV6(ends, next, Buffer.concat([bytes, body]), hopLimit)], sane };
  }
  const inner = link(chain(dice, 3, wild), protocol);
  const before = dice.chance(25) ? chain(dice, 2, wild) : [];
  const packets = cut(dice, Buffer.concat([inner.bytes, body])).map(({ offset, bytes, more }) => {
    const fragment = Buffer.alloc(8);
    fragment.writeUInt16BE(offset | (more ? 1 : 0), 2);
    fragment.writeUInt32BE(tag, 4);
    const named = offset > 0 && dice.chance(30) ? dice.pick([17, 6, 50, 58, 59, 60, 200]) : inner.next;
    const headers = link([...before, { type: 44, bytes: fragment }], named);
    return headerV6(ends, headers.next, Buffer.concat([headers.bytes, bytes]), hopLimit);
  });
  return { tag, packets, sane };
}
