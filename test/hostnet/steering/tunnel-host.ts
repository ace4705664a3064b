/** A host in memory with tunnels, and what plans of these are made of. */
import { type AddressRange, type IpAddress, parseAddress, prefixRange } from '../../../src/base/address.ts';
import { MemoryHostNetwork } from '../../../src/hostnet/routes/memory.ts';
import type { RouteQuery } from '../../../src/hostnet/routes/routes.ts';
import { routeKey } from '../../../src/hostnet/steering/compare.ts';
import type { PolicyBox, RoutingPlan } from '../../../src/hostnet/steering/plan.ts';
import { PolicyRouting } from '../../../src/hostnet/steering/policy-routing.ts';
import { TunnelOrder } from '../../../src/hostnet/steering/tunnel-order.ts';
import type { PolicyEntry } from '../../../src/policy/database.ts';
import { claimsOf } from '../../../src/policy/precedence.ts';
import { makeSelector } from '../../../src/policy/selector.ts';

export function address(text: string): IpAddress {
  return parseAddress(text)!;
}

export const LAN: IpAddress = address('10.1.0.1');
export const OTHER: IpAddress = address('10.9.0.1');
export const GUEST: IpAddress = address('10.1.0.77');

function range(text: string): AddressRange {
  const [start, length] = text.split('/');
  return prefixRange(address(start!), Number(length));
}

export function box(local: string, remote: string, change: Partial<PolicyBox> = {}): PolicyBox {
  return { action: 'protect', level: 'require', child: 'c', local: range(local), remote: range(remote), ...change };
}

function entryOf(each: PolicyBox): PolicyEntry {
  const { local, remote, action, level } = each;
  return {
    name: 'p',
    direction: 'out',
    action,
    level,
    priority: 0,
    selectors: { local: [makeSelector(local)], remote: [makeSelector(remote)] },
  } as unknown as PolicyEntry;
}

export function planOf(tunnel: string, outbound: readonly PolicyBox[], change: Partial<RoutingPlan> = {}): RoutingPlan {
  return {
    tunnel,
    table: undefined,
    claims: claimsOf(outbound.map(entryOf)),
    redundancy: undefined,
    own: { peer: address('198.51.100.7'), ports: [500, 4500], peerPorts: [500, 4500] },
    outbound,
    inbound: outbound,
    host: undefined,
    ...change,
  };
}

/** A host that routes by default out of `eth0`. */
export class Host {
  readonly network: MemoryHostNetwork;
  readonly order: TunnelOrder = new TunnelOrder();
  readonly routing: PolicyRouting;
  readonly lan: number;

  constructor(network?: MemoryHostNetwork, lan = 0) {
    this.network = network ?? new MemoryHostNetwork();
    this.routing = new PolicyRouting(this.network, this.order);
    this.lan = lan;
    if (network !== undefined) return;
    const line = this.network.addLink('eth0', 1500);
    this.lan = this.network.addLink('lan0', 1500);
    this.network.addAddress({ linkIndex: line, address: address('192.0.2.1'), prefixLength: 24 });
    for (const own of [LAN, OTHER]) {
      this.network.addAddress({ linkIndex: this.lan, address: own, prefixLength: 24 });
    }
    const destination = { address: address('0.0.0.0'), prefixLength: 0 };
    this.network.addRoutes([{ type: 'unicast', destination, gateway: address('192.0.2.254'), linkIndex: line }]);
  }

  plan(tunnel: string, outbound: readonly PolicyBox[], change: Partial<RoutingPlan> = {}): RoutingPlan {
    return planOf(tunnel, outbound, change);
  }

  start(plan: RoutingPlan, device: string = plan.tunnel): void {
    const { tunnel, claims, redundancy } = plan;
    this.order.set({ tunnel, device, claims, redundancy });
    this.routing.prepare(plan, device);
    const known = this.network.link(device);
    const index = known?.index ?? this.network.addLink(device, 1400);
    this.network.setLink(index, { up: true });
    this.routing.open(tunnel, index);
  }

  stop(tunnel: string): void {
    this.routing.release(tunnel);
    this.order.delete(tunnel);
  }

  way(destination: string, query: Partial<RouteQuery> = { source: GUEST, inputLinkIndex: this.lan }): string {
    const answer = this.network.routeTo({ destination: address(destination), ...query });
    return answer === undefined ? 'none' : this.network.link(answer.linkIndex)!.name;
  }

  get state(): unknown[] {
    // A route that was put back stands behind others.
    const keys = this.network.routes().map((route) => `${route.table} ${route.linkIndex} ${routeKey(route)}`);
    return [this.network.rules(), keys.sort()];
  }
}
