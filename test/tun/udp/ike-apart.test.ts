/** IKE and ESP on one port, which the kernel sorts into a queue each. */
import { describe, expect, it, onTestFinished } from 'vitest';
import { parseAddress, type SocketAddress } from '../../../src/base/address.ts';
import { hasLinuxUdp, linuxUdp } from '../../../src/tun/udp/linux.ts';
import { UdpQueue } from '../../../src/tun/udp/queue.ts';
import type { UdpSocket } from '../../../src/tun/udp/udp.ts';
import { until } from './support.ts';

const IKE = Uint8Array.of(0, 0, 0, 0, 1, 2, 3);
const ESP = Uint8Array.of(0, 0, 1, 0, 0, 0, 0, 1, 9);

interface Parted {
  readonly socket: UdpSocket;
  /** The first bytes of each datagram in IKE's queue. */
  readonly ike: number[][];
  readonly esp: () => number[][];
  readonly to: SocketAddress;
  readonly sender: UdpSocket;
}

async function parted(text: string): Promise<Parted> {
  const address = parseAddress(text)!;
  const socket = await linuxUdp().bind({ address, port: 0, espQueues: 1 });
  const sender = await linuxUdp().bind({ address, port: 0 });
  const ike: number[][] = [];
  socket.onDatagram((data) => ike.push([...data.subarray(0, 5)]));
  const [descriptor] = socket.handOver!();
  const end = new UdpQueue(descriptor!);
  onTestFinished(async () => {
    end.release();
    await Promise.all([socket.close(), sender.close()]);
  });
  const esp = (): number[][] => {
    const found: number[][] = [];
    while (['taken', 'more'].includes(end.receive((data) => found.push([...data.subarray(0, 5)]))));
    return found;
  };
  return { socket, ike, esp, to: { address, port: descriptor!.local.port }, sender };
}

describe.skipIf(!hasLinuxUdp())('a port that IKE shares', () => {
  it.each(['127.0.0.1', '::1'])('has two queues at %s', async (text) => {
    const { socket, ike, esp, to, sender } = await parted(text);
    expect(socket.features).toContain('ike-apart');
    for (const data of [ESP, IKE, Uint8Array.of(0xff), ESP, Uint8Array.of(0, 0, 0), IKE]) sender.send(data, to);
    await until(() => ike.length === 4);
    expect(ike).toEqual([[0, 0, 0, 0, 1], [0xff], [0, 0, 0], [0, 0, 0, 0, 1]]);
    expect(esp()).toEqual([
      [0, 0, 1, 0, 0],
      [0, 0, 1, 0, 0],
    ]);
  });

  it('delivers IKE while the ESP queue is full and nothing reads it', async () => {
    const { ike, esp, to, sender } = await parted('127.0.0.1');
    const large = new Uint8Array(60_000).fill(7);
    let sent = 0;
    for (let i = 0; i < 1_000; i++) if (sender.send(large, to)) sent++;
    for (let i = 0; i < 50; i++) sender.send(IKE, to);
    await until(() => ike.length === 50);
    // The kernel delivers over the loopback at once, so the ESP packets that are missing found the queue full.
    expect(sent).toBe(1_000);
    const waited = esp().length;
    expect(waited).toBeGreaterThan(0);
    expect(waited).toBeLessThan(sent);
  });

  it('sends all packets of an SA to the same one of several queues', async () => {
    const address = parseAddress('127.0.0.1')!;
    const socket = await linuxUdp().bind({ address, port: 0, espQueues: 3 });
    const sender = await linuxUdp().bind({ address, port: 0 });
    const ends = socket.handOver!().map((descriptor) => new UdpQueue(descriptor));
    onTestFinished(async () => {
      for (const end of ends) end.release();
      await Promise.all([socket.close(), sender.close()]);
    });
    const spis = [256, 257, 258, 259, 0x8000_0000, 0xffff_ffff, 0xffff_fffe, 0xffff_fffd];
    const to = { address, port: ends[0]!.local.port };
    for (const spi of spis) sender.send(Uint8Array.of(spi >>> 24, spi >>> 16, spi >>> 8, spi, 0, 0, 0, 1), to);
    for (const [queue, end] of ends.entries()) {
      const found: number[] = [];
      const expected = spis.filter((spi) => spi % 3 === queue);
      await until(() => {
        end.receive((data) => found.push(new DataView(data.buffer, data.byteOffset).getUint32(0)));
        return found.length >= expected.length;
      });
      expect(found).toEqual(expected);
    }
  });

  it('belongs to one program alone, like any other', async () => {
    const { to } = await parted('127.0.0.1');
    for (const espQueues of [1, 0]) {
      await expect(linuxUdp().bind({ ...to, espQueues })).rejects.toThrow('Another program has the port');
    }
  });
});
