/** What the ESP tests share: plain packets, selectors, a cipher that costs nothing, and pairs of SAs. */
import { parseAddress, prefixRange } from '../../src/base/address.ts';
import { PacketBatch } from '../../src/base/batch.ts';
import { readU32, writeU32 } from '../../src/base/bytes.ts';
import type { PacketCipher } from '../../src/crypto/types.ts';
import { type DropReason, dropReasonNames } from '../../src/esp/drops.ts';
import { EspInboundSa, type InboundSaOptions } from '../../src/esp/inbound-sa.ts';
import { EspOutboundSa, type OutboundSaOptions } from '../../src/esp/outbound-sa.ts';
import { UNLIMITED } from '../../src/esp/usage.ts';
import { CompiledSelectors } from '../../src/policy/compiled.ts';
import type { TrafficSelector } from '../../src/policy/selector.ts';

/** No protection at all, but the interface's whole behaviour: the ICV covers every bit, the ESN half included. */
export class ToyCipher implements PacketCipher {
  readonly ivLength: number;
  readonly icvLength: number;
  readonly blockSize: number;
  wiped = false;

  constructor(ivLength = 8, icvLength = 16, blockSize = 1) {
    this.ivLength = ivLength;
    this.icvLength = icvLength;
    this.blockSize = blockSize;
  }

  seal(
    buffer: Uint8Array,
    start: number,
    ivAt: number,
    dataLength: number,
    counterHigh: number,
    counterLow: number,
    esnHigh: number,
  ): void {
    if (dataLength % this.blockSize !== 0) throw new Error('not whole blocks');
    for (let i = 0; i < this.ivLength; i++) buffer[ivAt + i] = i < 4 ? counterHigh >>> (8 * i) : counterLow >>> (8 * i);
    const dataAt = ivAt + this.ivLength;
    this.#scramble(buffer, dataAt, dataLength);
    this.#icv(buffer, start, dataAt + dataLength, esnHigh, buffer.subarray(dataAt + dataLength));
  }

  open(buffer: Uint8Array, start: number, ivAt: number, dataLength: number, esnHigh: number): boolean {
    const dataAt = ivAt + this.ivLength;
    const wanted = new Uint8Array(this.icvLength);
    this.#icv(buffer, start, dataAt + dataLength, esnHigh, wanted);
    for (let i = 0; i < this.icvLength; i++) if (buffer[dataAt + dataLength + i] !== wanted[i]) return false;
    this.#scramble(buffer, dataAt, dataLength);
    return true;
  }

  wipe(): void {
    this.wiped = true;
  }

  #scramble(buffer: Uint8Array, at: number, length: number): void {
    for (let i = 0; i < length; i++) buffer[at + i]! ^= 0xa5;
  }

  #icv(buffer: Uint8Array, from: number, to: number, esnHigh: number, out: Uint8Array): void {
    let hash = (0x811c9dc5 ^ esnHigh) | 0;
    for (let i = from; i < to; i++) hash = Math.imul(hash ^ buffer[i]!, 0x01000193);
    for (let i = 0; i < this.icvLength; i++) {
      hash = Math.imul(hash ^ i, 0x01000193);
      out[i] = hash >>> 24;
    }
  }
}

export interface Plain {
  readonly source: string;
  readonly destination: string;
  readonly protocol?: number;
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  /** Total length; at least the headers. */
  readonly length?: number;
}

/** An IPv4 or IPv6 packet with UDP or TCP ports and a payload that tells its place. */
export function plainPacket(plain: Plain): Uint8Array {
  const source = parseAddress(plain.source)!;
  const destination = parseAddress(plain.destination)!;
  const v6 = source.family === 6;
  const header = v6 ? 40 : 20;
  const length = plain.length ?? header + 8;
  const packet = new Uint8Array(length);
  for (let i = header; i < length; i++) packet[i] = i * 7 + 3;
  if (v6) {
    packet[0] = 0x60;
    writeU32(packet, 4, ((length - header) << 16) | ((plain.protocol ?? 17) << 8) | 64);
  } else {
    writeU32(packet, 0, 0x4500_0000 | length);
    writeU32(packet, 8, (64 << 24) | ((plain.protocol ?? 17) << 16));
  }
  const bytes = v6 ? 16 : 4;
  for (let i = 0; i < bytes; i++) {
    packet[header - 2 * bytes + i] = Number((source.value >> BigInt(8 * (bytes - 1 - i))) & 0xffn);
    packet[header - bytes + i] = Number((destination.value >> BigInt(8 * (bytes - 1 - i))) & 0xffn);
  }
  if (length >= header + 4) {
    writeU32(packet, header, ((plain.sourcePort ?? 1111) << 16) | (plain.destinationPort ?? 2222));
  }
  return packet;
}

/** `10.1.0.0/16` */
export function selector(prefix: string, protocol = 0, startPort = 0, endPort = 0xffff): TrafficSelector {
  const [address, bits] = prefix.split('/');
  return { protocol, startPort, endPort, range: prefixRange(parseAddress(address!)!, Number(bits)) };
}

export function compiled(local: readonly string[], remote: readonly string[]): CompiledSelectors {
  return new CompiledSelectors({
    local: local.map((prefix) => selector(prefix)),
    remote: remote.map((prefix) => selector(prefix)),
  });
}

/** Both families, everything. */
export const anything: CompiledSelectors = compiled(['0.0.0.0/0', '::/0'], ['0.0.0.0/0', '::/0']);

export const SPI = 0xc0ff_ee01;

export function outboundSa(options: Partial<OutboundSaOptions> = {}): EspOutboundSa {
  return new EspOutboundSa({
    id: 1,
    spi: SPI,
    cipher: new ToyCipher(),
    esn: false,
    selectors: anything,
    pathIndex: 7,
    limits: UNLIMITED,
    ...options,
  });
}

export function inboundSa(options: Partial<InboundSaOptions> = {}): EspInboundSa {
  return new EspInboundSa({
    id: 1,
    spi: SPI,
    cipher: new ToyCipher(),
    esn: false,
    selectors: anything,
    tag: 9,
    limits: UNLIMITED,
    ...options,
  });
}

export function batchOf(...packets: readonly Uint8Array[]): PacketBatch {
  const batch = new PacketBatch(Math.max(packets.length, 1), Math.max(...packets.map((p) => p.length), 1500));
  for (const packet of packets) if (batch.push(packet) < 0) throw new Error('the batch is too small');
  return batch;
}

/** The ESP packet that an SA makes of a plain one. */
export function sealed(sa: EspOutboundSa, packet: Uint8Array, now = 0): Uint8Array {
  const batch = batchOf(packet);
  const reason = sa.encapsulate(now, batch, 0, packet[0]! >>> 4 === 4 ? 4 : 41);
  if (reason !== 0) throw new Error(`not sealed: ${dropReasonNames[reason]}`);
  return batch.packet(0).slice();
}

/** An ESP packet with any encrypted part: what no honest sender makes. */
export function forged(cipher: PacketCipher, spi: number, sequence: number, data: Uint8Array): Uint8Array {
  const packet = new Uint8Array(8 + cipher.ivLength + data.length + cipher.icvLength);
  writeU32(packet, 0, spi);
  writeU32(packet, 4, sequence);
  packet.set(data, 8 + cipher.ivLength);
  cipher.seal(packet, 0, 8, data.length, 0, sequence, -1);
  return packet;
}

export function sequenceOf(esp: Uint8Array): number {
  return readU32(esp, 4);
}

export function reasonName(reason: DropReason): string {
  return dropReasonNames[reason]!;
}
