/** Where packets that came out of a tunnel may go on while the network behind the gateway has no route of its own. */
import { beforeEach, describe, expect, it } from 'vitest';
import {
  type AddressRange,
  formatAddress,
  type IpAddress,
  parseAddress,
  prefixRange,
} from '../../../src/base/address.ts';
import { MemoryHostNetwork } from '../../../src/hostnet/routes/memory.ts';
import { MAIN_TABLE, OWN_PROTOCOL, type Prefix } from '../../../src/hostnet/routes/routes.ts';
import { formatRule } from '../../../src/hostnet/routes/seen-rules.ts';
import type { PolicyBox, RoutingPlan } from '../../../src/hostnet/steering/plan.ts';
import { PolicyRouting } from '../../../src/hostnet/steering/policy-routing.ts';
import { claimsOf } from '../../../src/policy/precedence.ts';

const address = (text: string): IpAddress => parseAddress(text)!;

function prefix(text: string): Prefix {
  const [first, length] = text.split('/');
  return { address: address(first!), prefixLength: Number(length) };
}

function range(text: string): AddressRange {
  const [first, last] = text.split('-');
  if (last !== undefined) return { start: address(first!), end: address(last) };
  const { address: start, prefixLength } = prefix(text);
  return prefixRange(start, prefixLength);
}

function plan(
  locals: readonly string[],
  change: Partial<RoutingPlan> = {},
  level: PolicyBox['level'] = 'require',
): RoutingPlan {
  const boxes = locals.map((local): PolicyBox => {
    const remote = range(local.includes(':') ? 'fd02::/64' : '10.2.0.0/24');
    return { action: 'protect', level, child: 'c', local: range(local), remote };
  });
  return {
    tunnel: 'net',
    claims: claimsOf([]),
    redundancy: undefined,
    table: 7700,
    own: { peer: address('192.0.2.2'), ports: [500, 4500], peerPorts: [500, 4500] },
    outbound: boxes,
    inbound: boxes,
    host: undefined,
    ...change,
  };
}

const BY_ADMINISTRATOR = 4;

class Host {
  readonly network = new MemoryHostNetwork();
  readonly routing = new PolicyRouting(this.network);
  readonly wan = this.network.addLink('eth0', 1500);
  readonly lan = this.network.addLink('lan0', 1500);
  readonly vlan = this.network.addLink('lan0.10', 1500);
  readonly device = this.network.addLink('stun', 1400);

  constructor() {
    this.network.setLink(this.device, { up: true });
    for (const text of ['192.0.2.1/24', '2001:db8::1/64']) this.address(text, this.wan);
    for (const text of ['10.1.0.1/24', 'fd01::1/64']) this.address(text, this.lan);
    for (const [to, gateway] of [
      ['0.0.0.0/0', '192.0.2.254'],
      ['::/0', '2001:db8::fe'],
    ] as const)
      this.route(to, gateway, this.wan);
  }

  address(text: string, linkIndex: number): void {
    this.network.addAddress({ linkIndex, ...prefix(text) });
  }

  /** The address goes, and the route with it. */
  lose(text: string, linkIndex = this.lan): void {
    this.network.deleteAddress({ linkIndex, ...prefix(text) });
  }

  route(to: string, gateway: string, linkIndex: number): void {
    const route = { destination: prefix(to), gateway: address(gateway), linkIndex, table: MAIN_TABLE, metric: 1 };
    this.network.put({ route: { type: 'unicast', ...route, protocol: BY_ADMINISTRATOR } });
  }

  unroute(to: string): void {
    const { prefixLength } = prefix(to);
    const first = formatAddress(prefix(to).address);
    const isThat = ({ destination }: { destination: Prefix }): boolean =>
      destination.prefixLength === prefixLength && formatAddress(destination.address) === first;
    this.network.take({ route: isThat });
  }

  install(wanted: RoutingPlan, routing = this.routing): void {
    routing.prepare(wanted, 'stun');
    routing.open(wanted.tunnel, this.device);
  }

  /** By which link a packet out of the tunnel, or one by another link, goes on. */
  onward(destination: string, inputLinkIndex = this.device): string {
    const to = address(destination);
    const source = address(to.family === 4 ? '10.2.0.9' : 'fd02::9');
    const answer = this.network.routeTo({ destination: to, source, inputLinkIndex });
    return answer === undefined ? 'refused' : this.network.link(answer.linkIndex)!.name;
  }

  /** As `ip rule` prints them, those for what comes out of tunnels. */
  get guards(): string[] {
    return this.network
      .rules()
      .filter(({ priority }) => priority >= 32_764 && priority < 32_766)
      .map(formatRule)
      .sort();
  }
}

