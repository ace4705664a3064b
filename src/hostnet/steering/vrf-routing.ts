/**
 * Routes packets of VRFs into the devices of tunnels: by routes in the table of the VRF, which the kernel's own rule leads packets of
 * the domain to. There are no rules: those for a VRF (`iif`, `oif`) are not applied to its packets by Linux 5.18 to 6.14. So the
 * destination decides, and the policy in the device drops what it does not protect.
 *
 * Routes of others stand in the same table. Ours are put before those for the same destination, and with the same destination no two
 * tunnels of a VRF can have one.
 */
import { formatAddress } from '../../base/address.ts';
import { SectunnelError } from '../../base/error.ts';
import { ELSEWHERE, type LookScope } from '../fence/fence.ts';
import {
  DEVICE_GROUP,
  describeRoute,
  formatPrefix,
  type HostNetwork,
  type InstalledRoute,
  type Link,
  type NetworkChange,
  OWN_PROTOCOL,
  type Prefix,
  prefixContains,
  type Route,
} from '../routes/routes.ts';
import { compareRoutes, routeKey } from './compare.ts';
import { TableMember } from './member.ts';
import { keepInDomain, type OwnDomain, ownDomain, wantDomain } from './own-domain.ts';
import type { RoutingPlan } from './plan.ts';
import { NO_ADDRESSES } from './sources.ts';

/** A plan for packets of a VRF. */
export type VrfPlan = RoutingPlan & { readonly vrf: string };

export function isForVrf(plan: RoutingPlan): plan is VrfPlan {
  return plan.vrf !== undefined;
}

/** What was found of a tunnel. */
export interface VrfMended {
  readonly tunnel: string;
  /** What was put right, in words. */
  readonly found: readonly string[];
  /** What followed a change of the addresses, in words. */
  readonly addresses: string | undefined;
  /** What is still wrong. */
  readonly problems: readonly string[];
}

interface Member {
  readonly vrf: string;
  readonly member: TableMember;
}

export class VrfRouting {
  readonly #network: HostNetwork;
  readonly #guests: () => readonly Prefix[];
  /** By tunnel. BOUNDED: by the tunnels. */
  readonly #members = new Map<string, Member>();
  /** By VRF and destination, the tunnel that has it. BOUNDED: by the routes of the tunnels. */
  readonly #destinations = new Map<string, string>();
  /** By table. BOUNDED: by the VRFs that tunnels were in. */
  readonly #vrfs = new Map<number, string>();
  /** Tunnels of which something may not be as wanted; or all. */
  readonly #suspects = new Set<string>();
  #all = false;

  /** @param guests networks of routed bridges */
  constructor(network: HostNetwork, guests: () => readonly Prefix[]) {
    this.#network = network;
    this.#guests = guests;
  }

  has(tunnel: string): boolean {
    return this.#members.has(tunnel);
  }

  tableOf(tunnel: string): number | undefined {
    return this.#members.get(tunnel)?.member.table;
  }

  lacks(tunnel: string): readonly string[] {
    return [this.#members.get(tunnel)?.member.unserved].filter((text) => text !== undefined);
  }

  /**
   * Installs routes that refuse, in place of what the tunnel has in a VRF.
   * @throws Error when there is no such VRF, or the system refuses; then nothing of the tunnel is installed
   */
  prepare(plan: VrfPlan, device: string): void {
    const { tunnel, vrf } = plan;
    const { mainTable, own } = wantDomain(this.#network, vrf, this.#guests());
    const member = new TableMember(plan, { device, table: mainTable }, own);
    checkPeer(vrf, member);
    this.#checkDestinations(vrf, member);
    const former = this.#members.get(tunnel);
    try {
      this.#network.addRoutes(member.closedRoutes);
    } catch (error) {
      this.release(tunnel);
      this.#network.deleteRoutes(member.closedRoutes);
      throw error;
    }
    if (former !== undefined) this.#remove(former, new Set(member.closedRoutes.map((route) => keyIn(route))));
    this.#forget(tunnel);
    this.#members.set(tunnel, { vrf, member });
    this.#vrfs.set(mainTable, vrf);
    for (const { destination } of member.routes) this.#destinations.set(destinationKey(vrf, destination), tunnel);
  }

  #checkDestinations(vrf: string, { plan, routes }: TableMember): void {
    for (const { destination } of routes) {
      const other = this.#destinations.get(destinationKey(vrf, destination));
      if (other === undefined || other === plan.tunnel) continue;
      throw new SectunnelError(
        'system',
        `in the VRF ${vrf} tunnel ${other} has the route to ${formatPrefix(destination)} already: there the destination alone decides which tunnel carries a packet; ` +
          'put one of the two into another VRF, or leave the destination out of its policy',
      );
    }
  }

  /** Routes into the device, which is up. @throws Error when the system refuses */
  open(tunnel: string, linkIndex: number): void {
    const found = this.#members.get(tunnel);
    if (found === undefined) throw new Error(`bug: the device of ${tunnel} has no routes`);
    this.#network.setLink(linkIndex, { group: DEVICE_GROUP });
    found.member.setLink(linkIndex);
    this.#network.addRoutes(found.member.openRoutes);
  }

  /** @param plan by which an earlier daemon may have left something. @throws Error when the system refuses */
  release(tunnel: string, plan?: RoutingPlan): void {
    const found = this.#members.get(tunnel);
    if (found !== undefined) this.#remove(found, new Set());
    else if (plan !== undefined && isForVrf(plan)) this.#removeLeft(plan);
    this.#forget(tunnel);
  }

  #remove({ member }: Member, kept: ReadonlySet<string>): void {
    const routes = [...member.openRoutes, ...member.closedRoutes];
    this.#network.deleteRoutes(routes.filter((route) => !kept.has(keyIn(route))));
  }

