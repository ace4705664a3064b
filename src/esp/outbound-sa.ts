/**
 * The sending half of a CHILD SA: sequence numbers, limits, counters, and encapsulation in place (RFC 4303 §3.3).
 */

import type { PacketBatch } from '../base/batch.ts';
import { MIN_MTU } from '../base/mtu.ts';
import { MIN_ESP_SPI } from '../base/spi.ts';
import type { PacketCipher } from '../crypto/types.ts';
import type { CompiledSelectors } from '../policy/compiled.ts';
import { type DropCounters, DropReason, newDropCounters } from './drops.ts';
import {
  ESP_HEADER_LENGTH,
  encryptedLength,
  espAlignment,
  maxPayload,
  NextHeader,
  writeEspHeader,
  writeTrailer,
} from './packet.ts';
import { type TfcConfig, TfcPadding } from './tfc.ts';
import { COPY_DSCP, outerTrafficClass } from './traffic-class.ts';
import { newSaState, SaCounter, type SaLimits, type SaState, SaUsage } from './usage.ts';

const MAX_U32 = 0xffff_ffff;
const MAX_PACKET = 0xffff;
const TWO_32 = 0x1_0000_0000;
/** The length of the smallest common packets: IPv4 and UDP headers. */
const MIN_DUMMY = 28;
/** The end of shared sequence numbers: early enough that all sharers together, each drawing one more, stay below 2^32. */
const SHARED_END = 0xffff_0000;
/** Part of the sequence numbers after which a rekey is asked for. */
const SEQUENCE_SOFT_PART = 7 / 8;

export interface OutboundSaOptions {
  /** A number of the owner's own: the CHILD SA. */
  readonly id: number;
  /** As chosen by the peer. */
  readonly spi: number;
  /** The SA owns it from now on and wipes it. */
  readonly cipher: PacketCipher;
  readonly esn: boolean;
  /** What the SA carries, seen from here: local is the source. */
  readonly selectors: CompiledSelectors;
  /** Transport mode: packets go without their IP header. */
  readonly transport?: boolean | undefined;
  /** What the pipeline tags its packets with: where they go. Not negative. */
  readonly pathIndex: number;
  readonly limits: SaLimits;
  /** What outer headers say, 0 to 63; left out: what the packet inside says (RFC 4301 §5.1.2.1). */
  readonly dscp?: number | undefined;
  /** How far packets are padded (RFC 4303 §2.7); not at all when left out, as transport mode must. */
  readonly tfc?: TfcConfig | undefined;
  /** The last number that counts as used; when left out, what the state says. */
  readonly lastSequence?: bigint;
  /** Where it goes on; a new one when left out. */
  readonly state?: SaState;
  /**
   * So many objects, in as many threads, are this SA: they draw from the same sequence numbers, in shared memory, and
   * each has its part of the limits. Default: 1.
   */
  readonly sharers?: number | undefined;
}

export class EspOutboundSa {
  readonly id: number;
  readonly spi: number;
  readonly esn: boolean;
  readonly selectors: CompiledSelectors;
  readonly transport: boolean;
  /** Of outer headers, or `COPY_DSCP`. */
  readonly dscp: number;
  readonly usage: SaUsage;
  /** What it could not carry, by reason. */
  readonly drops: DropCounters = newDropCounters();
  /** May be changed at any time: the peer moved. */
  pathIndex: number;
  /** The largest packet that goes out in one piece; to be changed when the path takes less, or more. */
  mtu: number = MAX_PACKET;
  /** The largest ESP packet that the path takes in one piece; 0 while that is not known. To be changed likewise. */
  room = 0;
  /** Packets that the MSS of TCP is lowered to. */
  clampMtu: number = MAX_PACKET;
  readonly #padding: TfcPadding | undefined;
  readonly #cipher: PacketCipher;
  readonly #alignment: number;
  /** Room that is needed before the payload. */
  readonly #head: number;
  /** Room that is needed behind what is encrypted. */
  readonly #tail: number;
  /** The SPI as a signed integer: V8 never puts one on the heap. */
  readonly #spiWord: number;
  /** High and low half of the last sequence number that was used; of any sharer, where they are shared. */
  readonly #sequence: Uint32Array;
  /** The same, of this object. */
  readonly #own: Uint32Array;
  readonly #isShared: boolean;
  #wiped = false;