describe('a packet out of a tunnel', () => {
  let host: Host;
  beforeEach(() => {
    host = new Host();
  });

  it('goes by the route of its network, and by no other once that is gone', () => {
    host.install(plan(['10.1.0.0/24', 'fd01::/64']));
    expect(host.guards).toEqual([
      '32764: from all to 10.1.0.0/24 iif stun lookup main suppress_prefixlength 0',
      '32764: from all to fd01::/64 iif stun lookup main suppress_prefixlength 0',
      '32765: from all to 10.1.0.0/24 iif stun unreachable',
      '32765: from all to fd01::/64 iif stun unreachable',
    ]);
    expect([host.onward('10.1.0.7'), host.onward('fd01::7')]).toEqual(['lan0', 'lan0']);
    for (const text of ['10.1.0.1/24', 'fd01::1/64']) host.lose(text);
    expect([host.onward('10.1.0.7'), host.onward('fd01::7')]).toEqual(['refused', 'refused']);
    // Nobody else's packets are concerned, and no other of the tunnel's.
    expect([host.onward('10.1.0.7', host.vlan), host.onward('10.3.0.7'), host.onward('fd03::7')]).toEqual(
      Array(3).fill('eth0'),
    );
  });

  it('is told of while it is refused, with all networks that it is for', async () => {
    host.install(plan(['10.1.0.0/24', 'fd01::/64']));
    expect(host.routing.lacks('net')).toEqual([]);
    for (const text of ['10.1.0.1/24', 'fd01::1/64']) host.lose(text);
    const { problems, found } = await host.routing.mend();
    expect(problems.get('net')!.at(-1)).toMatch(
      /^packets out of the tunnel for 10\.1\.0\.0\/24, fd01::\/64 are refused, as they have no route any more .*: bring their link/,
    );
    host.address('10.1.0.1/24', host.vlan);
    host.address('fd01::1/64', host.vlan);
    expect([host.onward('10.1.0.7'), host.onward('fd01::7')]).toEqual(['lan0.10', 'lan0.10']);
    expect([(await host.routing.mend()).problems.get('net'), found]).toEqual([[], []]);
  });

  it('may go by a wider route that is not for everything', async () => {
    host.address('10.1.5.1/24', host.vlan);
    host.route('10.1.0.0/16', '10.1.0.254', host.lan);
    host.install(plan(['10.1.0.0/16']));
    host.lose('10.1.5.1/24', host.vlan);
    expect(host.onward('10.1.5.7')).toBe('lan0');
    await host.routing.mend();
    expect(host.routing.lacks('net')).toEqual([]);
    host.unroute('10.1.0.0/16');
    expect([host.onward('10.1.5.7'), host.onward('10.1.0.7')]).toEqual(['refused', 'lan0']);
  });

  it('does not go by a route that the way to the peer takes', () => {
    host.route('10.0.0.0/8', '192.0.2.250', host.wan);
    host.install(plan(['10.1.0.0/24'], { own: { peer: address('10.99.0.1'), ports: [500], peerPorts: [500] } }));
    expect(host.guards).toContain('32764: from all to 10.1.0.0/24 iif stun lookup main suppress_prefixlength 8');
    host.lose('10.1.0.1/24');
    expect(host.onward('10.1.0.7')).toBe('refused');
  });

  it('goes by the default route where its network has always been reached that way, and from a policy for everything', () => {
    for (const locals of [['10.9.0.0/24'], ['0.0.0.0/0', '::/0']]) {
      host.install(plan(locals));
      expect(host.guards).toEqual([]);
      expect(host.onward('10.9.0.7')).toBe('eth0');
    }
    host.install(plan(['10.1.0.0/24'], {}, 'use'));
    expect(host.guards).toEqual([]);
  });

  it('goes by the networks that have a route, of those that the policy names', () => {
    host.address('10.3.0.1/16', host.vlan);
    host.install(plan(['10.1.0.0/25', '10.3.4.0/24', '10.3.6.1-10.3.6.2', '10.9.0.0/24']));
    const guarded = host.guards
      .filter((rule) => rule.endsWith('unreachable'))
      .map((rule) => / to (\S+)/.exec(rule)![1]);
    expect(guarded).toEqual(['10.1.0.0/25', '10.3.4.0/24', '10.3.6.1/32', '10.3.6.2/32']);
    host.lose('10.3.0.1/16', host.vlan);
    const to = ['10.1.0.7', '10.3.4.7', '10.3.6.2', '10.3.5.7', '10.9.0.7'];
    expect(to.map((one) => host.onward(one))).toEqual(['lan0', 'refused', 'refused', 'eth0', 'eth0']);
  });

  it('is not guarded where it is for the host itself, nor in more networks than the rules should be', async () => {
    host.install(plan(['10.1.0.1/32']));
    expect(host.guards).toEqual([]);
    for (let at = 0; at < 40; at++) host.route(`10.5.${at}.0/24`, '10.1.0.254', host.lan);
    host.install(plan(['10.5.0.0/16']));
    expect(host.guards).toHaveLength(32);
    await host.routing.mend();
    expect(host.guards).toHaveLength(32);
  });

  it('is guarded as soon as its network has a route, which is heard of', async () => {
    const heard: boolean[] = [];
    host.install(plan(['10.9.0.0/24']));
    host.network.watch((change) => heard.push(host.routing.heard(change)));
    host.route('10.8.0.0/24', '10.1.0.254', host.lan);
    host.route('10.9.0.0/25', '10.1.0.254', host.lan);
    host.address('10.9.0.200/26', host.vlan);
    expect(heard).toEqual([false, true, true]);
    const { adapted, found } = await host.routing.mend();
    expect([adapted.get('net')?.routes, found]).toEqual([
      'packets out of the tunnel reach 10.9.0.192/26, 10.9.0.0/25 by routes of these networks only, and never by the default route',
      [],
    ]);
    host.unroute('10.9.0.0/25');
    expect([host.onward('10.9.0.7'), host.onward('10.9.0.199'), host.onward('10.9.0.129')]).toEqual([
      'refused',
      'lan0.10',
      'eth0',
    ]);
    // A link goes with its routes, of which the kernel says nothing.
    host.network.deleteLink(host.vlan);
    expect(heard.at(-1)).toBe(true);
  });

  it('is guarded again after another program took a rule away, and is told of', async () => {
    host.install(plan(['10.1.0.0/24']));
    const before = host.guards;
    host.network.take({ rule: ({ priority }) => priority === 32_764 });
    expect((await host.routing.mend()).found).toEqual([expect.stringContaining('rule 32764: from all to 10.1.0.0/24')]);
    host.network.take({ rule: ({ protocol }) => protocol === OWN_PROTOCOL });
    expect((await host.routing.mend()).found.length).toBeGreaterThan(2);
    expect(host.guards).toEqual(before);
  });

  it('stays guarded over a change of the policy and for the next daemon, as far as the policy has the network', () => {
    host.address('10.3.0.1/24', host.vlan);
    host.install(plan(['10.1.0.0/24', '10.3.0.0/24']));
    host.lose('10.1.0.1/24');
    host.lose('10.3.0.1/24', host.vlan);
    host.install(plan(['10.1.0.0/24']), new PolicyRouting(host.network));
    expect([host.onward('10.1.0.7'), host.onward('10.3.0.7')]).toEqual(['refused', 'eth0']);
    expect(host.guards).toHaveLength(2);
  });

  it('of another tunnel keeps its own, and what is taken away leaves nothing', () => {
    const other = host.network.addLink('stun2', 1400);
    host.network.setLink(other, { up: true });
    host.install(plan(['10.1.0.0/24']));
    host.routing.prepare(plan(['10.1.0.0/24'], { tunnel: 'two', table: 7701 }), 'stun2');
    host.routing.release('net');
    expect(host.guards.map((rule) => rule.includes('iif stun2 '))).toEqual([true, true]);
    new PolicyRouting(host.network).reconcile([plan(['10.1.0.0/24'], { tunnel: 'two', table: 7701 })]);
    expect(host.guards).toHaveLength(2);
    host.network.take({ rule: ({ priority }) => priority === 32_765 });
    new PolicyRouting(host.network).reconcile([]);
    expect(host.network.rules().filter(({ protocol }) => protocol === OWN_PROTOCOL)).toEqual([]);
  });

  it('goes from tunnel to tunnel as before', () => {
    const other = host.network.addLink('stun2', 1400);
    host.network.setLink(other, { up: true });
    host.install(plan(['10.0.0.0/8']));
    const remote = range('10.7.0.0/24');
    const box: PolicyBox = { action: 'protect', level: 'require', child: 'c', local: range('10.2.0.0/24'), remote };
    host.routing.prepare(plan([], { tunnel: 'two', table: 7701, outbound: [box], inbound: [box] }), 'stun2');
    host.routing.open('two', other);
    const source = address('10.2.0.9');
    const answer = host.network.routeTo({ destination: address('10.7.0.7'), source, inputLinkIndex: host.device });
    expect(answer?.linkIndex).toBe(other);
    expect(host.onward('10.1.0.7')).toBe('lan0');
  });
});
