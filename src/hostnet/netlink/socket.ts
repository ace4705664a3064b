/**
 * A netlink socket for requests, of the network namespace in which it was opened: to the kernel's routing tables
 * (NETLINK_ROUTE) or to its packet filter (NETLINK_NETFILTER). The kernel answers at once or not at all, so a request is
 * made and waited for in one call; long answers are read in slices, with the event loop in between.
 */
import { setImmediate } from 'node:timers/promises';
import { takeDescriptor } from '../../sys/descriptors.ts';
import { ERRNO, SystemError } from '../../sys/errno.ts';
import { libc } from '../../sys/libc.ts';
import { addressOf } from '../../sys/native-memory.ts';
import { SOL_SOCKET } from '../../tun/udp/layout.ts';
import type { NetlinkMessage, NetlinkRequest } from './netlink.ts';
import { hostU32, numberMessages, parseMessages } from './netlink.ts';

export const AF_NETLINK = 16;
export const SOCK_RAW_CLOEXEC_NONBLOCK = 0o2004003;
export const NETLINK_ROUTE = 0;
export const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
/** The kernel refuses what it does not understand, and filters dumps itself. */
const NETLINK_GET_STRICT_CHK = 12;
const POLLIN = 0x1;
const SO_SNDBUF = 7;
/** Beyond the system's limit (net.core.wmem_max), for CAP_NET_ADMIN. */
const SO_SNDBUFFORCE = 32;
/** A message that is no longer than this needs no larger buffer: the system's default is 208 KiB. */
const ROOM_BYTES = 64 << 10;

/** The kernel answers in microseconds; when it has not by then, something is badly wrong. */
const ANSWER_TIMEOUT_MS = 2_000;
/** The same for an answer that is read in slices. */
const SLICED_TIMEOUT_MS = 20_000;
/** How long the event loop waits for a slice. */
const SLICE_MS = 4;
/** The kernel fills at most 32 KiB. */
const RECEIVE_BYTES = 64 * 1024;
/** A dump is begun anew when the table changed meanwhile. */
const MAX_ATTEMPTS = 5;
/** Changes that go to the kernel in one message: it reads at most as much as the socket's buffer, 208 KiB by default. */
const MAX_BATCH = 256;

export type NetlinkData = Extract<NetlinkMessage, { kind: 'data' }>;

/** Of messages that are carried out as a whole. */
export interface Refusal {
  /** 0 where the kernel refuses all of them. */
  readonly place: number;
  readonly error: SystemError;
}

export class NetlinkSocket {
  readonly #fd: number;
  readonly #received = new Uint8Array(RECEIVE_BYTES);
  #sequence = 1;
  #closed = false;
  #room = ROOM_BYTES;
  /** What another thread reads: it lives as long as that does. */
  #sending: Uint8Array | undefined;