  /** @throws RangeError for an SPI below 256 */
  constructor(options: OutboundSaOptions) {
    if (options.spi < MIN_ESP_SPI || options.spi > MAX_U32) throw new RangeError(`SPI ${options.spi} is reserved`);
    this.id = options.id;
    this.spi = options.spi;
    this.esn = options.esn;
    this.selectors = options.selectors;
    this.transport = options.transport ?? false;
    this.pathIndex = options.pathIndex;
    this.dscp = options.dscp ?? COPY_DSCP;
    const { tfc } = options;
    this.#padding = tfc === undefined || tfc.padding === 'none' ? undefined : new TfcPadding(tfc);
    this.#cipher = options.cipher;
    this.#spiWord = options.spi | 0;
    this.#alignment = espAlignment(options.cipher);
    this.#head = ESP_HEADER_LENGTH + options.cipher.ivLength;
    this.#tail = options.cipher.icvLength;
    const { lastSequence, state = newSaState() } = options;
    this.#sequence = state.sequence;
    if (lastSequence !== undefined) {
      this.#sequence[0] = Number(lastSequence >> 32n);
      this.#sequence[1] = Number(lastSequence & 0xffff_ffffn);
    }
    const { limits, esn, sharers = 1 } = options;
    this.#isShared = sharers > 1;
    this.#own = this.#isShared ? new Uint32Array(2) : this.#sequence;
    const whole = withSequenceLimit(limits, this.lastSequence, esn && !this.#isShared);
    this.usage = new SaUsage(this.#isShared ? partOf(whole, sharers) : whole, state.counters);
  }

  /** Neither expired nor wiped. */
  get usable(): boolean {
    return !this.#wiped && !this.usage.expired;
  }

  /** The largest packet that is at most `limit` bytes long once it is sealed. May be negative. */
  maxPacket(limit: number): number {
    return maxPayload(limit, this.#cipher);
  }

  /** The last sequence number that was used. */
  get lastSequence(): bigint {
    return (BigInt(this.#sequence[0]!) << 32n) | BigInt(this.#sequence[1]!);
  }

  /**
   * Makes an ESP packet of the packet in a slot; offset and length of the slot then are those of the ESP packet. When
   * a reason is returned, the slot is as it was.
   * @param nextHeader protocol number of what lies in the slot: 4 or 41 in tunnel mode, that of the payload in transport mode
   */
  encapsulate(now: number, batch: PacketBatch, slot: number, nextHeader: number): DropReason {
    const length = batch.length[slot]!;
    const padded = this.#padding === undefined ? length : this.#pad(this.#padding, batch, slot);
    const reason = this.#encrypt(now, batch, slot, padded, nextHeader);
    if (reason === DropReason.none) {
      const { counters } = this.usage;
      counters[SaCounter.packets]!++;
      counters[SaCounter.bytes]! += length;
    } else {
      this.drops[reason]!++;
    }
    return reason;
  }

  /** Puts a dummy packet (RFC 4303 §2.6) with `length` bytes inside into the next slot of the batch and tags it. */
  addDummy(now: number, batch: PacketBatch, length: number): DropReason {
    const slot = batch.claim(length);
    if (slot < 0) return DropReason.noRoom;
    const at = batch.offset[slot]!;
    batch.buffer.fill(0, at, at + length);
    const reason = this.#encrypt(now, batch, slot, length, NextHeader.none);
    if (reason === DropReason.none) {
      batch.tag[slot] = this.pathIndex;
      batch.trafficClass[slot] = outerTrafficClass(0, this.dscp);
      this.usage.counters[SaCounter.dummies]!++;
    } else {
      this.drops[reason]!++;
      batch.length[slot] = 0;
    }
    return reason;
  }

  /**
   * A length for a dummy packet that does not tell it from real packets.
   * @param random uniform in [0, 1)
   */
  dummyLength(random: number): number {
    const room = this.#padRoom;
    const length = MIN_DUMMY + Math.floor(random * Math.max(1, room - MIN_DUMMY));
    return this.#padding === undefined ? length : this.#padding.paddedLength(length, room);
  }

  /** Forgets the keys. */
  wipe(): void {
    if (this.#wiped) return;
    this.#wiped = true;
    this.#cipher.wipe();
  }

  /** What packets are padded to at most, and as large as dummies are. */
  get #padRoom(): number {
    // While nothing is known of the path: what every link takes, and nearly every path with the headers before it.
    return this.mtu < MAX_PACKET ? this.mtu : maxPayload(MIN_MTU[6], this.#cipher);
  }

  /** Length of a packet after zeros were written behind it, as far as there is room. */
  #pad(padding: TfcPadding, batch: PacketBatch, slot: number): number {
    const at = batch.offset[slot]!;
    const length = batch.length[slot]!;
    const space = maxPayload(batch.slotEnd(slot) - at + this.#head, this.#cipher);
    const padded = padding.paddedLength(length, Math.min(this.#padRoom, space));
    batch.buffer.fill(0, at + length, at + padded);
    return padded;
  }

  /**
   * Draws a sequence number and writes the ESP packet.
   * @param length of the payload with its padding for traffic flow confidentiality, from the slot's offset on
   */
  #encrypt(now: number, batch: PacketBatch, slot: number, length: number, nextHeader: number): DropReason {
    if (this.#wiped || this.usage.expired) return this.#whyUnusable();
    const at = batch.offset[slot]!;
    const start = at - this.#head;
    const dataLength = encryptedLength(length, this.#alignment);
    const end = at + dataLength;
    if (start < batch.slotBegin(slot) || end + this.#tail > batch.slotEnd(slot)) return DropReason.noRoom;
    if (this.#sequenceExhausted()) {
      this.usage.end('sequence');
      return DropReason.sequenceExhausted;
    }
    if (!this.usage.charge(now, dataLength)) return DropReason.lifetimeExpired;
    this.#advance();
    const { buffer } = batch;
    const high = this.#own[0]!;
    const low = this.#own[1]! | 0;
    writeEspHeader(buffer, start, this.#spiWord, low);
    writeTrailer(buffer, at + length, end, nextHeader);
    // The sequence number is also the counter that the cipher makes its IV of.
    this.#cipher.seal(buffer, start, start + ESP_HEADER_LENGTH, dataLength, high, low, this.esn ? high : -1);
    const sealed = end + this.#tail - start;
    batch.offset[slot] = start;
    batch.length[slot] = sealed;
    batch.fragmentable[slot] = sealed > this.room ? 1 : 0;
    return DropReason.none;
  }

  #whyUnusable(): DropReason {
    return this.#sequenceExhausted() ? DropReason.sequenceExhausted : DropReason.lifetimeExpired;
  }

  /** RFC 4303 §3.3.3: the counter must never cycle. */
  #sequenceExhausted(): boolean {
    // Others may be about to take one; and with ESN the high half cannot be carried to by one of them for all.
    if (this.#isShared) return this.#sequence[1]! >= SHARED_END;
    return this.#sequence[1] === MAX_U32 && (!this.esn || this.#sequence[0] === MAX_U32);
  }

  #advance(): void {
    const sequence = this.#sequence;
    if (this.#isShared) {
      this.#own[1] = Atomics.add(sequence, 1, 1) + 1;
      return;
    }
    if (sequence[1] === MAX_U32) {
      sequence[0]!++;
      sequence[1] = 0;
    } else {
      sequence[1]!++;
    }
  }
}

/** What each of several may use, so that all of them together stay within. Time is the same for all. */
function partOf(limits: SaLimits, sharers: number): SaLimits {
  return {
    ...limits,
    softBytes: limits.softBytes / sharers,
    hardBytes: Math.floor(limits.hardBytes / sharers),
    softPackets: limits.softPackets / sharers,
    hardPackets: Math.floor(limits.hardPackets / sharers),
  };
}

/** Adds the soft limit that the sequence numbers themselves set. */
function withSequenceLimit(limits: SaLimits, last: bigint, esn: boolean): SaLimits {
  const left = (esn ? TWO_32 * TWO_32 : TWO_32) - Number(last);
  return { ...limits, softPackets: Math.min(limits.softPackets, Math.floor(left * SEQUENCE_SOFT_PART)) };
}
