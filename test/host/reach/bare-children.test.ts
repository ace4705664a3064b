/** CHILD SAs whose ESP is received directly over IP where it must come in UDP: told once, shown, and gone when it does. */
import { expect, it } from 'vitest';
import { parseAddress, type SocketAddress } from '../../../src/base/address.ts';
import { BareChildren } from '../../../src/host/reach/bare-children.ts';
import type { PeerRouteReport } from '../../../src/host/reach/peer-routes.ts';
import { type ChildTarget, newest } from '../../../src/host/reach/unheard-children.ts';

const end = (address: string): SocketAddress => ({ address: parseAddress(address)!, port: 4500 });
const child = (change: Partial<ChildTarget> = {}): ChildTarget => ({
  ...{ tunnel: 'net', id: 1, name: 'lan', traffic: 'lan a b', spiIn: 0x1001, encapsulated: true, sent: 3 },
  path: { local: end('192.0.2.1'), remote: end('192.0.2.2') },
  ...{ heard: true, receivesBare: false, ...change },
});

function host(): { children: BareChildren; reports: PeerRouteReport[]; look: (...targets: ChildTarget[]) => string[] } {
  let now: readonly ChildTarget[] = [];
  const reports: PeerRouteReport[] = [];
  const children = new BareChildren({
    targets: (name) => now.filter(({ tunnel }) => tunnel === name),
    report: (report) => void reports.push(report),
  });
  const look = (...targets: ChildTarget[]): string[] => {
    now = targets;
    children.check(newest(targets));
    return reports.splice(0).map(({ tunnel, level, event, text }) => `${tunnel} ${level} ${event}: ${text}`);
  };
  return { children, reports, look };
}

const BARE =
  /^net warn degraded: 192\.0\.2\.2 sends the ESP of CHILD SA #1 lan directly over IP \(protocol 50\), where it must go in UDP/;

it('the tunnel is degraded until a packet comes in UDP, and it is reported once', () => {
  const { children, look } = host();
  expect([look(child()), children.degraded('net')]).toEqual([[], []]);
  expect(look(child({ receivesBare: true }))).toEqual([expect.stringMatching(BARE)]);
  expect(look(child({ receivesBare: true }))).toEqual([]);
  expect(children.degraded('net')).toEqual([expect.stringMatching(/^192\.0\.2\.2 sends the ESP/)]);
  expect(children.degraded('other')).toEqual([]);
  expect(look(child())).toEqual(['net info restored: CHILD SA #1 lan: packets are received in UDP now']);
  expect(children.degraded('net')).toEqual([]);
});

it('an SA that replaces another is as that one while it has received nothing itself', () => {
  const { look } = host();
  const old = child({ receivesBare: true });
  look(old);
  const next = { id: 2, heard: false };
  expect(look(old, child(next))).toEqual([]);
  expect(look(child(next), old)).toEqual([]);
  expect(look(old, child({ id: 2 }))).toEqual(['net info restored: CHILD SA #2 lan: packets are received in UDP now']);
});

it('an SA that is gone is not reported', () => {
  const { children, look } = host();
  look(child({ receivesBare: true }));
  expect([look(), children.degraded('net')]).toEqual([[], []]);
});
