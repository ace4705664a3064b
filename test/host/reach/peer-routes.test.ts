/** Ways to peers that go, change and return, looked up when the network changes. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { parseAddress } from '../../../src/base/address.ts';
import { type PeerRouteReport, PeerRoutes, type PeerRouteTarget } from '../../../src/host/reach/peer-routes.ts';

const ip = (text: string): NonNullable<PeerRouteTarget['local']> => parseAddress(text)!;
const HERE = '192.0.2.1';
const OTHER = '198.51.100.1';

const SA: PeerRouteTarget = {
  key: 'SA 1',
  tunnel: 'net',
  local: ip(HERE),
  remote: ip('192.0.2.2'),
  ikeSa: 1,
  movable: true,
};
const WAITING: PeerRouteTarget = { ...SA, key: 'net', local: undefined, ikeSa: undefined, movable: false };

class Host {
  way: string | undefined = 'by eth0';
  source: string | undefined = HERE;
  target: PeerRouteTarget = SA;
  asked = 0;
  refuse = false;
  readonly done: string[] = [];
  readonly reports: PeerRouteReport[] = [];
  readonly ways = new PeerRoutes({
    targets: () => [this.target],
    routeToPeer: () => {
      this.asked++;
      if (this.refuse) throw new Error('no descriptors');
      return this.way;
    },
    sourceFor: () => (this.source === undefined ? undefined : ip(this.source)),
    probe: (ikeSa) => void this.done.push(`probe ${ikeSa}`),
    restart: (ikeSa, detail) => void this.done.push(`restart ${ikeSa}: ${detail}`),
    retry: (tunnel) => void this.done.push(`retry ${tunnel}`),
    report: (report) => void this.reports.push(report),
    refused: (error) => void this.done.push(`refused: ${(error as Error).message}`),
  });

  async change(way: string | undefined): Promise<void> {
    this.way = way;
    this.ways.changed();
    await vi.advanceTimersByTimeAsync(1_000);
  }
}

describe('the way to a peer', () => {
  let host: Host;

  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    host = new Host();
  });
  afterEach(() => {
    host.ways.close();
    vi.useRealTimers();
  });

  it('that is the same as before causes nothing', async () => {
    host.ways.note(SA);
    await host.change('by eth0');
    expect([host.done, host.reports, host.ways.degraded('net')]).toEqual([[], [], []]);
  });

  it('that is another one has the peer asked, once', async () => {
    host.ways.note(SA);
    await host.change('by eth1 and 198.51.100.254');
    await host.change('by eth1 and 198.51.100.254');
    expect(host.done).toEqual(['probe 1']);
    expect(host.reports).toEqual([
      {
        tunnel: 'net',
        level: 'info',
        text: 'packets to the peer 192.0.2.2 now leave by eth1 and 198.51.100.254 (before: by eth0)',
        event: undefined,
      },
    ]);
  });

  it('that is gone is reported with the command to check it, and shown until it returns; then the peer is probed', async () => {
    host.source = undefined;
    host.ways.note(SA);
    await host.change(undefined);
    await host.change(undefined);
    const text =
      'this host has no route to the peer 192.0.2.2 from 192.0.2.1; see: ip route get 192.0.2.2 from 192.0.2.1';
    expect(host.ways.degraded('net')).toEqual([text]);
    expect(host.ways.degraded('other')).toEqual([]);
    expect(host.reports).toEqual([{ tunnel: 'net', level: 'warn', text, event: 'degraded' }]);
    expect(host.done).toEqual([]);
    await host.change('by eth0');
    expect(host.ways.degraded('net')).toEqual([]);
    expect(host.reports[1]).toMatchObject({ level: 'info', event: 'restored' });
    expect(host.done).toEqual(['probe 1']);
  });

  it('that is gone with the address is taken from another one, where none was prescribed', async () => {
    host.ways.note(SA);
    host.source = OTHER;
    await host.change(undefined);
    expect(host.done).toEqual([
      'restart 1: the local address 192.0.2.1 is gone; a new IKE SA is negotiated from 198.51.100.1',
    ]);
    host.done.length = 0;
    host.target = { ...SA, movable: false };
    await host.change(undefined);
    expect([host.done, host.ways.degraded('net').length]).toEqual([[], 1]);
  });

  it('that comes has an attempt made at once that waited for its time', async () => {
    host.target = WAITING;
    host.way = undefined;
    host.ways.note(WAITING);
    expect(host.ways.degraded('net')).toEqual([
      'this host has no route to the peer 192.0.2.2; see: ip route get 192.0.2.2',
    ]);
    await host.change('by eth0');
    expect(host.done).toEqual(['retry net']);
    host.ways.forget('net');
    await host.change('by eth0');
    expect(host.done).toEqual(['retry net']);
  });

  it('is looked up no more often than now and then, whatever the number of changes', async () => {
    host.ways.note(SA);
    const before = host.asked;
    for (let time = 0; time < 10_000; time += 5) {
      host.ways.changed();
      await vi.advanceTimersByTimeAsync(5);
    }
    expect(host.asked - before).toBeGreaterThan(20);
    expect(host.asked - before).toBeLessThan(50);
  });

  it('is taken for what it was when the system cannot be asked', async () => {
    host.ways.note(SA);
    host.refuse = true;
    await host.change(undefined);
    expect([host.done, host.reports]).toEqual([['refused: no descriptors'], []]);
    host.refuse = false;
    await host.change('by eth0');
    expect(host.done).toHaveLength(1);
  });
});
