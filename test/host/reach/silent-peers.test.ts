/** Peers of which nothing is heard: told once, and again when they answer. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { parseAddress, type SocketAddress } from '../../../src/base/address.ts';
import type { PeerRouteReport } from '../../../src/host/reach/peer-routes.ts';
import type { SendTarget } from '../../../src/host/reach/send-refusals.ts';
import { SilentPeers } from '../../../src/host/reach/silent-peers.ts';

const end = (address: string, port: number): SocketAddress => ({ address: parseAddress(address)!, port });

class Host {
  targets: SendTarget[] = [];
  reason = false;
  readonly reports: PeerRouteReport[] = [];
  readonly peers = new SilentPeers({
    report: (report) => void this.reports.push(report),
    explained: () => this.reason,
  });

  attempt(change: Partial<SendTarget> = {}): void {
    const ends = { local: end('192.0.2.1', 4500), remote: end('192.0.2.2', 500) };
    const unanswered = { since: performance.now() };
    this.targets = [
      { ikeSa: 1, tunnel: 'net', ...ends, unanswered, lastHeardAt: undefined, established: false, ...change },
    ];
  }

  get told(): string[] {
    return this.reports.map(({ tunnel, level, event }) => `${tunnel} ${level} ${event}`);
  }
}

describe('a peer that does not answer', () => {
  let host: Host;

  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] });
    host = new Host();
    setInterval(() => host.peers.check(performance.now(), host.targets), 2_500);
  });
  afterEach(() => void vi.useRealTimers());

  it('is reported after ten seconds, once for all attempts, with the ports and the route, until it responds', () => {
    host.attempt();
    vi.advanceTimersByTime(9_900);
    expect([host.told, host.peers.degraded('net')]).toEqual([[], []]);
    vi.advanceTimersByTime(3_000);
    expect(host.peers.degraded('net')).toEqual([
      '192.0.2.2:500 does not answer. Firewalls must pass UDP from 192.0.2.1:4500 to 192.0.2.2:500 and back; to see where it stops, run at both ends: tcpdump -ni any udp port 4500 or udp port 500',
    ]);
    host.targets = [];
    vi.advanceTimersByTime(5_000);
    host.attempt();
    vi.advanceTimersByTime(60_000);
    expect([host.told, host.peers.degraded('net').length]).toEqual([['net warn degraded'], 1]);
    host.attempt({ lastHeardAt: performance.now(), established: true });
    vi.advanceTimersByTime(3_000);
    expect([host.told, host.peers.degraded('net')]).toEqual([['net warn degraded', 'net info restored'], []]);
  });

  it('is not reported where there is another reason', () => {
    host.reason = true;
    host.attempt();
    vi.advanceTimersByTime(20_000);
    expect([host.told, host.peers.degraded('net')]).toEqual([[], []]);
  });

  it('is forgotten with its tunnel', () => {
    host.attempt();
    vi.advanceTimersByTime(20_000);
    host.targets = [];
    host.peers.forget('net');
    expect(host.peers.degraded('net')).toEqual([]);
  });
});
