/**
 * A socket to the kernel's routing tables (NETLINK_ROUTE), of the network namespace in which it was opened: a request
 * is answered at once or not at all, so it is made and waited for in one call.
 */
import { ERRNO, libc, SystemError } from './libc.ts';
import type { NetlinkMessage, NetlinkRequest } from './netlink.ts';
import { parseMessages } from './netlink.ts';

const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC_NONBLOCK = 0o2004003;
const NETLINK_ROUTE = 0;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
/** The kernel refuses what it does not understand, and filters dumps itself. */
const NETLINK_GET_STRICT_CHK = 12;
const POLLIN = 0x1;

/** The kernel answers in microseconds; when it has not by then, something is badly wrong. */
const ANSWER_TIMEOUT_MS = 2_000;
/** The kernel fills at most 32 KiB. */
const RECEIVE_BYTES = 64 * 1024;
/** A dump is begun anew when the table changed meanwhile. */
const MAX_ATTEMPTS = 5;

export type NetlinkData = Extract<NetlinkMessage, { kind: 'data' }>;

export class NetlinkSocket {
  readonly #fd: number;
  readonly #received = new Uint8Array(RECEIVE_BYTES);
  #sequence = 1;
  #closed = false;

  /** @throws SystemError */
  constructor() {
    const calls = libc();
    this.#fd = calls.socket(AF_NETLINK, SOCK_RAW_CLOEXEC_NONBLOCK, NETLINK_ROUTE);
    if (this.#fd < 0) throw new SystemError('open a netlink socket', calls.errno());
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

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    libc().close(this.#fd);
  }

  #send(request: NetlinkRequest, what: string): number {
    if (this.#closed) throw new Error(`bug: ${what}: the netlink socket is closed`);
    const sequence = this.#sequence;
    this.#sequence = (sequence % 0x7fff_ffff) + 1;
    const calls = libc();
    if (calls.send(this.#fd, request.finish(sequence), 0) < 0) throw new SystemError(what, calls.errno());
    return sequence;
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
    libc().poll(descriptor, timeoutMs);
  }
}