  #removeLeft(plan: VrfPlan): void {
    const domain = ownDomain(this.#network, plan.vrf, []);
    if (domain === undefined) return;
    const { closedRoutes } = new TableMember(plan, { device: '', table: domain.mainTable }, NO_ADDRESSES);
    this.#network.deleteRoutes(closedRoutes);
  }

  #forget(tunnel: string): void {
    const found = this.#members.get(tunnel);
    this.#members.delete(tunnel);
    for (const { destination } of found?.member.routes ?? [])
      this.#destinations.delete(destinationKey(found!.vrf, destination));
  }

  /** Removes what an earlier daemon left in VRFs, except for tunnels with these plans. */
  reconcile(plans: readonly VrfPlan[]): void {
    for (const { name, table } of this.#network.vrfs()) {
      const members = [...this.#members.values()].filter(({ vrf }) => vrf === name).map(({ member }) => member);
      const left = plans
        .filter(({ vrf }) => vrf === name)
        .map((plan) => new TableMember(plan, { device: '', table }, NO_ADDRESSES));
      const routes = [...members, ...left].flatMap((member) => [...member.closedRoutes, ...member.openRoutes]);
      const kept = new Set(routes.map(routeKey));
      this.#network.deleteRoutes(this.#standing(table).filter((route) => !kept.has(routeKey(route))));
    }
  }

  /** Whether a reported change may concern what is wanted here. The links of a VRF, and their addresses, come and go. */
  heard(change: NetworkChange): boolean {
    if (this.#members.size === 0 || change.kind === 'rule') return false;
    const [before, all] = [this.#suspects.size, this.#all];
    if (change.kind === 'route') this.#heardRoute(change.route, change.gone);
    else if (change.kind === 'link') this.#heardLink(change.link);
    else this.#all = true;
    return this.#suspects.size > before || this.#all !== all;
  }

  #heardRoute({ table, protocol, destination }: InstalledRoute, gone: boolean): void {
    const vrf = this.#vrfs.get(table);
    const tunnel = vrf && this.#destinations.get(destinationKey(vrf, destination));
    if (tunnel !== undefined && gone && protocol === OWN_PROTOCOL) this.#suspects.add(tunnel);
  }

  /** A device of a tunnel concerns that tunnel, a VRF or another link of one all tunnels there. */
  #heardLink({ index, name, master, group }: Link): void {
    const vrfs = new Set(this.#vrfs.values());
    const own = [...this.#members].filter(([, { member }]) => member.linkIndex === index);
    for (const [tunnel] of own) this.#suspects.add(tunnel);
    if (own.length > 0) return;
    if (vrfs.has(name) || (master !== undefined && group !== DEVICE_GROUP)) this.#all = true;
  }

  /** Compares devices and routes with what is wanted, and puts right what differs. @throws Error */
  mend(scope: LookScope): VrfMended[] {
    const due = [...this.#members].filter(
      ([tunnel]) => scope === 'everything' || this.#all || this.#suspects.has(tunnel),
    );
    this.#all = false;
    this.#suspects.clear();
    // BOUNDED: by the VRFs of tunnels.
    const domains = new Map<string, OwnDomain | undefined>();
    const standing = new Map<number, readonly InstalledRoute[]>();
    return due.map(([tunnel, { vrf, member }]) => {
      if (!domains.has(vrf)) domains.set(vrf, ownDomain(this.#network, vrf, this.#guests()));
      const domain = domains.get(vrf);
      const found: string[] = [];
      const problems = keepInDomain(this.#network, this.#linkOf(member), { vrf, domain }, (what) => found.push(what));
      if (domain === undefined) return { tunnel, found, problems, addresses: undefined };
      const link = this.#linkOf(member);
      if (link !== undefined && !link.up) {
        problems.push(`the device ${link.name} is down, so no packet is routed into it: ip link set ${link.name} up`);
      }
      const addresses = member.setAddresses(domain.own);
      const installed = standing.get(member.table) ?? this.#standing(member.table);
      standing.set(member.table, installed);
      const wanted = [...member.closedRoutes, ...(link?.up === true ? member.openRoutes : [])];
      const { missing } = compareRoutes(wanted, installed);
      this.#network.addRoutes(missing);
      if (addresses === undefined) found.push(...missing.map((route) => `${describeRoute(route)}: missing`));
      return { tunnel, found, addresses, problems: [...problems, ...this.lacks(tunnel)] };
    });
  }

  #standing(table: number): readonly InstalledRoute[] {
    return this.#network.routes({ table, protocol: OWN_PROTOCOL });
  }

  #linkOf({ linkIndex }: TableMember): Link | undefined {
    return linkIndex === undefined ? undefined : this.#network.link(linkIndex);
  }
}

/** Routes know no exceptions: the tunnel's own packets would be led into it. @throws SectunnelError */
function checkPeer(vrf: string, { plan, routes }: TableMember): void {
  const { own } = plan;
  if (own === ELSEWHERE || own.peer === undefined) return;
  const around = routes.find(({ destination }) => prefixContains(destination, own.peer!));
  if (around === undefined) return;
  throw new SectunnelError(
    'system',
    `the peer ${formatAddress(own.peer)} lies within ${formatPrefix(around.destination)}, which the tunnel protects in the same VRF, ${vrf}: give <sa> or <device> another VRF, or leave the peer's address out of the policy`,
  );
}

function destinationKey(vrf: string, destination: Prefix): string {
  return `${vrf} ${formatPrefix(destination)}`;
}

function keyIn(route: Route): string {
  return `${route.table} ${routeKey(route)}`;
}
