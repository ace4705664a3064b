/**
 * Packets by the thousand into and out of network namespaces: packet sockets (packet(7)), raw sockets (raw(7)), many
 * messages a call.
 */
import { addressToBytes, type IpAddress } from '../../../src/base/address.ts';
import { SystemError } from '../../../src/sys/errno.ts';
import { libc } from '../../../src/sys/libc.ts';
import { addressOf } from '../../../src/sys/native-memory.ts';
import { withinNamespace } from '../../../src/sys/netns.ts';
import * as layout from '../../../src/tun/udp/layout.ts';

const AF_PACKET = 17;
const SOCK_DGRAM = 2;
const SOCK_RAW = 3;
const SOCK_NONBLOCK = 0o4000;
const SOL_PACKET = 263;
const PACKET_IGNORE_OUTGOING = 23;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const BUFFER_BYTES = 32 << 20;
const IPPROTO_RAW = 255;
const ETHERTYPE = { 4: 0x0800, 6: 0x86dd } as const;
export const MAX_FRAME = 2048;
const MANY = 128;

/** Messages with a buffer each, for sendmmsg and recvmmsg. */
class Messages {
  readonly data: Buffer = Buffer.alloc(MANY * MAX_FRAME);
  readonly headers: Int32Array = new Int32Array(MANY * layout.MMSGHDR_WORDS);
  readonly #vectors = new Int32Array(MANY * layout.IOVEC_WORDS);
  readonly #names = Buffer.alloc(MANY * 32);
  readonly address: number;

