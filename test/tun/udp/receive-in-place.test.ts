/** Datagrams that stay where the system put them, in the landing area of a batch. */
import { describe, expect, it, onTestFinished } from 'vitest';
import { parseAddress } from '../../../src/base/address.ts';
import { PacketBatch } from '../../../src/base/batch.ts';
import { PacketMemory } from '../../../src/tun/offload/memory.ts';
import { hasLinuxUdp, linuxUdp } from '../../../src/tun/udp/linux.ts';
import { READER_BYTES, readerInto, UdpQueue } from '../../../src/tun/udp/queue.ts';
import { batchOf } from './support.ts';

const address = parseAddress('127.0.0.1')!;

describe.skipIf(!hasLinuxUdp())('a queue that is read to a batch', () => {
  it.each([
    ['joined by the kernel', {}, 1],
    // Eight, until it is known that they come singly; then all that are left.
    ['one by one', { gso: false, gro: false }, 2],
  ] as const)('has each datagram there until it is read to again: %s', async (_name, options, reads) => {
    const { end, batch, sender } = await parts(options);
    const lengths = [...new Array<number>(40).fill(1200), 700, 1200, 33, 34];
    const sent = batchOf(lengths);
    expect(sender.sendBatch(sent, 0, lengths.length, { to: end.local })).toBe(lengths.length);
    const received: Uint8Array[] = [];
    let read = 0;
    const turn = end.receive(
      (data) => expect(batch.place(data)).toBeGreaterThanOrEqual(0),
      () => {
        for (let slot = 0; slot < batch.count; slot++) received.push(batch.packet(slot).slice());
        batch.clear();
        read++;
      },
    );
    expect(turn).toBe('taken');
    expect(received).toEqual(lengths.map((_, slot) => sent.packet(slot)));
    expect(read).toBe(reads);
  });

  it('reads few messages at once after joined ones, many after single ones', async () => {
    const { end, sender } = await parts({});
    /** Sends messages, joined ones or single ones; how many reads took them, the empty one not counted. */
    const reads = (messages: number, datagrams: number): number => {
      const batch = batchOf(new Array<number>(datagrams).fill(500));
      for (let i = 0; i < messages; i++) sender.sendBatch(batch, 0, datagrams, { to: end.local });
      let count = 0;
      end.receive(
        () => undefined,
        () => count++,
      );
      return count;
    };
    expect(reads(20, 1)).toBe(2);
    expect(reads(20, 1)).toBe(1);
    expect(reads(20, 5)).toBe(1);
    expect(reads(20, 5)).toBe(3);
    expect(reads(20, 1)).toBe(2);
  });
});

interface Parts {
  readonly end: UdpQueue;
  readonly batch: PacketBatch;
  readonly sender: Awaited<ReturnType<ReturnType<typeof linuxUdp>['bind']>>;
}

async function parts(options: { gso?: boolean; gro?: boolean }): Promise<Parts> {
  const network = linuxUdp(options);
  const socket = await network.bind({ address, port: 0 });
  const sender = await network.bind({ address, port: 0 });
  const memory = new PacketMemory(2 * READER_BYTES);
  const batch = new PacketBatch(64, 1500, undefined, undefined, (bytes) => memory.allocate(bytes + READER_BYTES));
  const [descriptor] = socket.handOver!();
  const end = new UdpQueue(descriptor!, readerInto(batch.landing));
  onTestFinished(async () => {
    end.release();
    await Promise.all([socket.close(), sender.close()]);
  });
  return { end, batch, sender };
}
