/** What the kernel is told to send, and what happens when it refuses: the kernel is played, as its refusals are rare. */
import { createRequire } from 'node:module';
import { beforeEach, describe, expect, it } from 'vitest';
import { ERRNO } from '../../../src/sys/errno.ts';
import { encodePktinfo, encodeSockaddr } from '../../../src/tun/udp/layout.ts';
import { hasLinuxUdp } from '../../../src/tun/udp/linux.ts';
import { DatagramWriter, Segmentation, type Sending } from '../../../src/tun/udp/linux-write.ts';
import { newUdpCounters, type UdpCounters } from '../../../src/tun/udp/udp.ts';
import { batchOf, ip, payload } from './support.ts';

interface Message {
  readonly lengths: readonly number[];
  readonly bytes: Uint8Array;
  readonly name: string;
  /** Of UDP_SEGMENT; 0 without. */
  readonly segment: number;
  readonly pktinfo: string;
  /** Level, type and value of IP_TOS or IPV6_TCLASS. */
  readonly trafficClass: string;
}

const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
const memory = (address: number, length: number): Uint8Array => new Uint8Array(koffi.view(address, length));
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** struct msghdr, read by its definition and not by the code under test. */
function readMessage(address: number): Message {
  const view = new DataView(koffi.view(address, 56));
  const pointer = (at: number): number => Number(view.getBigUint64(at, true));
  const vectors = new DataView(koffi.view(pointer(16), 16 * pointer(24)));
  const parts = Array.from({ length: pointer(24) }, (_, i) => {
    const [base, length] = [vectors.getBigUint64(16 * i, true), vectors.getBigUint64(16 * i + 8, true)];
    return memory(Number(base), Number(length)).slice();
  });
  let segment = 0;
  let pktinfo = '';
  let trafficClass = '';
  const controlBytes = pointer(40);
  const control = controlBytes === 0 ? undefined : new DataView(koffi.view(pointer(32), controlBytes));
  for (let at = 0; control !== undefined && at + 16 <= controlBytes; ) {
    const length = Number(control.getBigUint64(at, true));
    const kind = `${control.getInt32(at + 8, true)}/${control.getInt32(at + 12, true)}`;
    if (kind === '17/103') segment = control.getUint16(at + 16, true);
    else if (kind === '0/1' || kind === '41/67') trafficClass = `${kind} ${control.getInt32(at + 16, true)}`;
    else pktinfo = `${kind} ${hex(memory(pointer(32) + at + 16, length - 16))}`;
    at += (length + 7) & ~7;
  }
  return {
    lengths: parts.map(({ length }) => length),
    bytes: Uint8Array.from(parts.flatMap((part) => [...part])),
    name: hex(memory(pointer(0), view.getUint32(8, true))),
    segment,
    pktinfo,
    trafficClass,
  };
}

/** Takes messages until `verdict` gives an errno for one, as sendmmsg does. */
class Kernel {
  readonly taken: Message[] = [];
  calls = 0;
  verdict: (message: Message) => number = () => 0;
  #errno = 0;

  readonly libc = {
    errno: (): number => this.#errno,
    sendmmsg: (_fd: number, address: number, count: number): number => {
      this.calls++;
      for (let i = 0; i < count; i++) {
        const message = readMessage(address + 64 * i);
        const errno = this.verdict(message);
        if (errno !== 0) {
          this.#errno = errno;
          return i > 0 ? i : -1;
        }
        this.taken.push(message);
        new DataView(koffi.view(address + 64 * i, 64)).setUint32(56, message.bytes.length, true);
      }
      return count;
    },
  };
}

const shapes = (messages: readonly Message[]): (readonly number[])[] => messages.map(({ lengths }) => lengths);
const same = (length: number, count: number): number[] => new Array<number>(count).fill(length);

