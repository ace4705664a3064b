/** One thread's end of a device, on a socket that hands over one datagram a read, as a device does packets. */
import { randomUUID } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it, onTestFinished } from 'vitest';
import { PacketBatch } from '../../src/base/batch.ts';
import { utf8 } from '../../src/base/text.ts';
import { SystemError } from '../../src/sys/errno.ts';
import { libc } from '../../src/sys/libc.ts';
import { PacketMemory } from '../../src/tun/offload/memory.ts';
import { SharedOffloads } from '../../src/tun/offload/shared.ts';
import { Splitter } from '../../src/tun/offload/split.ts';
import { VirtioFlag } from '../../src/tun/offload/virtio.ts';
import { TunQueue } from '../../src/tun/queue.ts';
import { hasLinuxUdp } from '../../src/tun/udp/linux.ts';
import { gsoOf, packetOf, packetsOf, pattern, withHeader } from './offload/support.ts';

const AF_UNIX = 1;
const DATAGRAMS_NONBLOCK = 2 | 0o4000;
const SOL_SOCKET = 1;
const SO_SNDBUFFORCE = 32;
/** What devices have room for, and a batch too small for a whole read in a slot. */
const LARGE = 65_536;
const SMALL = 9_000;

function checked(call: string, result: number): number {
  if (result < 0) throw new SystemError(call, libc().errno());
  return result;
}

/** A descriptor to read from, and what puts datagrams there. */
function openPair(): { fd: number; put: (datagram: Uint8Array) => void } {
  const calls = libc();
  const address = Uint8Array.of(AF_UNIX, 0, 0, ...utf8(`sectunnel-test-${randomUUID()}`));
  const [fd, from] = [0, 0].map(() => checked('socket', calls.socket(AF_UNIX, DATAGRAMS_NONBLOCK, 0))) as [
    number,
    number,
  ];
  onTestFinished(() => void [fd, from].map((each) => calls.close(each)));
  checked('setsockopt', calls.setsockopt(from, SOL_SOCKET, SO_SNDBUFFORCE, Uint8Array.of(0, 0, 0, 2)));
  checked('bind', calls.bind(fd, address));
  checked('connect', calls.connect(from, address));
  return { fd, put: (datagram) => checked('send', calls.send(from, datagram, 0)) };
}

const memory = new PacketMemory(32 * 1024 * 1024);
const shared = new SharedOffloads(memory);
const batches = [LARGE, SMALL].map((room) => new PacketBatch(16, room, 64, 320, memory.allocate));
const reference = new Splitter(memory);
const segments = new PacketBatch(64, LARGE, 64, 320, memory.allocate);

function openEnd(fd: number): TunQueue {
  const end = new TunQueue({ fd, offload: 'all' }, shared, (errno) => expect.unreachable(`detached: ${errno}`));
  onTestFinished(() => end.release());
  return end;
}

/** What the reads are divided into, and how many of them are refused. */
function divided(reads: readonly Uint8Array[]): { packets: Uint8Array[]; refused: number } {
  const packets: Uint8Array[] = [];
  let refused = 0;
  for (const read of reads) {
    reference.input.set(read);
    if (!reference.start(read.length)) refused++;
    while (reference.pending) {
      segments.clear();
      reference.fill(segments);
      packets.push(...packetsOf(segments));
    }
  }
  return { packets, refused };
}

function readAll(end: TunQueue, batch: PacketBatch): Uint8Array[] {
  const packets: Uint8Array[] = [];
  for (;;) {
    batch.clear();
    if (end.read(batch) === 0 && end.drained) return packets;
    packets.push(...packetsOf(batch));
  }
}

const version = fc.constantFrom(4, 6);
const protocol = fc.constantFrom('tcp' as const, 'udp' as const);
const payload = fc
  .tuple(fc.integer({ min: 1, max: 3_000 }), fc.nat(255))
  .map(([length, seed]) => pattern(length, seed));
const shape = fc.record({ version, protocol, payload });
const whole = shape.map((of) => withHeader(packetOf(of)));
const lackingChecksum = shape.map((of) =>
  withHeader(packetOf({ ...of, partial: true }), {
    flags: VirtioFlag.needsCsum,
    csumStart: of.version === 4 ? 20 : 40,
    csumOffset: of.protocol === 'tcp' ? 16 : 6,
  }),
);
const run = fc.tuple(shape, fc.integer({ min: 50, max: 1_400 })).map(([of, size]) => gsoOf(of, size));
const bad = fc.constantFrom(
  Uint8Array.of(0, 0, 0),
  withHeader(Uint8Array.of(0x20, 1, 2, 3)),
  withHeader(packetOf(), { flags: VirtioFlag.needsCsum, csumStart: 1_400, csumOffset: 6 }),
  withHeader(packetOf(), { gsoType: 77 }),
);
// Rows of whole ones are what is expected to go on.
const reads = fc
  .array(
    fc.oneof(
      fc.array(fc.oneof(whole, lackingChecksum), { maxLength: 12 }),
      fc.array(run, { maxLength: 2 }),
      fc.array(bad, { maxLength: 2 }),
    ),
    { maxLength: 8 },
  )
  .map((rows) => rows.flat());

describe.skipIf(!hasLinuxUdp())('a device that hands over joined packets', () => {
  it.each([
    ['a batch with room for all that one read can be', batches[0]!],
    ['a batch of small slots', batches[1]!],
  ])('hands out the same packets, wherever it reads them to: %s', (_, batch) => {
    const { fd, put } = openPair();
    fc.assert(
      fc.property(reads, (all) => {
        const end = openEnd(fd);
        const packets: Uint8Array[] = [];
        // A socket of this kind holds ten datagrams, as a rule.
        for (let at = 0; at < all.length; at += 8) {
          for (const read of all.slice(at, at + 8)) put(read);
          packets.push(...readAll(end, batch));
        }
        const expected = divided(all);
        expect(packets).toEqual(expected.packets);
        expect(end.counters.readPackets).toBe(expected.packets.length);
        expect(end.counters.dropped['bad-offload']).toBe(expected.refused);
        end.release();
      }),
      { numRuns: 80 },
    );
  });

  it('keeps to its budget, and says what is left of the last read', () => {
    const { fd, put } = openPair();
    const end = openEnd(fd);
    const [batch] = batches;
    for (let i = 0; i < 6; i++) {
      put(withHeader(packetOf({ payload: pattern(100, i) })));
      put(withHeader(packetOf({ payload: pattern(101, i) })));
      for (const length of [100, 101]) {
        batch!.clear();
        end.budget = 1;
        expect(end.read(batch!)).toBe(1);
        expect(packetsOf(batch!)).toEqual([packetOf({ payload: pattern(length, i) })]);
        expect([end.pending, end.drained]).toEqual([false, false]);
      }
    }
    // Of more segments than a batch has slots.
    put(gsoOf({ payload: pattern(2_000) }, 100));
    batch!.clear();
    end.budget = 1;
    expect([end.read(batch!), end.pending]).toEqual([16, true]);
    end.budget = Number.POSITIVE_INFINITY;
    batch!.clear();
    expect([end.read(batch!), end.pending, end.drained]).toEqual([4, false, true]);
  });
});
