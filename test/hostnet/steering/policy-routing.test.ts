/** Which packets rules and tables route into the devices of tunnels, and which they do not. */
import { describe, expect, it } from 'vitest';
import { type AddressRange, type IpAddress, parseAddress, prefixRange } from '../../../src/base/address.ts';
import { PASS_MARK } from '../../../src/hostnet/fence/fence.ts';
import { MemoryHostNetwork } from '../../../src/hostnet/routes/memory.ts';
import { ownerOf, type RouteQuery, samePrefix } from '../../../src/hostnet/routes/routes.ts';
import type { PolicyBox, RoutingPlan } from '../../../src/hostnet/steering/plan.ts';
import { PolicyRouting } from '../../../src/hostnet/steering/policy-routing.ts';
import { MAX_RULES, routingWarnings } from '../../../src/hostnet/steering/rules.ts';
import { markedBoxes } from '../../../src/hostnet/steering/tunnel-fence.ts';
import { TunnelOrder } from '../../../src/hostnet/steering/tunnel-order.ts';
import type { PolicyEntry } from '../../../src/policy/database.ts';
import { claimsOf } from '../../../src/policy/precedence.ts';
import { makeSelector } from '../../../src/policy/selector.ts';

const address = (text: string): IpAddress => parseAddress(text)!;
const HERE = address('192.0.2.1');
const PEER = address('192.0.2.2');
const LAN = address('10.1.0.1');
const LAN6 = address('fd01::1');

interface Host {
  readonly network: MemoryHostNetwork;
  readonly routing: PolicyRouting;
  readonly line: number;
  readonly lan: number;
  readonly device: number;
}

function host(): Host {
  const network = new MemoryHostNetwork();
  const line = network.addLink('eth0', 1500);
  const lan = network.addLink('lan0', 1500);
  const device = network.addLink('stun', 1400);
  network.setLink(device, { up: true });
  for (const own of [HERE, address('192.0.2.77'), address('2001:db8::1')]) {
    network.addAddress({ linkIndex: line, address: own, prefixLength: own.family === 4 ? 24 : 64 });
  }
  for (const own of [LAN, LAN6]) {
    network.addAddress({ linkIndex: lan, address: own, prefixLength: own.family === 4 ? 24 : 64 });
  }
  for (const gateway of [address('192.0.2.254'), address('2001:db8::fe')]) {
    const destination = { address: { family: gateway.family, value: 0n }, prefixLength: 0 };
    network.addRoutes([{ type: 'unicast', destination, gateway, linkIndex: line }]);
  }
  return { network, routing: new PolicyRouting(network), line, lan, device };
}

/** `10.1.0.0/24`, or the first and the last address. */
function range(text: string): AddressRange {
  const [first, last] = text.split('-');
  if (last !== undefined) return { start: address(first!), end: address(last) };
  const [start, length] = text.split('/');
  return prefixRange(address(start!), Number(length));
}

function box(local: string, remote: string, change: Partial<PolicyBox> = {}): PolicyBox {
  return { action: 'protect', level: 'require', child: 'c', local: range(local), remote: range(remote), ...change };
}

const port = (start: number, end = start): { start: number; end: number } => ({ start, end });

const plan = (outbound: readonly PolicyBox[], change: Partial<RoutingPlan> = {}): RoutingPlan => ({
  tunnel: 'net',
  claims: claimsOf([]),
  redundancy: undefined,
  table: 7700,
  own: { peer: PEER, ports: [500, 4500], peerPorts: [500, 4500] },
  outbound,
  inbound: [],
  host: undefined,
  ...change,
});

function install({ routing, device }: Host, wanted: RoutingPlan): void {
  routing.prepare(wanted, 'stun');
  routing.open(wanted.tunnel, device);
}

/** By which link a packet leaves, by name; `none` where there is no way. */
function way({ network }: Host, destination: string, query: Partial<RouteQuery> = {}): string {
  const answer = network.routeTo({ destination: address(destination), ...query });
  return answer === undefined ? 'none' : network.link(answer.linkIndex)!.name;
}

