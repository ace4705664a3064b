/**
 * Many datagrams from a socket in one call: recvmmsg into memory that lives as long as the thread. With UDP_GRO each
 * message may be a run of datagrams of one peer that the kernel joined; its control message has their size.
 */
import type { Libc } from '../../sys/libc.ts';
import { addressOf } from '../../sys/native-memory.ts';
import * as layout from './layout.ts';

/** Of a sockaddr, rounded up. */
const NAME_WORDS = 8;
/** Room for pktinfo, segment size, traffic class, and an error with its address, at their largest: 40 + 24 + 24 + 64. */
const CONTROL_WORDS = 40;
/** Bytes between slots, so that their beginnings do not compete for the same cache lines. */
const STAGGER = 1600;
/** Views that are kept for the next time that a datagram lies in the same place. */
const VIEWS = 8192;

/** Where an error in the error queue comes from (linux/errqueue.h): a router or the peer, not this host. */
const SO_EE_ORIGIN_ICMP = 2;
const SO_EE_ORIGIN_ICMP6 = 3;

export class DatagramReader {
  /** Of the message that `inspect` was called for: where it stands, how long it is, how long each datagram in it. */
  start = 0;
  length = 0;
  segment = 0;
  /** Index in `words` of the local address that it came to; 0 when the system did not report it. */
  localAt = 0;
  /** DSCP and ECN of its IP header; 0 when the system did not report them. Joined datagrams have the same. */
  trafficClass = 0;
  /** The errno of an ICMP error, for a message of the error queue; else 0. `icmpInfo` is the MTU of an EMSGSIZE. */
  icmpError = 0;
  icmpInfo = 0;
  readonly words: Int32Array;
  readonly #calls: Pick<Libc, 'recvmmsg'>;
  /** Messages of a call at most. */
  readonly capacity: number;
  readonly #slotBytes: number;
  readonly #data: Uint8Array;
  readonly #headers: number;
  readonly #namesAt: number;
  readonly #controlsAt: number;
  // BOUNDED: `VIEWS`.
  readonly #views: Uint8Array[] = new Array<Uint8Array>(VIEWS).fill(new Uint8Array(0));
  /** Headers that the last call wrote to. */
  #used: number;