  /** @throws SystemError */
  constructor(protocol: number = NETLINK_ROUTE) {
    const calls = libc();
    this.#fd = takeDescriptor(calls.socket(AF_NETLINK, SOCK_RAW_CLOEXEC_NONBLOCK, protocol), 'open a netlink socket');
    const on = Uint8Array.of(1, 0, 0, 0);
    // Kernels before 4.20 know not all of them; then errors come without an explanation, and dumps unfiltered.
    for (const option of [NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK]) {
      calls.setsockopt(this.#fd, SOL_NETLINK, option, on);
    }
  }

  /**
   * Sends a request and returns the data of its answer. `what` says what is attempted, for the message.
   *
   * @throws SystemError with the kernel's reason when it refuses
   */
  request(request: NetlinkRequest, what: string): NetlinkData[] {
    for (let attempt = 1; ; attempt++) {
      const sequence = this.#send(request, what);
      const data: NetlinkData[] = [];
      const end = this.#receiveAnswer(sequence, data, what);
      if (end.errno === 0) return data;
      if (end.errno !== ERRNO.EINTR || attempt === MAX_ATTEMPTS) throw new SystemError(what, end.errno, end.text);
    }
  }

  /**
   * The same for a long answer, of which `onData` is given each message. The event loop has its turn every few
   * milliseconds; until it resolves, the socket takes no other request.
   *
   * @returns false where what is asked for does not exist
   * @throws SystemError, also with EINTR when what is listed changed meanwhile
   */
  async requestInSlices(request: NetlinkRequest, what: string, onData: (data: NetlinkData) => void): Promise<boolean> {
    const sequence = this.#send(request, what);
    const deadline = performance.now() + SLICED_TIMEOUT_MS;
    for (let turn = performance.now(); ; ) {
      for (const message of parseMessages(this.#receive(deadline, what))) {
        if (message.sequence !== sequence) continue;
        if (message.kind === 'data') onData(message);
        else if (message.errno === 0) return true;
        else if (message.errno === ERRNO.ENOENT) return false;
        else throw new SystemError(what, message.errno, message.text);
      }
      if (performance.now() - turn < SLICE_MS) continue;
      await setImmediate();
      turn = performance.now();
    }
  }

  /**
   * Makes many changes, in few calls. Returns the error of each that the kernel refused, by its place: it does not stop at
   * one.
   */
  requestAll(requests: readonly NetlinkRequest[], what: (at: number) => string): Map<number, SystemError> {
    // BOUNDED: by the requests.
    const refused = new Map<number, SystemError>();
    for (let first = 0; first < requests.length; first += MAX_BATCH) {
      this.#requestBatch(requests.slice(first, first + MAX_BATCH), first, what, refused);
    }
    return refused;
  }

  #requestBatch(
    requests: readonly NetlinkRequest[],
    first: number,
    what: (at: number) => string,
    refused: Map<number, SystemError>,
  ): void {
    if (this.#sequence + requests.length > 0x7fff_ffff) this.#sequence = 1;
    const base = this.#sequence;
    // Messages begin at multiples of four, and end there.
    const parts = requests.map((request, at) => request.finish(base + at, { answered: at === requests.length - 1 }));
    const all = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    this.#sequence = base + requests.length;
    this.#sendBytes(all, what(first));
    const deadline = performance.now() + ANSWER_TIMEOUT_MS;
    for (;;) {
      for (const message of parseMessages(this.#receive(deadline, what(first)))) {
        const place = message.sequence - base;
        if (message.kind !== 'end' || place < 0 || place >= requests.length) continue;
        if (message.errno !== 0)
          refused.set(first + place, new SystemError(what(first + place), message.errno, message.text));
        if (place === requests.length - 1) return;
      }
    }
  }

  /**
   * Sends messages that the kernel carries out as a whole or not at all, whatever their number. They get their numbers here. The
   * kernel carries them out before the call returns, which may take a while, so another thread makes it; until this resolves, the socket
   * takes no other request.
   *
   * @param messages one behind another, from one that begins a batch to one that ends it; not to be changed meanwhile
   * @returns the first that the kernel refused, where it did: nothing was carried out then
   * @throws SystemError when it cannot be sent, or the kernel does not answer: whether it was carried out is not known then
   */
  async requestWhole(messages: Uint8Array, what: string): Promise<Refusal | undefined> {
    const base = this.#sequence;
    const count = numberMessages(messages, base);
    this.#sequence = (base + count) % 0x7fff_0000 || 1;
    this.#makeRoom(messages.length);
    await this.#sendInThread(messages, what);
    return this.#receiveRefusal(base, count, what);
  }

  #sendInThread(bytes: Uint8Array, what: string): Promise<void> {
    if (this.#closed || this.#sending !== undefined)
      throw new Error(`bug: ${what}: the netlink socket is closed, or sends`);
    this.#sending = bytes;
    return new Promise((resolve, reject) => {
      libc().sendInThread(this.#fd, bytes, (result, errno) => {
        this.#sending = undefined;
        if (result < 0) reject(new SystemError(what, errno));
        else resolve();
      });
    });
  }

  /** The kernel tells what it refuses in their order, and answers the last but one; or it refuses all at the first. */
  #receiveRefusal(base: number, count: number, what: string): Refusal | undefined {
    let first: Refusal | undefined;
    let isLost = false;
    const deadline = performance.now() + ANSWER_TIMEOUT_MS;
    for (;;) {
      let datagram: Uint8Array;
      try {
        datagram = this.#receive(isLost ? 0 : deadline, what);
      } catch (error) {
        // There was more to tell than there was room for.
        const isMore = error instanceof SystemError && error.errno === ERRNO.ENOBUFS && !isLost;
        if (!isMore && (!isLost || first === undefined)) throw error;
        if (!isMore) return first;
        isLost = true;
        continue;
      }
      for (const message of parseMessages(datagram)) {
        const place = message.sequence - base;
        if (message.kind !== 'end' || place < 0 || place >= count) continue;
        if (message.errno !== 0) first ??= { place, error: new SystemError(what, message.errno, message.text) };
        if (place === count - 2 || place === 0) return first;
      }
    }
  }

  /** Where it is refused the kernel says that a message is too long. */
  #makeRoom(length: number): void {
    if (length <= this.#room) return;
    const room = hostU32(2 * length);
    const calls = libc();
    if (calls.setsockopt(this.#fd, SOL_SOCKET, SO_SNDBUFFORCE, room) < 0) {
      calls.setsockopt(this.#fd, SOL_SOCKET, SO_SNDBUF, room);
    }
    this.#room = length;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    libc().close(this.#fd);
  }

  #send(request: NetlinkRequest, what: string): number {
    const sequence = this.#sequence;
    this.#sequence = (sequence % 0x7fff_ffff) + 1;
    this.#sendBytes(request.finish(sequence), what);
    return sequence;
  }

  #sendBytes(bytes: Uint8Array, what: string): void {
    if (this.#closed || this.#sending !== undefined)
      throw new Error(`bug: ${what}: the netlink socket is closed, or sends`);
    const calls = libc();
    if (calls.send(this.#fd, bytes, 0) < 0) throw new SystemError(what, calls.errno());
  }

  #receiveAnswer(sequence: number, data: NetlinkData[], what: string): Extract<NetlinkMessage, { kind: 'end' }> {
    const deadline = performance.now() + ANSWER_TIMEOUT_MS;
    for (;;) {
      for (const message of parseMessages(this.#receive(deadline, what))) {
        // Late answers to a request that was given up on.
        if (message.sequence !== sequence) continue;
        if (message.kind === 'end') return message;
        data.push(message);
      }
    }
  }

  /** The next datagram, copied. */
  #receive(deadline: number, what: string): Uint8Array {
    const calls = libc();
    for (;;) {
      const length = calls.recv(this.#fd, this.#received, 0);
      if (length >= 0) return this.#received.slice(0, length);
      const errno = calls.errno();
      if (errno !== ERRNO.EAGAIN && errno !== ERRNO.EINTR) throw new SystemError(what, errno);
      const left = deadline - performance.now();
      if (left <= 0) throw new SystemError(what, ERRNO.ETIMEDOUT, 'The kernel did not answer');
      this.#wait(Math.ceil(left));
    }
  }

  #wait(timeoutMs: number): void {
    const descriptor = new Uint8Array(8);
    const view = new DataView(descriptor.buffer);
    view.setInt32(0, this.#fd, true);
    view.setInt16(4, POLLIN, true);
    libc().poll(addressOf(descriptor), 1, timeoutMs);
  }
}