const UDP = 17;
const TCP = 6;

describe('what a policy protects', () => {
  it('is routed into the device by one rule and a route, from the sources that it names, forwarded or one’s own', () => {
    const here = host();
    install(here, plan([box('10.1.0.0/24', '10.2.0.0/24')]));
    expect(here.network.rules().length).toBeLessThanOrEqual(5);
    expect(way(here, '10.2.0.9', { source: LAN })).toBe('stun');
    expect(way(here, '10.2.0.9', { source: address('10.1.0.7'), inputLinkIndex: here.lan })).toBe('stun');
    // Without a source yet: it gets one that the policy is for.
    expect(here.network.routeTo({ destination: address('10.2.0.9') })).toMatchObject({
      source: LAN,
      linkIndex: here.device,
    });
    expect(way(here, '10.2.0.9', { source: HERE })).toBe('eth0');
    expect(way(here, '10.3.0.9', { source: LAN })).toBe('eth0');
  });

  it('is routed the same way over IPv6, where a packet without a source fits no rule with one', () => {
    const here = host();
    install(here, plan([box('fd01::/64', 'fd02::/64'), box('fd01::/64', 'fd03::/64', { protocol: UDP })]));
    expect(way(here, 'fd02::9', { source: LAN6 })).toBe('stun');
    expect(here.network.routeTo({ destination: address('fd02::9') })).toMatchObject({
      source: LAN6,
      linkIndex: here.device,
    });
    expect(way(here, 'fd02::9', { source: address('2001:db8::1') })).toBe('eth0');
    expect(way(here, 'fd03::9', { ipProtocol: UDP })).toBe('stun');
    expect(way(here, 'fd03::9', { ipProtocol: TCP })).toBe('eth0');
  });

  it('leaves by no other way over IPv6 while the device is not there, from whatever source the host would choose', () => {
    const here = host();
    const other = address('2001:db8::1');
    install(
      here,
      plan([
        box('2001:db8::/64', 'fd02::53-fd02::53', { action: 'bypass', child: undefined }),
        box('fd01::/64', 'fd02::/64'),
        box('fd01::/64', 'fd03::/64', { protocol: UDP }),
      ]),
    );
    const ways = (): string[] => [
      way(here, 'fd02::9', { source: other }),
      way(here, 'fd03::9', { source: other, ipProtocol: UDP }),
      way(here, 'fd03::9', { source: other, ipProtocol: TCP }),
      way(here, 'fd02::53', { source: other }),
      // What others send from there is no matter of the policy.
      way(here, 'fd02::9', { source: address('fd09::7'), inputLinkIndex: here.lan }),
    ];
    expect(ways()).toEqual(['eth0', 'eth0', 'eth0', 'eth0', 'eth0']);
    here.network.deleteLink(here.device);
    expect(ways()).toEqual(['none', 'none', 'eth0', 'eth0', 'eth0']);
  });

  it('holds nothing back of what the host itself sends, where the policy is for guests', () => {
    const here = host();
    here.network.addLink('virbr9', 1500);
    here.routing.routeBridge('virbr9', [{ address: address('fd01::1'), prefixLength: 64 }], undefined);
    install(here, plan([box('fd01::/64', '::/0')]));
    here.network.deleteLink(here.device);
    expect(way(here, 'fd02::9', { source: address('2001:db8::1') })).toBe('eth0');
  });

  it('is passed over by the group of the device, which is put back when another program changes it', async () => {
    const here = host();
    install(here, plan([box('fd01::/64', 'fd02::/64')]));
    here.network.setLink(here.device, { group: 0 });
    const { found } = await here.routing.mend();
    expect(found).toEqual(['group of stun: 0 in place of 83']);
    expect(way(here, 'fd02::9', { source: address('2001:db8::1') })).toBe('eth0');
  });

  it('is routed by protocol and ports, also to the ends of the range of ports, which rules do not have', () => {
    const here = host();
    install(
      here,
      plan([
        box('10.1.0.0/24', '10.2.0.0/24', { protocol: UDP, remotePorts: port(5000, 5010) }),
        box('10.1.0.0/24', '10.2.0.0/24', {
          protocol: TCP,
          localPorts: port(1024, 65_535),
          remotePorts: port(60_000, 65_535),
        }),
        box('10.1.0.0/24', '10.2.0.0/24', { protocol: 132, remotePorts: port(0, 65_535) }),
      ]),
    );
    const to = (ipProtocol: number, sourcePort: number, destinationPort: number): string =>
      way(here, '10.2.0.9', { source: LAN, ipProtocol, sourcePort, destinationPort });
    expect([to(UDP, 9, 4999), to(UDP, 9, 5000), to(UDP, 9, 5010), to(UDP, 9, 5011)]).toEqual([
      'eth0',
      'stun',
      'stun',
      'eth0',
    ]);
    expect([to(TCP, 1024, 65_535), to(TCP, 65_535, 60_000)]).toEqual(['stun', 'stun']);
    expect([to(TCP, 1023, 65_535), to(TCP, 1024, 59_999)]).toEqual(['eth0', 'eth0']);
    expect(to(132, 9, 65_535)).toBe('stun');
    expect(to(TCP, 9, 5000)).toBe('eth0');
  });

  it('has holes where an entry before it lets pass or discards, and ranges that are no prefix', () => {
    const here = host();
    install(
      here,
      plan([
        box('10.1.0.0/24', '10.2.0.53-10.2.0.55', { action: 'bypass', child: undefined }),
        box('10.1.0.0/24', '10.2.0.128/25', { action: 'discard', child: undefined }),
        box('10.1.0.0/24', '10.2.0.0/24'),
        box('10.1.0.0/24', '10.2.0.0/16', { action: 'bypass', child: undefined }),
      ]),
    );
    const to = (last: string): string => way(here, `10.2.${last}`, { source: LAN });
    expect([to('0.52'), to('0.53'), to('0.55'), to('0.56'), to('0.127')]).toEqual([
      'stun',
      'eth0',
      'eth0',
      'stun',
      'stun',
    ]);
    expect([to('0.128'), to('1.1')]).toEqual(['none', 'eth0']);
    // With protocols, so that rules take the place of routes: the same.
    const other = host();
    install(
      other,
      plan([
        box('10.1.0.0/24', '10.2.0.53-10.2.0.55', { action: 'bypass', child: undefined, protocol: UDP }),
        box('10.1.0.0/24', '10.2.0.128/25', { action: 'discard', child: undefined, protocol: UDP }),
        box('10.1.0.0/24', '10.2.0.0/24'),
      ]),
    );
    const udp = (last: string): string => way(other, `10.2.${last}`, { source: LAN, ipProtocol: UDP });
    expect([udp('0.52'), udp('0.53'), udp('0.55'), udp('0.128'), udp('1.1')]).toEqual([
      'stun',
      'eth0',
      'eth0',
      'none',
      'eth0',
    ]);
    expect(way(other, '10.2.0.53', { source: LAN, ipProtocol: TCP })).toBe('stun');
  });

  it('is everything but the tunnel’s own packets and those of the link, when a policy says so', () => {
    const here = host();
    install(here, plan([box('0.0.0.0/0', '0.0.0.0/0'), box('::/0', '::/0')]));
    expect(way(here, '203.0.113.9', { ipProtocol: TCP })).toBe('stun');
    expect(way(here, '2001:db8:9::9', { ipProtocol: TCP })).toBe('stun');
    expect(way(here, '192.0.2.2', { ipProtocol: 50 })).toBe('eth0');
    expect(way(here, '192.0.2.2', { ipProtocol: UDP, sourcePort: 4500 })).toBe('eth0');
    expect(way(here, '192.0.2.2', { ipProtocol: UDP, sourcePort: 4501 })).toBe('stun');
    expect(way(here, '192.0.2.3', { ipProtocol: 50 })).toBe('stun');
    // What others send to the peer is no packet of the tunnel.
    const forwarded = { source: address('10.1.0.7'), inputLinkIndex: here.lan };
    expect(way(here, '192.0.2.2', { ...forwarded, ipProtocol: 50 })).toBe('stun');
    expect(way(here, 'ff02::1')).toBe('eth0');
    expect(way(here, 'fe80::9')).toBe('eth0');
    // What came out of the tunnel is not routed into it again.
    expect(way(here, '10.1.0.7', { source: address('203.0.113.9'), inputLinkIndex: here.device })).toBe('lan0');
  });

  it('has no way at all when the device is gone', () => {
    const here = host();
    install(here, plan([box('10.1.0.0/24', '10.2.0.0/24'), box('fd01::/64', 'fd02::/64', { protocol: UDP })]));
    here.network.deleteLink(here.device);
    expect(way(here, '10.2.0.9', { source: LAN })).toBe('none');
    expect(way(here, '10.2.0.9')).toBe('none');
    expect(way(here, 'fd02::9', { source: LAN6, ipProtocol: UDP })).toBe('none');
    expect(way(here, 'fd02::9', { source: LAN6, ipProtocol: TCP })).toBe('eth0');
  });

  it('of level use is routed only while there is an SA, and goes past what follows in the policy otherwise', () => {
    const here = host();
    const use = box('10.1.0.0/24', '10.2.0.0/24', { level: 'use', child: 'maybe' });
    const rest = box('10.1.0.0/24', '10.0.0.0/8', { action: 'discard', child: undefined });
    install(here, plan([use, rest]));
    const ways = (): string[] => ['10.2.0.9', '10.9.0.9'].map((to) => way(here, to, { source: LAN }));
    expect(ways()).toEqual(['eth0', 'none']);
    const before = here.network.rules();
    here.routing.setUp('net', new Set(['maybe']));
    expect(ways()).toEqual(['stun', 'none']);
    here.routing.setUp('net', new Set());
    expect(ways()).toEqual(['eth0', 'none']);
    expect(here.network.rules()).toEqual(expect.arrayContaining(before));
    expect(here.network.rules()).toHaveLength(before.length);
  });

  it('is routed by destination alone when the rules would be very many, and that is said', () => {
    const here = host();
    const many = Array.from({ length: MAX_RULES + 1 }, (_, i) =>
      box('10.1.0.0/24', `10.2.${i >> 8}.${i & 255}/32`, { protocol: UDP }),
    );
    expect(routingWarnings(plan(many)).join()).toContain(`more than ${MAX_RULES} rules`);
    expect(routingWarnings(plan(many.slice(9, 29)))).toEqual([]);
    install(here, plan(many));
    expect(here.network.rules(4).length).toBeLessThan(10);
    expect(way(here, `10.2.0.${MAX_RULES}`, { source: LAN, ipProtocol: UDP })).toBe('stun');
    expect(way(here, '10.2.0.9', { source: HERE, ipProtocol: TCP })).toBe('stun');
    expect(way(here, `10.2.0.${MAX_RULES + 1}`, { source: LAN })).toBe('eth0');
  });

  it('is told of ICMP by type in the device, and by a mark where some is to pass in the clear', () => {
    const echo = box('10.1.0.0/24', '10.2.0.0/24', { protocol: 1, icmp: port(0x0800, 0x08ff) });
    const here = host();
    const pass = { ...echo, action: 'bypass' } as const;
    install(here, plan([pass, box('10.1.0.0/24', '10.2.0.0/24', { protocol: 1 })]));
    expect(way(here, '10.2.0.9', { source: LAN, ipProtocol: 1 })).toBe('stun');
    const marks = here.network.rules().filter(({ mark }) => mark === PASS_MARK);
    expect(marks.map(({ action }) => action.type)).toEqual(['goto']);
    expect(markedBoxes([echo, pass, box('10.1.0.0/24', '10.2.0.0/24')])).toEqual([echo, pass]);
    // Nothing that follows would route them in.
    expect(markedBoxes([box('10.1.0.0/24', '10.2.0.0/24', { protocol: 17 }), pass])).toEqual([]);
    const ports = box('10.1.0.0/24', '10.2.0.0/24', { protocol: 17, remotePorts: port(53) });
    expect(markedBoxes([echo, ports, pass])).toEqual([echo, ports]);
    expect(markedBoxes([pass, box('10.1.0.0/24', '10.3.0.0/24')])).toEqual([]);
  });
});

