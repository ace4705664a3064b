/**
 * A netlink socket that receives changes of the network namespace in which it was opened: the kernel reports every program's
 * changes to the members of a multicast group (netlink(7)). It is read without waiting, when the poller finds it readable.
 * When its buffer overflows the kernel says so once (ENOBUFS), and drops what follows until the buffer is empty: then
 * everything has to be compared.
 */

import { DecodeError } from '../../base/bytes.ts';
import { takeDescriptor } from '../../sys/descriptors.ts';
import { ERRNO, SystemError } from '../../sys/errno.ts';
import { libc } from '../../sys/libc.ts';
import { type Watch, watchReadable } from '../../sys/poller.ts';
import { SOL_SOCKET } from '../../tun/udp/layout.ts';
import { hostU32, parseMessages } from './netlink.ts';
import { AF_NETLINK, type NetlinkData, SOCK_RAW_CLOEXEC_NONBLOCK, SOL_NETLINK } from './socket.ts';

const NETLINK_ADD_MEMBERSHIP = 1;
/** Beyond the system's limit (net.core.rmem_max), for CAP_NET_ADMIN. */
const SO_RCVBUFFORCE = 33;
/** The length is that of the whole message, also when the buffer is shorter. */
const MSG_TRUNC = 0x20;

/** Room for the notifications of some ten thousand rules or routes that change at once. */
const ROOM_BYTES = 4 << 20;
/** The kernel puts at most a page of notifications, or one long one, into a message. */
const RECEIVE_BYTES = 64 << 10;
/** Messages that are read before the event loop has its turn again. */
const MESSAGES_PER_TURN = 256;

export interface NetlinkListenerOptions {
  readonly protocol: number;
  readonly groups: readonly number[];
  /** Is given each message in turn, which does not outlive the call. May throw a DecodeError. */
  readonly onMessage: (message: NetlinkData) => void;
  /** Messages were lost, up to now. */
  readonly onOverrun: () => void;
  /** After what was there has been read. */
  readonly onRead?: () => void;
}

export class NetlinkListener {
  readonly #options: NetlinkListenerOptions;
  readonly #fd: number;
  readonly #watch: Watch;
  readonly #received = new Uint8Array(RECEIVE_BYTES);
  #closed = false;
  /** Messages are lost until there is none left to be read. */
  #losing = false;

  /** @throws SystemError where the kernel has no such groups, or the program may not join them */
  constructor(options: NetlinkListenerOptions) {
    this.#options = options;
    this.#fd = openSocket(options);
    try {
      this.#watch = watchReadable(this.#fd, () => {
        if (this.#closed) return;
        this.#read(MESSAGES_PER_TURN);
        this.#watch.arm();
        options.onRead?.();
      });
    } catch (error) {
      libc().close(this.#fd);
      throw error;
    }
    this.#watch.arm();
  }

  /** Reads now what has been reported so far, without a call of `onRead`. */
  drain(): void {
    if (!this.#closed) this.#read(Number.POSITIVE_INFINITY);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const stopped = this.#watch.close();
    libc().close(this.#fd);
    await stopped;
  }

  #read(most: number): void {
    for (let count = 0; count < most; count++) {
      const length = libc().recv(this.#fd, this.#received, MSG_TRUNC);
      if (length < 0) {
        if (this.#isEnd(libc().errno())) return;
      } else if (length > this.#received.length) this.#options.onOverrun();
      else this.#take(this.#received.subarray(0, length));
    }
  }

  /** What cannot be read may have been any change. */
  #take(datagram: Uint8Array): void {
    try {
      for (const message of parseMessages(datagram)) if (message.kind === 'data') this.#options.onMessage(message);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
      this.#options.onOverrun();
    }
  }

  /** Whether there is nothing more to read now. */
  #isEnd(errno: number): boolean {
    if (errno === ERRNO.EINTR) return false;
    if (errno === ERRNO.EAGAIN && !this.#losing) return true;
    this.#losing = errno !== ERRNO.EAGAIN;
    this.#options.onOverrun();
    // Any other error would be there again at once.
    return errno !== ERRNO.ENOBUFS;
  }
}

/** Bound to a number that the kernel gives: one without would not hear what other programs change. */
function openSocket({ protocol, groups }: NetlinkListenerOptions): number {
  const calls = libc();
  const fd = takeDescriptor(calls.socket(AF_NETLINK, SOCK_RAW_CLOEXEC_NONBLOCK, protocol), 'open a netlink socket');
  const fail = (what: string): never => {
    const error = new SystemError(what, calls.errno());
    calls.close(fd);
    throw error;
  };
  // Where it is refused there is less room, and the kernel says when it was too little.
  calls.setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, hostU32(ROOM_BYTES));
  const anyAddress = Uint8Array.of(AF_NETLINK, 0, 0, 0, ...hostU32(0), ...hostU32(0));
  if (calls.bind(fd, anyAddress) < 0) fail('bind a netlink socket');
  for (const group of groups) {
    if (calls.setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, hostU32(group)) < 0) {
      fail(`listen to the netlink group ${group} of protocol ${protocol}`);
    }
  }
  return fd;
}