  constructor() {
    const bytes = (words: Int32Array): Uint8Array => new Uint8Array(words.buffer);
    const [data, vectors] = [addressOf(this.data), addressOf(bytes(this.#vectors))];
    this.address = addressOf(bytes(this.headers));
    for (let i = 0; i < MANY; i++) {
      const vector = i * layout.IOVEC_WORDS;
      layout.writePointer(this.#vectors, vector, data + i * MAX_FRAME);
      const header = i * layout.MMSGHDR_WORDS;
      layout.writePointer(this.headers, header + layout.MSG_IOV, vectors + 4 * vector);
      this.headers[header + layout.MSG_IOVLEN] = 1;
      this.setLength(i, MAX_FRAME);
    }
  }

  setLength(index: number, length: number): void {
    this.#vectors[index * layout.IOVEC_WORDS + 2] = length;
  }

  /** For whole buffers and their sources. */
  ready(): void {
    for (let i = 0; i < MANY; i++) {
      this.setLength(i, MAX_FRAME);
      const header = i * layout.MMSGHDR_WORDS;
      layout.writePointer(this.headers, header + layout.MSG_NAME, addressOf(this.#names) + i * 32);
      this.headers[header + layout.MSG_NAMELEN] = layout.SOCKADDR_BYTES[6];
    }
  }

  sourceOf(index: number): number {
    const family = this.#names.readUInt16LE(index * 32);
    return family === layout.AF_INET6 ? this.#names[index * 32 + 23]! : 0;
  }

  /** Where a raw socket sends the message to. */
  setDestination(index: number, { family, value }: IpAddress): void {
    const size = layout.SOCKADDR_BYTES[family];
    const name = this.#names.subarray(index * 32, index * 32 + size).fill(0);
    name[0] = family === 4 ? layout.AF_INET : layout.AF_INET6;
    name.set(addressToBytes({ family, value }), 4 * layout.SOCKADDR_ADDRESS[family]);
    const header = index * layout.MMSGHDR_WORDS;
    layout.writePointer(this.headers, header + layout.MSG_NAME, addressOf(this.#names) + index * 32);
    this.headers[header + layout.MSG_NAMELEN] = size;
  }
}

export interface Sender {
  /** Sends packets from their IP header on; what the kernel refuses (an error, or the fence) counts as sent. */
  send(packets: readonly Uint8Array[], to: IpAddress): void;
}

function open(domain: number, type: number, protocol: number): number {
  const fd = libc().socket(domain, type | SOCK_NONBLOCK, protocol);
  if (fd < 0) throw new SystemError('open a socket of the test', libc().errno());
  const size = Buffer.alloc(4);
  size.writeInt32LE(BUFFER_BYTES);
  for (const option of [SO_SNDBUFFORCE, SO_RCVBUFFORCE]) libc().setsockopt(fd, layout.SOL_SOCKET, option, size);
  return fd;
}

function bindToLink(fd: number, index: number, ethertype: number): void {
  const name = Buffer.alloc(20);
  name.writeUInt16LE(AF_PACKET, 0);
  name.writeUInt16BE(ethertype, 2);
  name.writeInt32LE(index, 4);
  if (libc().bind(fd, name) < 0) throw new SystemError('bind a packet socket', libc().errno());
}

/** The kernel's number for a link of a namespace, and its address. */
export interface Link {
  readonly namespace: string;
  readonly index: number;
  readonly address: Uint8Array;
}

/** Frames that leave by a link of a namespace, as though its host had made them: no hook of that host sees them. */
export class LinkSender implements Sender {
  readonly #messages = new Messages();
  readonly #fd: number;
  readonly #header: Readonly<Record<4 | 6, Buffer>>;

  /** @param next the link at the other end of the cable */
  constructor({ namespace, index, address }: Link, next: Link) {
    this.#fd = withinNamespace(namespace, () => open(AF_PACKET, SOCK_RAW, 0));
    bindToLink(this.#fd, index, 0);
    const header = (family: 4 | 6): Buffer =>
      Buffer.concat([next.address, address, Buffer.of(ETHERTYPE[family] >>> 8, ETHERTYPE[family] & 0xff)]);
    this.#header = { 4: header(4), 6: header(6) };
  }

  send(packets: readonly Uint8Array[], { family }: IpAddress): void {
    const { data } = this.#messages;
    const header = this.#header[family];
    sendAll(this.#fd, this.#messages, packets, (index, packet) => {
      data.set(header, index * MAX_FRAME);
      data.set(packet, index * MAX_FRAME + header.length);
      this.#messages.setLength(index, header.length + packet.length);
    });
  }

  close(): void {
    libc().close(this.#fd);
  }
}

/** Packets of a host's own, whose headers it is given. */
export class HostSender implements Sender {
  readonly #messages = new Messages();
  readonly #fds: Readonly<Record<4 | 6, number>>;

  constructor(namespace: string) {
    const raw = (domain: number): number => withinNamespace(namespace, () => open(domain, SOCK_RAW, IPPROTO_RAW));
    this.#fds = { 4: raw(layout.AF_INET), 6: raw(layout.AF_INET6) };
  }

  send(packets: readonly Uint8Array[], to: IpAddress): void {
    const { data } = this.#messages;
    sendAll(this.#fds[to.family], this.#messages, packets, (index, packet) => {
      data.set(packet, index * MAX_FRAME);
      this.#messages.setLength(index, packet.length);
      this.#messages.setDestination(index, to);
    });
  }

  close(): void {
    for (const fd of Object.values(this.#fds)) libc().close(fd);
  }
}

function sendAll(
  fd: number,
  messages: Messages,
  packets: readonly Uint8Array[],
  put: (index: number, packet: Uint8Array) => void,
): void {
  for (let from = 0; from < packets.length; from += MANY) {
    const some = packets.slice(from, from + MANY);
    for (const [index, packet] of some.entries()) put(index, packet);
    let done = 0;
    while (done < some.length) {
      const sent = libc().sendmmsg(fd, messages.address + done * layout.MMSGHDR_BYTES, some.length - done, 0);
      // One that is refused is left out.
      done += sent > 0 ? sent : 1;
    }
  }
}

/** Reads what a socket has: a view that is valid during the call. */
export class Receiver {
  static readonly #messages = new Messages();
  readonly #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** IP packets that arrive by a link. */
  static ofLink({ namespace, index }: Link, family: 4 | 6): Receiver {
    const fd = withinNamespace(namespace, () => open(AF_PACKET, SOCK_DGRAM, 0));
    libc().setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, Buffer.of(1, 0, 0, 0));
    bindToLink(fd, index, ETHERTYPE[family]);
    return new Receiver(fd);
  }

  /** Datagrams of a protocol that a host was delivered, put together: IPv4 with the IP header, IPv6 without. */
  static ofProtocol(namespace: string, family: 4 | 6, protocol: number): Receiver {
    const domain = family === 4 ? layout.AF_INET : layout.AF_INET6;
    return new Receiver(withinNamespace(namespace, () => open(domain, SOCK_RAW, protocol)));
  }

  /** @param each is given the last octet of the source that the kernel names, which is 0 where it names none */
  receive(each: (packet: Buffer, source: number) => void): number {
    const messages = Receiver.#messages;
    let total = 0;
    for (;;) {
      messages.ready();
      const count = libc().recvmmsg(this.#fd, messages.address, MANY, layout.MSG_DONTWAIT);
      if (count <= 0) return total;
      for (let i = 0; i < count; i++) {
        const length = messages.headers[i * layout.MMSGHDR_WORDS + layout.MSG_LEN]!;
        each(messages.data.subarray(i * MAX_FRAME, i * MAX_FRAME + length), messages.sourceOf(i));
      }
      total += count;
      if (count < MANY) return total;
    }
  }

  close(): void {
    libc().close(this.#fd);
  }
}