describe('packets between the hosts of a transport mode SA', () => {
  const hosts = (change: Partial<PolicyBox> = {}): RoutingPlan =>
    plan([box('192.0.2.1/32', '192.0.2.2/32', change)], { host: HERE });

  it('are routed into the device, but for those of the tunnel itself, of other hosts and from other addresses', () => {
    const here = host();
    install(here, hosts());
    const to = (query: Partial<RouteQuery>): string => way(here, '192.0.2.2', { source: HERE, ...query });
    expect(to({ ipProtocol: TCP, destinationPort: 80 })).toBe('stun');
    expect(to({ ipProtocol: UDP, sourcePort: 501 })).toBe('stun');
    expect(here.network.routeTo({ destination: PEER, ipProtocol: 1 })).toMatchObject({
      linkIndex: here.device,
      source: HERE,
    });
    expect([to({ ipProtocol: 50 }), to({ ipProtocol: UDP, sourcePort: 500 })]).toEqual(['eth0', 'eth0']);
    expect(to({ source: address('192.0.2.77') })).toBe('eth0');
    expect(way(here, '192.0.2.3', { source: HERE })).toBe('eth0');
  });

  it('are not routed from an address that is not of this host; nothing is changed then', () => {
    const here = host();
    const before = [here.network.rules(), here.network.routes()];
    expect(() => here.routing.prepare({ ...hosts(), host: address('198.51.100.1') }, 'stun')).toThrow(
      'transport mode protects packets of 198.51.100.1, which is not an address of this host',
    );
    expect([here.network.rules(), here.network.routes()]).toEqual(before);
  });
});