describe.runIf(hasLinuxUdp())('sending in batches', () => {
  let kernel: Kernel;
  let writer: DatagramWriter;
  let counters: UdpCounters;
  let pending: number;
  let sending: Sending;

  beforeEach(() => {
    kernel = new Kernel();
    writer = new DatagramWriter(kernel.libc);
    counters = newUdpCounters();
    pending = 0;
    sending = {
      fd: 7,
      counters,
      segmentation: new Segmentation({ available: true }),
      name: encodeSockaddr({ address: ip('192.0.2.1'), port: 4500 }, 0),
      source: undefined,
      readErrors: () => {
        const taken = pending;
        pending = 0;
        return taken;
      },
    };
  });

  const send = (lengths: readonly number[]): number => writer.sendBatch(sending, batchOf(lengths), 0, lengths.length);
  const errors = (): Record<string, number> =>
    Object.fromEntries(Object.entries(counters.sendErrors).filter(([, count]) => count > 0));

  it('joins runs of one size, of which the last may be shorter', () => {
    expect(send([1400, 1400, 900, 900, 0, 900, 1400, 10])).toBe(7);
    expect(shapes(kernel.taken)).toEqual([
      [1400, 1400, 900],
      [900, 900],
      [1400, 10],
    ]);
    expect(kernel.taken.map(({ segment }) => segment)).toEqual([1400, 900, 1400]);
    expect(kernel.calls).toBe(1);
    expect(counters).toMatchObject({ sentDatagrams: 7, sentBytes: 2 * 1400 + 3 * 900 + 1400 + 10 });
  });

  it('sends a datagram alone without a segment size', () => {
    send([100, 200, 300]);
    expect(kernel.taken.map(({ lengths, segment }) => [lengths, segment])).toEqual([
      [[100], 0],
      [[200], 0],
      [[300], 0],
    ]);
  });

  it('keeps to 64 segments and 65,507 bytes a message', () => {
    send(same(100, 130));
    expect(shapes(kernel.taken).map(({ length }) => length)).toEqual([64, 64, 2]);
    kernel.taken.length = 0;
    send(same(1400, 100));
    expect(shapes(kernel.taken).map(({ length }) => length)).toEqual([46, 46, 8]);
  });

  it('sends batches larger than a call', () => {
    const lengths = Array.from({ length: 600 }, (_, i) => 100 + (i % 64) * 2);
    expect(send(lengths)).toBe(600);
    expect(kernel.taken.flatMap((message) => message.lengths)).toEqual(lengths);
    expect(kernel.calls).toBeGreaterThan(2);
  });

  it('sends the bytes from where they are', () => {
    send([40, 40, 30]);
    expect(hex(kernel.taken[0]!.bytes)).toBe([payload(0, 40), payload(1, 40), payload(2, 30)].map(hex).join(''));
  });

  it('names the peer and, with a source, the address to send from: IPv4', () => {
    sending = { ...sending, source: encodePktinfo(ip('198.51.100.7')) };
    send([100, 100, 50, 60]);
    for (const message of kernel.taken) {
      expect(message.name).toBe('02001194c00002010000000000000000');
      expect(message.pktinfo).toBe('0/8 00000000c633640700000000');
    }
    expect(kernel.taken.map(({ segment }) => segment)).toEqual([100, 0]);
  });

  it('names the peer and, with a source, the address to send from: IPv6', () => {
    const name = encodeSockaddr({ address: ip('fe80::1'), port: 4500 }, 3);
    sending = { ...sending, name, source: encodePktinfo(ip('2001:db8::7')) };
    send([100, 100, 50, 60]);
    for (const message of kernel.taken) {
      expect(message.name).toBe('0a00119400000000fe80000000000000000000000000000103000000');
      expect(message.pktinfo).toBe('41/50 20010db800000000000000000000000700000000');
    }
    expect(kernel.taken.map(({ segment }) => segment)).toEqual([100, 0]);
  });

  /** Sends datagrams of one size with these traffic classes. */
  const sendClasses = (classes: readonly number[]): number => {
    const batch = batchOf(same(100, classes.length));
    batch.trafficClass.set(classes);
    return writer.sendBatch(sending, batch, 0, classes.length);
  };
  const classesOf = (messages: readonly Message[]): (readonly [number, string])[] =>
    messages.map(({ lengths, trafficClass }) => [lengths.length, trafficClass]);

  it('ends a run where DSCP or ECN change, and says nothing of zero', () => {
    expect(sendClasses([0, 0, 0xb8, 0xb8, 0xb8, 0xbb, 2, 2, 0, 0])).toBe(10);
    expect(classesOf(kernel.taken)).toEqual([
      [2, ''],
      [3, '0/1 184'],
      [1, '0/1 187'],
      [2, '0/1 2'],
      [2, ''],
    ]);
    expect(kernel.taken.map(({ segment }) => segment)).toEqual([100, 100, 0, 100, 100]);
    expect(kernel.calls).toBe(1);
    kernel.taken.length = 0;
    expect(writer.send(sending, payload(0, 50), 0x2a)).toBe(true);
    expect(writer.send(sending, payload(0, 50), 0)).toBe(true);
    expect(classesOf(kernel.taken)).toEqual([
      [1, '0/1 42'],
      [1, ''],
    ]);
  });

  it.each([
    ['192.0.2.1', '198.51.100.7', '0/8', '0/1'],
    ['2001:db8::1', '2001:db8::7', '41/50', '41/67'],
  ])('says DSCP and ECN beside the address to send from: %s', (to, from, pktinfo, kind) => {
    const name = encodeSockaddr({ address: ip(to), port: 4500 }, 0);
    sending = { ...sending, name, source: encodePktinfo(ip(from)) };
    sendClasses([1, 1, 3, 0, 0xff]);
    expect(classesOf(kernel.taken)).toEqual([
      [2, `${kind} 1`],
      [1, `${kind} 3`],
      [1, ''],
      [1, `${kind} 255`],
    ]);
    for (const message of kernel.taken) expect(message.pktinfo).toMatch(new RegExp(`^${pktinfo} `));
  });

  it('keeps DSCP and ECN of a run that is sent singly', () => {
    kernel.verdict = ({ segment }) => (segment > 0 ? ERRNO.EINVAL : 0);
    expect(sendClasses([2, 2, 2, 0, 0])).toBe(5);
    expect(classesOf(kernel.taken)).toEqual([...same(0, 3).map(() => [1, '0/1 2']), [1, ''], [1, '']]);
  });

  it('keeps to its room with as many changes as messages, and more', () => {
    const classes = Array.from({ length: 300 }, (_, i) => i & 0xff);
    expect(sendClasses(classes)).toBe(300);
    expect(kernel.taken.map(({ trafficClass }) => Number(trafficClass.split(' ')[1] ?? 0))).toEqual(classes);
  });

  it('sends datagram by datagram where the kernel cannot segment', () => {
    sending = { ...sending, segmentation: new Segmentation({ available: false }) };
    expect(send(same(1400, 5))).toBe(5);
    expect(shapes(kernel.taken)).toEqual(same(0, 5).map(() => [1400]));
    expect(kernel.calls).toBe(1);
    expect(sending.segmentation.works).toBe(false);
  });

  it.each([ERRNO.EINVAL, ERRNO.EMSGSIZE])('sends singly what is too large to be segmented (errno %i)', (errno) => {
    kernel.verdict = ({ segment }) => (segment > 1000 ? errno : 0);
    expect(send([...same(500, 3), ...same(1400, 3), 200, ...same(600, 2)])).toBe(9);
    expect(shapes(kernel.taken)).toEqual([[500, 500, 500], [1400], [1400], [1400], [200], [600, 600]]);
    expect(errors()).toEqual({});
    kernel.taken.length = 0;
    kernel.calls = 0;
    send([...same(1400, 3), ...same(900, 2)]);
    expect(shapes(kernel.taken), 'remembered').toEqual([[1400], [1400], [1400], [900, 900]]);
    expect(kernel.calls).toBe(1);
    expect(sending.segmentation.works).toBe(true);
  });

  it('tries again after a while: the way may be another', () => {
    kernel.verdict = ({ segment }) => (segment > 0 ? ERRNO.EINVAL : 0);
    send(same(1400, 2));
    kernel.verdict = () => 0;
    for (let i = 0; i < 600; i++) send(same(1400, 2));
    expect(shapes(kernel.taken.slice(-1))).toEqual([[1400, 1400]]);
  });

  it('segments nothing any more where checksums are in the way (EIO), and says so', () => {
    kernel.verdict = ({ segment }) => (segment > 0 ? ERRNO.EIO : 0);
    expect(send(same(1400, 3))).toBe(3);
    expect(sending.segmentation.works).toBe(false);
    kernel.calls = 0;
    expect(send(same(100, 3))).toBe(3);
    expect(kernel.calls).toBe(1);
  });

  it('does not blame segmentation when the datagrams are refused as well', () => {
    sending = { ...sending, source: encodePktinfo(ip('198.51.100.7')) };
    kernel.verdict = () => ERRNO.EINVAL;
    expect(send(same(1400, 3))).toBe(0);
    expect(errors()).toEqual({ EADDRNOTAVAIL: 3 });
    expect(sending.segmentation.usable(1400)).toBe(true);
  });

  it('drops what is left when the socket is full, without asking again', () => {
    kernel.verdict = ({ bytes }) => (bytes.length > 500 ? ERRNO.EAGAIN : 0);
    expect(send([100, 200, 600, 610, 620])).toBe(2);
    expect(errors()).toEqual({ 'queue-full': 3 });
    expect(kernel.calls).toBe(2);
  });

  it.each([
    ['ENOBUFS', ERRNO.ENOBUFS],
    ['EMSGSIZE', ERRNO.EMSGSIZE],
  ])('drops only what is refused with %s', (name, errno) => {
    kernel.verdict = ({ bytes }) => (bytes.length === 600 ? errno : 0);
    expect(send([100, 600, 700])).toBe(2);
    expect(errors()).toEqual({ [name]: 1 });
  });

  it.each(['ENETUNREACH', 'EHOSTUNREACH', 'EPERM', 'EADDRNOTAVAIL'] as const)('gives up a call with %s', (name) => {
    kernel.verdict = () => ERRNO[name];
    expect(send([100, 200, 300, 300])).toBe(0);
    expect(errors()).toEqual({ [name]: 4 });
    expect(kernel.calls).toBe(1);
  });

  it('repeats what failed with the error of an earlier datagram', () => {
    pending = 1;
    let told = false;
    kernel.verdict = ({ lengths }) => {
      if (told || lengths[0] !== 200) return 0;
      told = true;
      return ERRNO.ECONNREFUSED;
    };
    expect(send([100, 200, 300])).toBe(3);
    expect(shapes(kernel.taken)).toEqual([[100], [200], [300]]);
    expect(errors()).toEqual({});
  });

  it('does not repeat for ever, however many errors are reported', () => {
    sending = { ...sending, readErrors: () => 1 };
    kernel.verdict = () => ERRNO.ECONNREFUSED;
    expect(send([100, 200, 300])).toBe(0);
    expect(errors()).toEqual({ ECONNREFUSED: 3 });
    expect(kernel.calls).toBe(3);
  });
});