  /**
   * @param slotBytes the most that is taken of each message
   * @param memory what is read to, as long as `bytesFor` says
   */
  constructor(calls: Pick<Libc, 'recvmmsg'>, capacity: number, slotBytes: number, memory?: Uint8Array) {
    this.#calls = calls;
    this.capacity = capacity;
    this.#slotBytes = slotBytes;
    this.#data = memory ?? new Uint8Array(new ArrayBuffer(DatagramReader.bytesFor(capacity, slotBytes)));
    const vectorsAt = capacity * layout.MMSGHDR_WORDS;
    this.#namesAt = vectorsAt + capacity * layout.IOVEC_WORDS;
    this.#controlsAt = this.#namesAt + capacity * NAME_WORDS;
    this.words = new Int32Array(new ArrayBuffer(4 * (this.#controlsAt + capacity * CONTROL_WORDS)));
    this.#headers = addressOf(new Uint8Array(this.words.buffer));
    const data = addressOf(this.#data);
    const { words } = this;
    for (let index = 0; index < capacity; index++) {
      const header = index * layout.MMSGHDR_WORDS;
      const vector = vectorsAt + index * layout.IOVEC_WORDS;
      layout.writePointer(words, vector, data + this.#slotStart(index));
      words[vector + 2] = slotBytes;
      layout.writePointer(words, header + layout.MSG_NAME, this.#headers + 4 * this.nameAt(index));
      layout.writePointer(words, header + layout.MSG_IOV, this.#headers + 4 * vector);
      words[header + layout.MSG_IOVLEN] = 1;
      layout.writePointer(words, header + layout.MSG_CONTROL, this.#headers + 4 * this.#controlAt(index));
    }
    this.#used = capacity;
  }

  /** The memory of a reader. */
  static bytesFor(capacity: number, slotBytes: number): number {
    return capacity * (slotBytes + STAGGER);
  }

  /**
   * Takes what waits, `most` messages if there are so many: fewer mean that nothing more waited. The number of messages,
   * or -1 for an error (see errno).
   */
  read(fd: number, flags: number, most: number = this.capacity): number {
    for (let index = 0; index < this.#used; index++) {
      const header = index * layout.MMSGHDR_WORDS;
      this.words[header + layout.MSG_NAMELEN] = 4 * NAME_WORDS;
      this.words[header + layout.MSG_CONTROLLEN] = 4 * CONTROL_WORDS;
    }
    const count = this.#calls.recvmmsg(fd, this.#headers, most, flags | layout.MSG_DONTWAIT);
    this.#used = Math.max(0, count);
    return count;
  }

  /** Reads what the system says about a message. False when the message or that was cut off. */
  inspect(index: number): boolean {
    const { words } = this;
    const header = index * layout.MMSGHDR_WORDS;
    this.start = this.#slotStart(index);
    this.length = words[header + layout.MSG_LEN]!;
    this.segment = this.length;
    this.localAt = 0;
    this.trafficClass = 0;
    this.icmpError = 0;
    this.icmpInfo = 0;
    let at = this.#controlAt(index);
    const end = at + (words[header + layout.MSG_CONTROLLEN]! >> 2);
    while (at + layout.CMSG_DATA < end) {
      const dataBytes = words[at]! - layout.CMSG_BYTES;
      if (dataBytes <= 0) break;
      this.#inspectControl(words[at + layout.CMSG_LEVEL]!, words[at + layout.CMSG_TYPE]!, at + layout.CMSG_DATA);
      at += layout.cmsgWords(dataBytes);
    }
    return (words[header + layout.MSG_FLAGS]! & (layout.MSG_TRUNC | layout.MSG_CTRUNC)) === 0;
  }

  /** Of the IPv4 header at the start of the message, which the kernel checked; not more than there is. */
  ipHeaderLength(): number {
    return Math.min(this.length, (this.#data[this.start]! & 0x0f) * 4);
  }

  /** Index in `words` of the sockaddr that a message came from. */
  nameAt(index: number): number {
    return this.#namesAt + index * NAME_WORDS;
  }

  /** A view of received bytes, the same object each time that it is asked for, unless another took its place. */
  view(start: number, length: number): Uint8Array {
    const place = (Math.imul(start ^ (length << 16), 0x9e3779b1) >>> 16) & (VIEWS - 1);
    const kept = this.#views[place]!;
    if (kept.byteOffset === this.#data.byteOffset + start && kept.length === length) return kept;
    const made = this.#data.subarray(start, start + length);
    this.#views[place] = made;
    return made;
  }

  #inspectControl(level: number, type: number, data: number): void {
    const { words } = this;
    if (level === layout.SOL_UDP && type === layout.UDP_GRO) {
      if (words[data]! > 0) this.segment = words[data]!;
    } else if (isTrafficClass(level, type)) {
      // One byte in IPv4, an int in IPv6.
      this.trafficClass = words[data]! & 0xff;
    } else if (level === layout.SOL_IP && type === layout.IP_PKTINFO) {
      this.localAt = data + layout.PKTINFO_ADDRESS[4];
    } else if (level === layout.SOL_IPV6 && type === layout.IPV6_PKTINFO) {
      this.localAt = data + layout.PKTINFO_ADDRESS[6];
    } else if (
      (level === layout.SOL_IP && type === layout.IP_RECVERR) ||
      (level === layout.SOL_IPV6 && type === layout.IPV6_RECVERR)
    ) {
      const origin = words[data + 1]! & 0xff;
      if (origin !== SO_EE_ORIGIN_ICMP && origin !== SO_EE_ORIGIN_ICMP6) return;
      this.icmpError = words[data]!;
      this.icmpInfo = words[data + 2]! >>> 0;
    }
  }

  #slotStart(index: number): number {
    return index * (this.#slotBytes + STAGGER);
  }

  #controlAt(index: number): number {
    return this.#controlsAt + index * CONTROL_WORDS;
  }
}

function isTrafficClass(level: number, type: number): boolean {
  return level === layout.SOL_IP ? type === layout.IP_TOS : level === layout.SOL_IPV6 && type === layout.IPV6_TCLASS;
}