describe('what is installed for a tunnel', () => {
  const first = plan([box('10.1.0.0/24', '10.2.0.0/24', { protocol: UDP }), box('fd01::/64', 'fd02::/64')]);

  it('goes with it and leaves that of others; a table that documents name is of one device alone', () => {
    const here = host();
    const before = [here.network.rules(), here.network.routes()];
    install(here, first);
    const second = plan([box('10.1.0.0/24', '10.2.0.0/24')], { tunnel: 'other', table: 7701 });
    install(here, second);
    expect(() => here.routing.prepare({ ...second, tunnel: 'third' }, 'stun3')).toThrow(
      "routing table 7701 belongs to another tunnel, other: give this one a table of its own, <device table='…'>",
    );
    expect(() => here.routing.prepare({ ...second, table: 254, tunnel: 'third' }, 'stun')).toThrow(
      'belongs to the system',
    );
    here.routing.release('net');
    expect(way(here, '10.2.0.9', { source: LAN, ipProtocol: UDP })).toBe('stun');
    here.routing.release('other');
    expect([here.network.rules(), here.network.routes()]).toEqual(before);
  });

  it('is replaced after a crash by what the document says now, or removed', () => {
    const here = host();
    const before = [here.network.rules(), here.network.routes()];
    install(here, first);
    install(here, plan([box('10.1.0.0/24', '10.5.0.0/24')], { tunnel: 'gone', table: 7701 }));
    here.network.deleteLink(here.device);
    const next = { ...here, routing: new PolicyRouting(here.network), device: here.network.addLink('stun', 1400) };
    next.routing.reconcile([first]);
    expect(way(next, '10.5.0.9', { source: LAN })).toBe('eth0');
    expect(way(next, '10.2.0.9', { source: LAN, ipProtocol: UDP })).toBe('none');
    install(next, plan([box('10.1.0.0/24', '10.3.0.0/24')]));
    expect(way(next, '10.2.0.9', { source: LAN, ipProtocol: UDP })).toBe('eth0');
    expect(way(next, '10.3.0.9', { source: LAN })).toBe('stun');
    next.routing.release('net');
    expect([next.network.rules(), next.network.routes()]).toEqual(before);
  });

  it('is nothing when the system refuses a part of it', () => {
    const here = host();
    const before = [here.network.rules(), here.network.routes()];
    here.network.addRules = () => {
      throw new Error('no rules today');
    };
    expect(() => here.routing.prepare(first, 'stun')).toThrow('no rules today');
    expect([here.network.rules(), here.network.routes()]).toEqual(before);
  });
});

