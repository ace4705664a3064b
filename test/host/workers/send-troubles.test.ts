/** What a worker tells of refusals and routers' reports is bounded: both can be caused by anyone. */
import { expect, it } from 'vitest';
import { parseAddress, type SocketAddress } from '../../../src/base/address.ts';
import type { WorkerReport } from '../../../src/host/workers/messages.ts';
import { SendTroubles } from '../../../src/host/workers/send-troubles.ts';
import type { UdpQueue } from '../../../src/tun/udp/queue.ts';

const address = parseAddress('192.0.2.2')!;
const PEER: SocketAddress = { address, port: 4500 };

it('a refusal is told once for each end in a while, and of a bounded number of ends', () => {
  let now = 0;
  const reports: WorkerReport[] = [];
  const troubles = new SendTroubles({ now: () => now, report: (report) => void reports.push(report) });
  const end = {} as UdpQueue;
  troubles.watch(end);
  for (let i = 0; i < 1_000; i++) end.onRefusal(PEER, 'EPERM');
  expect(reports).toEqual([{ type: 'refused', remote: PEER, error: 'EPERM' }]);
  now = 100;
  end.onRefusal(PEER, 'EPERM');
  expect(reports).toHaveLength(2);
  for (let port = 1; port < 1_000; port++) end.onRefusal({ address, port }, 'ECONNREFUSED');
  expect(reports.length).toBeLessThan(50);
});

it('so is what routers say, and that datagrams are too large', () => {
  let now = 0;
  const reports: WorkerReport[] = [];
  const troubles = new SendTroubles({ now: () => now, report: (report) => void reports.push(report) });
  const end = {} as UdpQueue;
  troubles.watch(end);
  for (let i = 0; i < 1_000; i++) end.onPathReport({ remote: PEER, mtu: 1280, quote: new Uint8Array() });
  expect(reports).toHaveLength(32);
  for (let count = 1; count < 1_000; count++) troubles.reportTooLarge(count);
  expect(reports.filter(({ type }) => type === 'too-large')).toHaveLength(1);
  now = 100;
  troubles.reportTooLarge(1_000);
  expect(reports.filter(({ type }) => type === 'too-large')).toHaveLength(2);
});
