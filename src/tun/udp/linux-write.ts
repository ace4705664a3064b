/**
 * Many datagrams to a peer in one call: sendmmsg, each of whose messages is one datagram or, where the kernel has
 * UDP_SEGMENT, a run of datagrams of equal size (the last may be shorter) that the kernel or the network card cuts.
 * The packets are taken where they lie. DSCP and ECN are the same in a whole message (IP_TOS, IPV6_TCLASS), so a run ends
 * where they change; zero, the default of a socket, needs no control message.
 */
import type { PacketBatch } from '../../base/batch.ts';
import { ERRNO } from '../../sys/errno.ts';
import type { Libc } from '../../sys/libc.ts';
import { addressOf } from '../../sys/native-memory.ts';
import { sendErrorOf } from './errors.ts';
import * as layout from './layout.ts';
import type { UdpCounters, UdpSendError } from './udp.ts';

/** The most segments (UDP_MAX_SEGMENTS of older kernels) and bytes in one message. */
const MAX_SEGMENTS = 64;
const MAX_RUN_BYTES = 65_507;
/** The most in one call. */
const MAX_MESSAGES = 64;
const MAX_VECTORS = 256;
const FLAGS = layout.MSG_DONTWAIT | layout.MSG_NOSIGNAL;
/** How often a message is tried again after a signal, or after an ICMP error of another datagram. */
const MAX_RETRIES = 2;
/** Runs that go out datagram by datagram after a refusal, before segmentation is tried again. */
const RUNS_UNTIL_RETRY = 1024;

/**
 * Whether a socket's runs may be left to the kernel to cut. It refuses when a segment does not fit the way to the
 * peer (EINVAL, EMSGSIZE), and some when the network card leaves checksums to them (EIO); the way may be another later.
 */
export class Segmentation {
  readonly #available: boolean;
  /** Segments of up to so many bytes are not known to be refused. */
  #limit: number;
  #rest = 0;

  constructor({ available }: { readonly available: boolean }) {
    this.#available = available;
    this.#limit = available ? MAX_RUN_BYTES : 0;
  }

  /** Whether it works at all, as far as known. */
  get works(): boolean {
    return this.#limit > 0;
  }