const OWN = { address: address('10.1.0.0'), prefixLength: 30 };

/** What the host itself sends without a source, where it has no address that the policy lets in. */
describe('what has no source and can get none', () => {
  it('is refused, and nothing else is: not what is bound, nor forwarded, nor for elsewhere', () => {
    const here = host();
    install(here, plan([box('10.9.0.0/24', '10.2.0.0/24')]));
    expect([way(here, '10.2.0.9'), way(here, '10.3.0.9')]).toEqual(['none', 'eth0']);
    expect(way(here, '10.2.0.9', { source: HERE })).toBe('eth0');
    expect(way(here, '10.2.0.9', { source: address('10.9.0.7'), inputLinkIndex: here.lan })).toBe('stun');
    expect(here.routing.lacks('net')[0]).toEqual(
      expect.stringMatching(
        /^this host has no address in 10\.9\.0\.0\/24: its own packets to 10\.2\.0\.0\/24 are refused/,
      ),
    );
  });

  it('is refused by protocol and ports where the policy has them', () => {
    const here = host();
    const remotePorts = port(1000, 65_535);
    install(
      here,
      plan([
        box('10.9.0.0/24', '10.2.0.0/24', { protocol: UDP, remotePorts }),
        box('10.8.0.0/24', '10.2.0.0/24', { protocol: TCP }),
      ]),
    );
    const to = (ipProtocol: number, destinationPort: number): string =>
      way(here, '10.2.0.9', { ipProtocol, destinationPort });
    expect([to(UDP, 999), to(UDP, 1000), to(UDP, 65_535)]).toEqual(['eth0', 'none', 'none']);
    expect([to(TCP, 9), to(1, 0)]).toEqual(['none', 'eth0']);
  });

  it('is routed over IPv6 to where no source is found', () => {
    const here = host();
    install(here, plan([box('fd09::/64', 'fd02::/64')]));
    expect(here.network.routeTo({ destination: address('fd02::9') })?.linkIndex).toBe(here.device);
    expect(here.network.routes({ table: 7700 }).map(({ source }) => source)).toEqual([undefined, undefined]);
    expect(way(here, 'fd02::9', { source: LAN6 })).toBe('eth0');
    expect(way(here, 'fd02::9', { source: address('fd09::7'), inputLinkIndex: here.lan })).toBe('stun');
  });

  it('goes in the clear where the policy says so of an address that the host has', () => {
    const own = box('192.0.2.0/24', '10.2.0.0/24', { action: 'bypass', child: undefined });
    const protectedOne = box('10.9.0.0/24', '10.2.0.0/24');
    for (const boxes of [
      [own, protectedOne],
      [protectedOne, own],
    ]) {
      const here = host();
      install(here, plan(boxes));
      expect([way(here, '10.2.0.9'), here.routing.lacks('net')]).toEqual(['eth0', []]);
    }
  });

  it('gets a source of another entry for the same destination', () => {
    const here = host();
    install(here, plan([box('10.9.0.0/24', '10.2.0.0/24'), box('10.1.0.0/24', '10.2.0.0/23')]));
    expect(here.network.routeTo({ destination: address('10.2.0.9') })).toMatchObject({
      source: LAN,
      linkIndex: here.device,
    });
    expect(here.routing.lacks('net')).toEqual([]);
  });

  it('is let go where the entry protects only if possible', () => {
    const here = host();
    install(here, plan([box('10.9.0.0/24', '10.2.0.0/24', { level: 'use' })]));
    expect([way(here, '10.2.0.9'), here.routing.lacks('net')]).toEqual(['eth0', []]);
  });

  it('is routed into the device with all else that the host sends there, where the destinations are very many', () => {
    const here = host();
    const many = Array.from({ length: 100 }, (_, at) => box('10.9.0.0/24', `10.${2 * at + 10}.0.0/24`));
    install(here, plan(many));
    expect(here.network.rules(4).length).toBeLessThan(10);
    expect([way(here, '10.10.0.9'), way(here, '10.208.0.9', { source: HERE })]).toEqual(['stun', 'stun']);
    expect(way(here, '10.11.0.9')).toBe('eth0');
    expect(here.routing.lacks('net')[0]).toMatch(/ and 96 more are refused/);
  });

  it('has its place in the block from the start: no change of addresses reaches into that of another tunnel', async () => {
    const here = host();
    const entries = (local: string): PolicyBox[] => [
      box(local, '10.2.0.0/24', { protocol: UDP, remotePorts: port(1000, 65_535) }),
      box(local, '10.2.0.0/24', { protocol: TCP }),
    ];
    const priorities = (owner: number): number[] =>
      here.network.rules(4).flatMap((rule) => (ownerOf(rule) === owner ? [rule.priority] : []));
    const apart = (): boolean => Math.max(...priorities(7700)) < Math.min(...priorities(7701));
    const added = { linkIndex: here.lan, address: address('10.9.0.1'), prefixLength: 24 };
    here.network.addAddress(added);
    install(here, plan(entries('10.9.0.0/24')));
    here.routing.prepare(plan(entries('10.1.0.0/24'), { tunnel: 'other', table: 7701 }), 'other0');
    expect(apart()).toBe(true);
    for (const change of ['deleteAddress', 'addAddress'] as const) {
      here.network[change](added);
      await here.routing.mend();
      expect(apart()).toBe(true);
    }
  });
});

