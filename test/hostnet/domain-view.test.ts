/** What explanations see of a host with routing domains of equal addresses. */
import { expect, it } from 'vitest';
import { parseAddress } from '../../src/base/address.ts';
import { domainView } from '../../src/hostnet/domain-view.ts';
import { ELSEWHERE, type FencePart } from '../../src/hostnet/fence/fence.ts';
import { MemoryHostNetwork } from '../../src/hostnet/routes/memory.ts';

const LAN = parseAddress('10.1.0.1')!;
const FAR = parseAddress('10.2.0.9')!;

function host(): MemoryHostNetwork {
  const network = new MemoryHostNetwork();
  const blue = network.addLink('blue', 1500);
  network.makeVrf(blue, 10);
  for (const [name, master] of [
    ['eth0', undefined],
    ['eth1', blue],
  ] as const) {
    const linkIndex = network.addLink(name, 1500);
    if (master !== undefined) network.setLink(linkIndex, { master });
    network.addAddress({ linkIndex, address: LAN, prefixLength: 24 });
    const destination = { address: parseAddress('10.2.0.0')!, prefixLength: 24 };
    network.addRoutes([{ type: 'unicast', destination, linkIndex, ...(master === undefined ? {} : { table: 10 }) }]);
  }
  return network;
}

const part = (vrf: string | undefined): FencePart => ({
  ...{ kind: 'tunnel', vrf, device: 'stun', beside: [], own: ELSEWHERE },
  ...{ outbound: [], inbound: [], anySource: [], marked: [] },
});

it.each([
  [undefined, 'eth0'],
  ['blue', 'eth1'],
])('a packet of the domain %s has its addresses, routes and fences alone', (vrf, link) => {
  const network = host();
  const fences = new Map([
    ['tunnel:a', part(undefined)],
    ['tunnel:b', part('blue')],
  ]);
  const view = domainView({ routing: network, fences, sysctl: () => undefined }, vrf);
  const index = network.link(link)!.index;
  expect(view.routing.addresses()).toEqual([{ linkIndex: index, address: LAN, prefixLength: 24 }]);
  expect(view.routing.routeTo({ destination: FAR, source: LAN })?.linkIndex).toBe(index);
  expect(view.routing.routeFor({ destination: FAR, source: FAR, inputLinkIndex: index })?.linkIndex).toBe(index);
  expect([...view.fences!.keys()]).toEqual([vrf === undefined ? 'tunnel:a' : 'tunnel:b']);
});

it('a VRF that is not there has no addresses', () => {
  const view = domainView({ routing: host(), sysctl: () => undefined }, 'gone');
  expect(view.routing.addresses()).toEqual([]);
  expect(view.fences).toBeUndefined();
});

it('nothing is asked of the host before it is looked at, and the addresses once', () => {
  const network = host();
  let asked = 0;
  const addresses = network.addresses.bind(network);
  network.addresses = (...words) => {
    asked++;
    return addresses(...words);
  };
  const unread = (): never => {
    throw new Error('all fences were copied');
  };
  const untouched = Object.defineProperty({ routing: network, sysctl: () => undefined }, 'fences', { get: unread });
  const view = domainView(untouched, undefined);
  expect(view.routing.link('eth0')).toBeDefined();
  expect(view.routing.routeTo({ destination: FAR, source: LAN })).toBeDefined();
  expect(asked).toBe(0);
  for (let time = 0; time < 2; time++) expect(view.routing.addresses()).toHaveLength(1);
  expect(asked).toBe(1);
});