  usable(size: number): boolean {
    if (size <= this.#limit) return true;
    if (!this.#available || --this.#rest > 0) return false;
    this.#limit = MAX_RUN_BYTES;
    return size <= this.#limit;
  }

  refused(size: number, errno: number): void {
    this.#limit = errno === ERRNO.EIO ? 0 : size - 1;
    this.#rest = RUNS_UNTIL_RETRY;
  }
}

/** What a call needs to know of the socket and of where the datagrams go. */
export interface Sending {
  readonly fd: number;
  readonly counters: UdpCounters;
  readonly segmentation: Segmentation;
  /** sockaddr of the peer. */
  readonly name: Int32Array;
  /** pktinfo with the local address to send from. */
  readonly source: Int32Array | undefined;
  /** Reads the errors that ICMP reported from the error queue. Returns how many there were. */
  readonly readErrors: () => number;
}

/** Words of a message's own control: segment size, traffic class, pktinfo. */
const SEGMENT_WORDS = layout.cmsgWords(2);
const CLASS_WORDS = layout.cmsgWords(4);
const CONTROL_WORDS = 24;
/** Two sets of headers: for runs, and for the datagrams of a run that was refused. */
const SINGLES = MAX_MESSAGES;
const VECTORS_AT = 2 * MAX_MESSAGES * layout.MMSGHDR_WORDS;
const CONTROLS_AT = VECTORS_AT + MAX_VECTORS * layout.IOVEC_WORDS;
const SOURCE_AT = CONTROLS_AT + 2 * MAX_MESSAGES * CONTROL_WORDS;
const NAME_AT = SOURCE_AT + CONTROL_WORDS;
const WORDS = NAME_AT + CONTROL_WORDS;
/** For the one datagram of `send`, which may lie in memory that moves. */
const SCRATCH_BYTES = 65_536;

/** One for all sockets of a thread: nothing of it outlives a call. */
export class DatagramWriter {
  readonly #calls: Pick<Libc, 'sendmmsg' | 'errno'>;
  readonly #words = new Int32Array(new ArrayBuffer(4 * WORDS));
  readonly #scratch = new Uint8Array(new ArrayBuffer(SCRATCH_BYTES));
  readonly #memory: number = addressOf(new Uint8Array(this.#words.buffer));
  /** Of each message, in the order of their headers. */
  readonly #firstVectors = new Int32Array(2 * MAX_MESSAGES);
  readonly #classes = new Uint8Array(2 * MAX_MESSAGES);
  /** Headers that `#gather` filled. */
  #messages = 0;
  /** Why the last dropped datagram was dropped. */
  refusal: UdpSendError | undefined;
  /** What the target's words are now. */
  #name: Int32Array | undefined;
  #source: Int32Array | undefined;

  constructor(calls: Pick<Libc, 'sendmmsg' | 'errno'>) {
    this.#calls = calls;
    for (let message = 0; message < 2 * MAX_MESSAGES; message++) {
      layout.writePointer(this.#words, message * layout.MMSGHDR_WORDS + layout.MSG_NAME, this.#memory + 4 * NAME_AT);
    }
  }

  /** At most as many bytes as fit a datagram. False when it was dropped. */
  send(sending: Sending, data: Uint8Array, trafficClass: number): boolean {
    this.#scratch.set(data);
    this.#writeTarget(sending);
    this.#writeVector(0, addressOf(this.#scratch), data.length);
    this.#openMessage(0, 0, trafficClass);
    this.#finishMessages(sending, 0, 1);
    return this.#transmit(sending, 0, 1) === 1;
  }

  /** The slots of a batch that are not empty. How many were sent; the others are counted by reason. */
  sendBatch(sending: Sending, batch: PacketBatch, first: number, end: number): number {
    this.#writeTarget(sending);
    let sent = 0;
    let slot = first;
    while (slot < end) {
      slot = this.#gather(sending.segmentation, batch, slot, end);
      this.#finishMessages(sending, 0, this.#messages);
      sent += this.#transmit(sending, 0, this.#messages);
    }
    return sent;
  }

  #writeTarget({ name, source }: Sending): void {
    if (name === this.#name && source === this.#source) return;
    this.#name = name;
    this.#source = source;
    this.#words.set(name, NAME_AT);
    if (source === undefined) return;
    const [level, type] = isFour(name) ? [layout.SOL_IP, layout.IP_PKTINFO] : [layout.SOL_IPV6, layout.IPV6_PKTINFO];
    layout.writeCmsg(this.#words, SOURCE_AT, level, type, source.length * 4);
    this.#words.set(source, SOURCE_AT + layout.CMSG_DATA);
  }

  /** Makes messages of slots, as many as there is room for. The slot to go on with. */
  #gather(segmentation: Segmentation, batch: PacketBatch, first: number, end: number): number {
    const words = this.#words;
    const buffer = addressOf(batch.buffer);
    let messages = 0;
    let vector = 0;
    /** Of the open run: what its next segment may have at most, 0 for none; what all have; and what it has. */
    let room = 0;
    let openClass = 0;
    let bytes = 0;
    let segments = 0;
    let slot = first;
    for (; slot < end && vector < MAX_VECTORS; slot++) {
      const length = batch.length[slot]!;
      if (length === 0) continue;
      const trafficClass = batch.trafficClass[slot]!;
      const full = bytes + length > MAX_RUN_BYTES || segments === MAX_SEGMENTS;
      if (length > room || trafficClass !== openClass || full) {
        if (messages === MAX_MESSAGES) break;
        this.#openMessage(messages++, vector, trafficClass);
        openClass = trafficClass;
        room = segmentation.usable(length) ? length : 0;
        bytes = 0;
        segments = 0;
      }
      this.#writeVector(vector++, buffer + batch.offset[slot]!, length);
      bytes += length;
      segments++;
      words[headerAt(messages - 1) + layout.MSG_IOVLEN] = segments;
      // A shorter one can only be the last of a run.
      if (length < room) room = 0;
    }
    this.#messages = messages;
    return slot;
  }

  #writeVector(vector: number, address: number, length: number): void {
    const at = VECTORS_AT + vector * layout.IOVEC_WORDS;
    layout.writePointer(this.#words, at, address);
    this.#words[at + 2] = length;
  }

  /** A message of one vector. */
  #openMessage(message: number, vector: number, trafficClass: number): void {
    const header = headerAt(message);
    this.#firstVectors[message] = vector;
    this.#classes[message] = trafficClass;
    const address = this.#memory + 4 * (VECTORS_AT + vector * layout.IOVEC_WORDS);
    layout.writePointer(this.#words, header + layout.MSG_IOV, address);
    this.#words[header + layout.MSG_IOVLEN] = 1;
  }

  /** Writes names and control of messages that have their vectors. */
  #finishMessages({ name, source }: Sending, first: number, last: number): void {
    const words = this.#words;
    const sourceWords = source === undefined ? 0 : layout.cmsgWords(source.length * 4);
    for (let message = first; message < last; message++) {
      const header = headerAt(message);
      words[header + layout.MSG_NAMELEN] = name.length * 4;
      const segmented = words[header + layout.MSG_IOVLEN]! > 1;
      const trafficClass = this.#classes[message]!;
      let control = SOURCE_AT;
      let end = SOURCE_AT;
      if (segmented || trafficClass !== 0) {
        control = controlAt(message);
        end = control;
        if (segmented) end = this.#writeSegmentSize(end, message);
        if (trafficClass !== 0) end = this.#writeTrafficClass(end, name, trafficClass);
        if (sourceWords > 0) words.copyWithin(end, SOURCE_AT, SOURCE_AT + sourceWords);
      }
      layout.writePointer(words, header + layout.MSG_CONTROL, this.#memory + 4 * control);
      words[header + layout.MSG_CONTROLLEN] = 4 * (end - control + sourceWords);
    }
  }

  /** Where the next control message starts. */
  #writeSegmentSize(at: number, message: number): number {
    layout.writeCmsg(this.#words, at, layout.SOL_UDP, layout.UDP_SEGMENT, 2);
    this.#words[at + layout.CMSG_DATA] = this.#segmentSize(message);
    return at + SEGMENT_WORDS;
  }

  #writeTrafficClass(at: number, name: Int32Array, trafficClass: number): number {
    if (isFour(name)) layout.writeCmsg(this.#words, at, layout.SOL_IP, layout.IP_TOS, 4);
    else layout.writeCmsg(this.#words, at, layout.SOL_IPV6, layout.IPV6_TCLASS, 4);
    this.#words[at + layout.CMSG_DATA] = trafficClass;
    return at + CLASS_WORDS;
  }

  /** Sends messages; how many datagrams went. Each is tried a bounded number of times, then dropped and counted. */
  #transmit(sending: Sending, first: number, end: number): number {
    const { counters } = sending;
    let sent = 0;
    let message = first;
    let retries = 0;
    while (message < end) {
      const headers = this.#memory + message * layout.MMSGHDR_BYTES;
      const done = this.#calls.sendmmsg(sending.fd, headers, end - message, FLAGS);
      if (done > 0) {
        sent += this.#countSent(counters, message, done);
        message += done;
        retries = 0;
        continue;
      }
      const errno = this.#calls.errno();
      if (retries < MAX_RETRIES && (errno === ERRNO.EINTR || isAnothers(errno, sending))) {
        retries++;
        continue;
      }
      retries = 0;
      if (this.#segments(message) > 1 && isRefusal(errno)) {
        sent += this.#sendSingly(sending, message++, errno);
        continue;
      }
      // These are of one datagram; the others would happen to all that go the same way.
      const next = errno === ERRNO.EMSGSIZE || errno === ERRNO.ENOBUFS ? message + 1 : end;
      // The address to send from is gone; nothing else that is passed here is invalid.
      const told = errno === ERRNO.EINVAL && sending.source !== undefined ? ERRNO.EADDRNOTAVAIL : errno;
      this.refusal = sendErrorOf(told);
      for (; message < next; message++) counters.sendErrors[this.refusal] += this.#segments(message);
    }
    return sent;
  }

  /** The datagrams of a run that the kernel would not cut. */
  #sendSingly(sending: Sending, run: number, errno: number): number {
    const words = this.#words;
    const segments = this.#segments(run);
    const firstVector = this.#firstVectors[run]!;
    const trafficClass = this.#classes[run]!;
    for (let i = 0; i < segments; i++) this.#openMessage(SINGLES + i, firstVector + i, trafficClass);
    this.#finishMessages(sending, SINGLES, SINGLES + segments);
    const size = words[VECTORS_AT + firstVector * layout.IOVEC_WORDS + 2]!;
    const sent = this.#transmit(sending, SINGLES, SINGLES + segments);
    // When these fail too, it was not for being a run.
    if (sent > 0) sending.segmentation.refused(size, errno);
    return sent;
  }

  #countSent(counters: UdpCounters, first: number, count: number): number {
    let datagrams = 0;
    for (let message = first; message < first + count; message++) {
      datagrams += this.#segments(message);
      counters.sentBytes += this.#words[headerAt(message) + layout.MSG_LEN]!;
    }
    counters.sentDatagrams += datagrams;
    return datagrams;
  }

  #segments(message: number): number {
    return this.#words[headerAt(message) + layout.MSG_IOVLEN]!;
  }

  #segmentSize(message: number): number {
    return this.#words[VECTORS_AT + this.#firstVectors[message]! * layout.IOVEC_WORDS + 2]!;
  }
}

function headerAt(message: number): number {
  return message * layout.MMSGHDR_WORDS;
}

/** Whether a sockaddr is of IPv4. */
function isFour(name: Int32Array): boolean {
  return name.length * 4 === layout.SOCKADDR_BYTES[4];
}

function controlAt(message: number): number {
  return CONTROLS_AT + message * CONTROL_WORDS;
}

function isRefusal(errno: number): boolean {
  return errno === ERRNO.EINVAL || errno === ERRNO.EIO || errno === ERRNO.EMSGSIZE;
}

/** Whether the error is about an earlier datagram: the kernel reports an ICMP error with the next call, whichever that is. */
function isAnothers(errno: number, sending: Sending): boolean {
  return errno !== ERRNO.EAGAIN && errno !== ERRNO.ENOBUFS && sending.readErrors() > 0;
}