describe('what several tunnels are for', () => {
  const LOCAL = '10.1.0.0/24';
  const policyOf = (remote: string): PolicyEntry => ({
    ...{ name: remote, direction: 'out', action: 'protect', priority: 0, level: 'require', child: 'c' },
    selectors: { local: [makeSelector(range(LOCAL))], remote: [makeSelector(range(remote))] },
  });

  /** A host whose tunnels are started in the order of their names. */
  function several(
    remotes: Readonly<Record<string, string>>,
  ): { start(tunnel: string): void; order: TunnelOrder; way(to: string): string; stop(tunnel: string): void } & Host {
    const order = new TunnelOrder();
    const { network, ...rest } = host();
    const routing = new PolicyRouting(network, order);
    const tables = Object.keys(remotes);
    return {
      ...{ ...rest, network, routing, order },
      start(tunnel) {
        const claims = claimsOf([policyOf(remotes[tunnel]!)]);
        const redundancy = tunnel.startsWith('r') ? { group: 'g', preference: 1 } : undefined;
        order.set({ tunnel, device: tunnel, claims, redundancy });
        const device = network.addLink(tunnel, 1400);
        network.setLink(device, { up: true });
        routing.prepare(
          plan([box(LOCAL, remotes[tunnel]!)], { tunnel, table: 7700 + tables.indexOf(tunnel), claims }),
          tunnel,
        );
        routing.open(tunnel, device);
      },
      stop(tunnel) {
        routing.release(tunnel);
        order.delete(tunnel);
      },
      way: (to) => way({ ...rest, network, routing }, to, { source: LAN }),
    };
  }

  it('is routed into the more specific one, whichever was started first, and nowhere else while that is installed', () => {
    const remotes = { all: '0.0.0.0/0', net: '10.2.0.0/24', host: '10.2.0.9/32' };
    const names = ['all', 'net', 'host'];
    for (const order of [names, names.toReversed(), ['net', 'all', 'host'], ['host', 'all', 'net']]) {
      const here = several(remotes);
      for (const each of order) here.start(each);
      const ways = (): string[] => ['10.2.0.9', '10.2.0.7', '10.9.0.1'].map((to) => here.way(to));
      expect(ways()).toEqual(['host', 'net', 'all']);
      here.network.deleteLink(here.network.link('host')!.index);
      expect(ways()).toEqual(['none', 'net', 'all']);
      here.stop('host');
      expect(ways()).toEqual(['net', 'net', 'all']);
      here.stop('net');
      expect(ways()).toEqual(['all', 'all', 'all']);
    }
  });

  it('goes by the one of a redundancy group that has an SA', () => {
    const here = several({ r1: '10.2.0.0/24', r2: '10.2.0.0/24', r3: '10.2.0.0/24' });
    for (const each of ['r1', 'r2', 'r3']) here.start(each);
    const up = (tunnel: string, names: readonly string[]): string => {
      here.routing.setUp(tunnel, new Set(names));
      return here.way('10.2.0.9');
    };
    expect(here.way('10.2.0.9')).toBe('r1');
    expect([up('r3', ['c']), up('r2', ['c']), up('r3', []), up('r2', []), up('r1', ['c'])]).toEqual([
      'r3',
      'r2',
      'r2',
      'r1',
      'r1',
    ]);
    expect(here.network.rules().filter((rule) => ownerOf(rule) === 7700)).toHaveLength(2);
  });
});

