/** What the system, or ICMP, says of datagrams of IKE that were refused. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { parseAddress, type SocketAddress } from '../../../src/base/address.ts';
import type { PeerRouteReport } from '../../../src/host/reach/peer-routes.ts';
import { SendRefusals, type SendTarget } from '../../../src/host/reach/send-refusals.ts';

const PEER: SocketAddress = { address: parseAddress('192.0.2.2')!, port: 500 };
const STRANGER: SocketAddress = { address: parseAddress('198.51.100.7')!, port: 500 };
const LOCAL: SocketAddress = { address: parseAddress('192.0.2.1')!, port: 500 };
const ATTEMPT: SendTarget = {
  ...{ ikeSa: 1, tunnel: 'net', local: LOCAL, remote: PEER },
  ...{ unanswered: undefined, lastHeardAt: undefined, established: false },
};

class Host {
  targets: SendTarget[] = [ATTEMPT];
  looks = 0;
  readonly probed: number[] = [];
  readonly reports: PeerRouteReport[] = [];
  readonly refusals = new SendRefusals({
    targets: () => {
      this.looks++;
      return this.targets;
    },
    now: () => performance.now(),
    probe: (ikeSa) => void this.probed.push(ikeSa),
    report: (report) => void this.reports.push(report),
  });

  get told(): string[] {
    return this.reports.map(({ level, event, text }) => `${level} ${event}: ${text}`);
  }
}

describe('a datagram that is refused', () => {
  let host: Host;

  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    host = new Host();
  });
  afterEach(() => {
    host.refusals.close();
    vi.useRealTimers();
  });

  it.each([
    ['EPERM', /a firewall of this host drops or rejects them; see: nft list ruleset/],
    ['EHOSTUNREACH', /no host has that address, a router has no route.*ip neigh show 192\.0\.2\.2/],
    ['ENETUNREACH', /has no route there, or a firewall rejects it; see: ip route get 192\.0\.2\.2/],
    ['ECONNREFUSED', /UDP port 500 of 192\.0\.2\.2 is closed.*ss -ulpn sport = :500/],
    ['EADDRNOTAVAIL', /no local address.*see: ip address/],
    ['EACCES', /a route prohibits them.*see: ip route get 192\.0\.2\.2/],
  ] as const)('for %s is told within a second, once, with what to look at', (error, text) => {
    host.refusals.refused(PEER, error);
    vi.advanceTimersByTime(1_000);
    host.refusals.refused(PEER, error);
    vi.advanceTimersByTime(1_000);
    expect(host.refusals.degraded('net')).toEqual([expect.stringMatching(text)]);
    expect(host.refusals.degraded('other')).toEqual([]);
    expect(host.reports).toEqual([
      { tunnel: 'net', level: 'warn', text: expect.stringMatching(text), event: 'degraded' },
    ]);
    expect(host.probed).toEqual([]);
  });

  it.each([
    ['EPERM', /refuses ESP packets to 192\.0\.2\.2 \(EPERM\).*nft list ruleset/],
    ['ENOPROTOOPT', /192\.0\.2\.2 takes no ESP.*<nat encapsulation='always'\/>/],
  ] as const)('of ESP straight over IP, for %s, is told though IKE is heard', (error, text) => {
    const end = { ...PEER, port: 0 };
    for (let time = 0; time < 10_000; time += 100) {
      host.refusals.refused(end, error);
      host.targets = [{ ...ATTEMPT, established: true, lastHeardAt: performance.now() }];
      vi.advanceTimersByTime(100);
    }
    expect(host.refusals.degraded('net')).toEqual([expect.stringMatching(text)]);
    expect(host.reports).toHaveLength(1);
    vi.advanceTimersByTime(1_000);
    host.targets = [{ ...ATTEMPT, established: true, lastHeardAt: performance.now() }];
    vi.advanceTimersByTime(2_000);
    expect(host.told[1]).toBe('info restored: ESP packets to 192.0.2.2 are no longer refused');
  });

  it('by a firewall of this host is told though the peer is heard, and once while it goes on', () => {
    for (let time = 0; time < 10_000; time += 100) {
      host.refusals.refused(PEER, 'EPERM');
      host.targets = [{ ...ATTEMPT, established: true, lastHeardAt: performance.now() + 1 }];
      vi.advanceTimersByTime(100);
    }
    expect(host.refusals.degraded('net')).toHaveLength(1);
    expect(host.reports).toHaveLength(1);
  });

  it.each([0, 1_000])('by a firewall of this host is not told as the ICMP that follows %s ms after', (pause) => {
    for (let time = 0; time < 10_000; time += 2_000) {
      host.refusals.refused(PEER, 'EPERM');
      vi.advanceTimersByTime(pause);
      host.refusals.refused(PEER, 'ECONNREFUSED');
      vi.advanceTimersByTime(2_000 - pause);
    }
    expect(host.refusals.degraded('net')).toEqual([expect.stringContaining('EPERM')]);
    expect(host.reports).toHaveLength(1);
    vi.advanceTimersByTime(3_000);
    host.refusals.refused(PEER, 'ECONNREFUSED');
    vi.advanceTimersByTime(1_000);
    expect(host.refusals.degraded('net')).toEqual([expect.stringContaining('ECONNREFUSED')]);
  });

  it.each([500, 4500])('is shown until the peer is heard, from port %s', (port) => {
    host.refusals.refused(PEER, 'ECONNREFUSED');
    vi.advanceTimersByTime(1_000);
    host.targets = [{ ...ATTEMPT, remote: { ...PEER, port }, lastHeardAt: performance.now() }];
    vi.advanceTimersByTime(1_000);
    expect(host.refusals.degraded('net')).toEqual([]);
    expect(host.told[1]).toBe('info restored: datagrams to 192.0.2.2:500 are no longer refused');
  });

  it('is shown no longer than some time after the last one, nor of a tunnel that is gone', () => {
    host.refusals.refused(PEER, 'EPERM');
    vi.advanceTimersByTime(60_000);
    expect(host.refusals.degraded('net')).toHaveLength(1);
    vi.advanceTimersByTime(20_000);
    expect(host.refusals.degraded('net')).toEqual([]);
    host.refusals.refused(PEER, 'EPERM');
    vi.advanceTimersByTime(1_000);
    host.refusals.forget('net');
    expect(host.refusals.degraded('net')).toEqual([]);
  });

  it('has the peer of an SA that is up asked, now and then, and gives nothing up', () => {
    host.targets = [{ ...ATTEMPT, established: true }];
    for (let time = 0; time < 20_000; time += 100) {
      host.refusals.refused(PEER, 'EHOSTUNREACH');
      vi.advanceTimersByTime(100);
    }
    expect(host.probed.length).toBeGreaterThan(0);
    expect(host.probed.length).toBeLessThanOrEqual(3);
    expect(host.reports).toHaveLength(1);
  });

  it('that is forged says nothing: of others than peers, of a peer that was heard since, or in any number', () => {
    for (let port = 1; port < 5_000; port++) host.refusals.refused({ ...STRANGER, port }, 'ECONNREFUSED');
    vi.advanceTimersByTime(10_000);
    expect([host.looks, host.reports]).toEqual([1, []]);
    host.refusals.refused(PEER, 'ECONNREFUSED');
    host.targets = [{ ...ATTEMPT, lastHeardAt: performance.now() + 1, established: true }];
    vi.advanceTimersByTime(1_000);
    expect([host.reports, host.probed]).toEqual([[], []]);
    host.refusals.refused(PEER, 'ENOBUFS');
    vi.advanceTimersByTime(1_000);
    expect(host.looks).toBe(2);
  });
});
