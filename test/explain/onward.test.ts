/** Whether a packet that came out of the tunnel goes on to its network, or away from it in the clear. */
import { beforeEach, describe, expect, it } from 'vitest';
import { type AddressRange, type IpAddress, parseAddress, prefixRange } from '../../src/base/address.ts';
import type { Obstacle } from '../../src/explain/obstacle.ts';
import { exposure } from '../../src/explain/onward.ts';
import { MemoryHostNetwork } from '../../src/hostnet/routes/memory.ts';
import { MAIN_TABLE } from '../../src/hostnet/routes/routes.ts';

const address = (text: string): IpAddress => parseAddress(text)!;

function range(text: string): AddressRange {
  const [first, length] = text.split('/');
  return prefixRange(address(first!), Number(length));
}

const PEER = address('203.0.113.2');
const BY_ADMINISTRATOR = 4;

describe('a packet out of the tunnel', () => {
  let network: MemoryHostNetwork;
  let links: Readonly<Record<'eth0' | 'eth1', number>>;
  beforeEach(() => {
    network = new MemoryHostNetwork();
    links = { eth0: network.addLink('eth0', 1500), eth1: network.addLink('eth1', 1500) };
  });

  const route = (to: string, link: 'eth0' | 'eth1', gateway?: string): void => {
    const [, length] = to.split('/');
    network.put({
      route: {
        type: 'unicast',
        destination: { address: range(to).start, prefixLength: Number(length) },
        gateway: gateway === undefined ? undefined : address(gateway),
        linkIndex: links[link],
        table: MAIN_TABLE,
        metric: 0,
        protocol: BY_ADMINISTRATOR,
      },
    });
  };
  const judged = (destination: string, local: string, peer: IpAddress | 'unknown' = PEER): Obstacle | undefined => {
    const found = network.routeFor({ destination: address(destination) })!;
    const link = network.link(found.linkIndex!)!.name;
    return exposure(
      network,
      { network: range(local), peer: peer === 'unknown' ? undefined : peer },
      address(destination),
      { route: found, link },
    );
  };

  it.each([
    ['10.1.0.7', '10.1.0.0/24', '0.0.0.0/0', '192.0.2.254'],
    ['fd01::7', 'fd01::/64', '::/0', 'fe80::1'],
  ])('leaves in the clear by the default route on the link of ESP: %s', (to, local, everything, gateway) => {
    route('0.0.0.0/0', 'eth0', '192.0.2.254');
    route('::/0', 'eth0', 'fe80::1');
    expect(judged(to, local)).toEqual({
      effect: 'lead',
      certain: true,
      verdict: "this host sends it on in the clear by eth0, the link of the tunnel's own packets",
      warning:
        `there is no route to ${local} of its own, only ${everything} via ${gateway} dev eth0; ` +
        `if its link or address is gone, bring it back, and let no packet out there without it: ip route add unreachable ${local} metric 4294967295; ` +
        `if it is reached that way, say so: ip route add ${local} via ${gateway} dev eth0`,
    });
    expect(judged(to, everything)).toBeUndefined();
    route(local, 'eth0', gateway);
    expect(judged(to, local)).toBeUndefined();
  });

  it('may do so by a default route elsewhere, or where it is not known which link ESP takes', () => {
    route('0.0.0.0/0', 'eth1', '198.51.100.1');
    route('203.0.113.0/24', 'eth0', '192.0.2.254');
    const unsure = {
      certain: false,
      verdict: expect.stringMatching(/^it may leave in the clear: .* by eth1, leads on$/),
    };
    expect(judged('10.1.0.7', '10.1.0.0/24')).toMatchObject(unsure);
    route('0.0.0.0/0', 'eth0', '192.0.2.254');
    expect(judged('10.1.0.7', '10.1.0.0/24', 'unknown')).toMatchObject({ certain: false });
  });

  it('leaves by a route that packets to the peer take too, but for one without a router', () => {
    route('203.0.0.0/8', 'eth0', '192.0.2.254');
    expect(judged('203.1.0.7', '203.1.0.0/24')).toMatchObject({ certain: true });
    route('203.0.0.0/8', 'eth0');
    expect(judged('203.1.0.7', '203.1.0.0/24')).toBeUndefined();
  });
});