describe('what comes in by a bridge', () => {
  it('is routed into a table and nowhere else, until that is undone or the bridge forgotten', () => {
    const { network, routing } = host();
    const before = network.rules();
    const undo = routing.routeBridge('virbr9', [], { tunnel: 'net', table: 7700 });
    routing.routeBridge('virbr8', [OWN], { tunnel: 'other', table: 7701 });
    const rules = network.rules(6).filter(({ inputLink }) => inputLink === 'virbr9');
    expect(rules.map(({ action }) => action)).toEqual([{ type: 'table', table: 7700 }, { type: 'unreachable' }]);
    // Another daemon, after a crash, routes it elsewhere.
    const again = new PolicyRouting(network).routeBridge('virbr9', [], { tunnel: 'third', table: 7702 });
    expect(network.rules(4).flatMap(({ action }) => (action.type === 'table' ? [action.table] : []))).not.toContain(
      7700,
    );
    again();
    undo();
    expect(network.rules().filter(({ inputLink }) => inputLink === 'virbr9')).toEqual([]);
    expect(network.rules(4).filter(({ to }) => samePrefix(to, OWN))).toMatchObject([
      { priority: 6992, action: { type: 'table', table: 254 } },
    ]);
    new PolicyRouting(network).forgetBridges();
    expect(network.rules()).toEqual(before);
  });

  it('gives its own networks to no tunnel, and the host no address of its guests', () => {
    const all = plan([box('10.1.0.0/24', '0.0.0.0/0')]);
    const plain = host();
    install(plain, all);
    expect([way(plain, '10.1.0.9', { source: LAN }), way(plain, '198.51.100.1')]).toEqual(['stun', 'stun']);
    const here = host();
    here.routing.routeBridge('lan0', [{ address: address('10.1.0.0'), prefixLength: 24 }], {
      tunnel: 'net',
      table: 7700,
    });
    install(here, all);
    expect(way(here, '10.1.0.9', { source: LAN })).toBe('lan0');
    expect(way(here, '198.51.100.1', { source: LAN })).toBe('stun');
    expect(way(here, '198.51.100.1')).toBe('eth0');
  });
});
