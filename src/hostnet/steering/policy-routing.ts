/**
 * Routes packets into the devices of tunnels: `rules.ts` says by which rules of policy routing, `table.ts` which tunnels share a
 * routing table. Behind the routes into the device stand others that refuse: without a device nothing that a policy protects
 * goes another way.
 *
 * Rules match addresses, protocol and ports, not marks of our sockets: incoming packets of the tunnel have none, and a
 * strict reverse path filter (rp_filter) would drop them. All rules and routes bear our protocol number, and rules the
 * number of their table: so a daemon finds what one before it left behind.
 */
import { setImmediate } from 'node:timers/promises';
import type { AddressRange } from '../../base/address.ts';
import { IKE_PORT } from '../../base/ports.ts';
import { Protocol } from '../../policy/protocols.ts';
import type { LookScope } from '../fence/fence.ts';
import { findDomain } from '../routes/domain.ts';
import {
  DEVICE_GROUP,
  type HostNetwork,
  type InterfaceAddress,
  type Link,
  type NetworkChange,
  type Prefix,
} from '../routes/routes.ts';
import { BridgeRouting } from './bridges.ts';
import { checkPlan } from './check.ts';
import { compareRules, routedFlows } from './compare.ts';
import type { TableMember } from './member.ts';
import { type Changer, listedRoutes, type Mended, mendRouting, type RoutesOf } from './mend.ts';
import { mainTableOf } from './onward-routes.ts';
import type { RoutingPlan, TableWish } from './plan.ts';
import { RuleBook } from './rule-book.ts';
import { isOfGuests, OwnAddresses } from './sources.ts';
import { type Suspected, Suspects } from './suspects.ts';
import type { RoutingTable } from './table.ts';
import { SteeringTables } from './tables.ts';
import { TunnelOrder } from './tunnel-order.ts';
import { isForVrf, VrfRouting } from './vrf-routing.ts';

/** A route is looked up as for IKE's own packets: a peer expects IKE on this port whatever a document says. */
export const OWN_QUERY: { readonly ipProtocol: number; readonly sourcePort: number } = {
  ipProtocol: Protocol.udp,
  sourcePort: IKE_PORT,
};

/** What others did to rules and routes. */
export interface RoutingDamage {
  /** What was put right, in words. */
  readonly found: readonly string[];
  /** What followed a change of the host's own addresses, or of its routes, by tunnel, in words. BOUNDED: by the tunnels. */
  readonly adapted: ReadonlyMap<string, Adapted>;
  /** What is still wrong, by tunnel: of each that was looked at, be it nothing. BOUNDED: by those. */
  readonly problems: ReadonlyMap<string, readonly string[]>;
}

export interface Adapted {
  readonly addresses: string | undefined;
  /** To the networks of packets out of the tunnel. */
  readonly routes: string | undefined;
}

/** Devices that are looked at before the event loop has its turn. */
const MEMBERS_PER_TURN = 25;

export class PolicyRouting {
  readonly #network: HostNetwork;
  readonly #order: TunnelOrder;
  readonly #rules: RuleBook;
  readonly #tables: SteeringTables;
  readonly #bridges: BridgeRouting;
  readonly #vrfs: VrfRouting;
  readonly #suspects: Suspects;
  readonly #changer: Changer;
  /** Of this host, while they are known by reports. */
  #known: readonly InterfaceAddress[] | undefined;

  /** @param order in which rules of tunnels stand */
  constructor(network: HostNetwork, order: TunnelOrder = new TunnelOrder()) {
    this.#network = network;
    this.#order = order;
    this.#rules = new RuleBook(network);
    this.#tables = new SteeringTables(network, this.#rules, order, () => this.#addresses());
    this.#bridges = new BridgeRouting(network);
    this.#vrfs = new VrfRouting(network, () => this.#bridges.guests());
    this.#suspects = new Suspects(this.#tables, this.#bridges);
    this.#changer = {
      rules: this.#rules,
      addRoutes: (routes) => network.addRoutes(routes),
      deleteRoutes: (routes) => network.deleteRoutes(routes),
    };
  }

  /**
   * Installs the rules that send packets to the tunnel's table, and the routes there that refuse. What is installed for the
   * same tunnel is replaced.
   *
   * @throws Error when the system refuses; then nothing of the tunnel is installed
   */
  prepare(plan: RoutingPlan, device: string): void {
    if (isForVrf(plan)) {
      this.#tables.release(plan.tunnel, undefined);
      this.#vrfs.prepare(plan, device);
      return;
    }
    this.#vrfs.release(plan.tunnel);
    const table = this.#tables.index.of(plan.tunnel);
    const isWatched = this.#rules.isFollowed && table !== undefined && !this.#suspects.has(table);
    if (isWatched && this.#tables.stands(plan, device)) return;
    checkPlan(plan, (number) => this.#tables.index.otherIn(number, plan, device), this.#network);
    this.#tables.add(plan, device);
  }

  /** Routes into the device, which is up. @throws Error when the system refuses */
  open(name: string, linkIndex: number): void {
    if (this.#vrfs.has(name)) this.#vrfs.open(name, linkIndex);
    else this.#tables.open(name, linkIndex);
  }

  /** The number of the table that packets of the tunnel are routed by. */
  tableOf(tunnel: string): number | undefined {
    return this.#tables.index.of(tunnel)?.number ?? this.#vrfs.tableOf(tunnel);
  }

  /** From now on `heard` is told all that the kernel reports: what is known of rules and addresses stays true. */
  follow(): void {
    this.#rules.follow();
    this.#known = undefined;
    for (const member of this.#tables.index.members()) member.linkLooked(this.#linkOf(member));
  }

  /** The kernel reports a change. @returns whether it concerns what is wanted here: then `mend` is due */
  heard(change: NetworkChange): boolean {
    if (change.kind === 'rule') this.#rules.heard(change.rule, change);
    if (change.kind === 'unknown') this.#rules.forget();
    if (change.kind === 'address' || change.kind === 'unknown') this.#known = undefined;
    // A link that goes into a VRF takes its addresses along, which are not reported.
    if (change.kind === 'link' && change.link.master !== undefined) this.#known = undefined;
    const isOfVrf = this.#vrfs.heard(change);
    return this.#suspects.heard(change) || isOfVrf;
  }

  /** What this host may send from changed, though no address was added or removed. */
  addressesChanged(): void {
    this.#suspects.addAll();
  }

  /**
   * Compares rules and routes with what is wanted, and puts right what differs; those of others stay.
   * @param scope `reported`: of tables that reports concern, by what was reported. @throws Error
   */
  async mend(scope: LookScope = 'everything'): Promise<RoutingDamage> {
    if (scope === 'everything') {
      this.#rules.forget();
      this.#known = undefined;
      this.#suspects.addAll();
    }
    const suspects = this.#suspects.take();
    try {
      return await this.#mendTables(suspects);
    } catch (error) {
      this.#suspects.addAll();
      throw error;
    }
  }

  /** @param suspects left out: everything */
  async #mendTables(suspects: Suspected | undefined): Promise<RoutingDamage> {
    const found: string[] = [];
    // BOUNDED: by the tunnels.
    const adapted = new Map<string, Adapted>();
    const problems = new Map<string, readonly string[]>();
    const own = this.#addresses();
    const main = mainTableOf(this.#network);
    const routesOf = listedRoutes(this.#network);
    let isRead = suspects === undefined;
    if (suspects === undefined) this.#tables.makeRoom();
    const add = (tunnel: string, texts: readonly string[]): void => {
      problems.set(tunnel, [...(problems.get(tunnel) ?? []), ...texts]);
    };
    for (const table of suspects?.tables ?? [...this.#tables.index.all()]) {
      const up = new Set<TableMember>();
      // Tunnels may share one.
      const links = new Map<number | undefined, Link | undefined>();
      for (const members of chunks([...table.members], MEMBERS_PER_TURN)) {
        for (const member of members) {
          if (table.member(member.plan.tunnel) !== member) continue;
          if (suspects !== undefined && member.isReportedUp) {
            up.add(member);
            continue;
          }
          const { linkIndex } = member;
          if (!links.has(linkIndex)) links.set(linkIndex, this.#linkOf(member));
          const link = links.get(linkIndex);
          if (!member.isOpening) member.linkLooked(link);
          if (link?.up === true) up.add(member);
          found.push(...this.#mendGroup(link));
          add(member.plan.tunnel, downText(link));
        }
        await setImmediate();
      }
      // It may have gone meanwhile, or another one come in its place.
      if (this.#tables.index.numbered(table.number) !== table) continue;
      const addresses = table.setAddresses(own);
      const routes = this.#tables.setOnward(table, table.guarded, main);
      // Reports may come late: what is to be changed is looked at.
      if (!isRead && this.#differs(table)) {
        this.#rules.forget();
        isRead = true;
      }
      const mended = this.#mendTable(table, up, routesOf);
      // What follows from a change of addresses or routes is no damage.
      if (addresses.size === 0 && routes === undefined) found.push(...mended.found);
      for (const { plan } of table.members) {
        const { tunnel } = plan;
        const adaptation = { addresses: addresses.get(tunnel), routes };
        if ((adaptation.addresses ?? routes) !== undefined) adapted.set(tunnel, adaptation);
        add(tunnel, [...table.lacks(tunnel), ...mended.problems]);
      }
      await setImmediate();
    }
    if (suspects?.areGathered !== false) {
      const mended = this.#tables.gathered.mend(this.#changer, routesOf);
      if (adapted.size === 0) found.push(...mended.found);
      if (mended.problems.length > 0) {
        for (const { plan } of this.#tables.gathered.members) add(plan.tunnel, mended.problems);
      }
    }
    for (const { tunnel, ...mended } of this.#vrfs.mend(suspects === undefined ? 'everything' : 'reported')) {
      found.push(...mended.found);
      add(tunnel, mended.problems);
      if (mended.addresses !== undefined) adapted.set(tunnel, { addresses: mended.addresses, routes: undefined });
    }
    if (suspects === undefined) {
      const listed = { ofBridges: this.#rules.ofBridges, foreign: this.#rules.foreign, routesOf };
      for (const { table, mended } of this.#bridges.mend(this.#changer, listed)) {
        found.push(...mended.found);
        const owner = table === undefined ? undefined : this.#tables.index.ownerOf(table);
        if (owner !== undefined) add(owner, mended.problems);
      }
    }
    return { found, adapted, problems };
  }

  /** Whether the rules of a table, as far as they are known, are others than wanted. */
  #differs(table: RoutingTable): boolean {
    const { missing, surplus } = compareRules(table.rules, this.#rules.of(table.number));
    return missing.length + surplus.length > 0;
  }

  /** @param up members whose device exists and is up: only then there are routes into it */
  #mendTable(table: RoutingTable, up: ReadonlySet<TableMember>, routesOf: RoutesOf): Mended {
    const routes = table.routes((member) => up.has(member));
    const flows = routedFlows([...table.members].flatMap(({ plan }) => plan.outbound));
    // Those of tunnels that are to run again, and do not yet.
    const kept = this.#tables.leftIn(table.number);
    const wanted = { rules: table.rules, tables: [{ number: table.number, routes, kept }], flows };
    const [own, foreign] = [this.#rules.of(table.number), this.#rules.foreign];
    return mendRouting(this.#changer, wanted, { own, foreign, routesOf });
  }

  #linkOf({ linkIndex }: TableMember): Link | undefined {
    return linkIndex === undefined ? undefined : this.#network.link(linkIndex);
  }

  /** Rules pass over the device by its group. @returns what was put right, in words */
  #mendGroup(link: Link | undefined): string[] {
    if (link === undefined || link.group === DEVICE_GROUP) return [];
    this.#network.setLink(link.index, { group: DEVICE_GROUP });
    return [`group of ${link.name}: ${link.group} in place of ${DEVICE_GROUP}`];
  }

  /** What addresses and routes the host lacks for a tunnel, as of the last look, in words. Asks the system nothing. */
  lacks(tunnel: string): readonly string[] {
    return this.#tables.index.of(tunnel)?.lacks(tunnel) ?? this.#vrfs.lacks(tunnel);
  }

  /**
   * Tells which children have an SA. Without one, packets of a child of level `use` go in the clear, and a tunnel without
   * any gives way to another one of its redundancy group.
   */
  setUp(name: string, up: ReadonlySet<string>): void {
    if (this.#tables.index.of(name) === undefined) return;
    if (this.#order.setUp(name, up.size > 0)) {
      for (const mate of this.#order.ranked(name)) this.#tables.putBehind(mate);
    }
    this.#tables.setUp(name, up);
  }

  /**
   * Removes all that is installed for a tunnel.
   * @param plan by which an earlier daemon may have left something, where this one installed nothing
   */
  release(tunnel: string, plan?: RoutingPlan): void {
    this.#vrfs.release(tunnel, plan);
    this.#tables.release(tunnel, plan !== undefined && isForVrf(plan) ? undefined : plan);
  }

  /** Removes what an earlier daemon left, except for tunnels with these plans. */
  reconcile(plans: readonly RoutingPlan[]): void {
    this.#tables.reconcile(plans.filter((plan) => !isForVrf(plan)));
    this.#vrfs.reconcile(plans.filter(isForVrf));
  }

  /** As `Platform` says. */
  routeBridge(bridge: string, own: readonly Prefix[], tunnel: TableWish | undefined): () => void {
    const table = tunnel && this.#tables.numberApart(tunnel);
    return this.#bridges.route(bridge, own, table);
  }

  /** Whether local addresses are those of guests: the policy for them does not concern what the host itself sends. */
  isOfGuests(local: AddressRange): boolean {
    return isOfGuests(local, this.#bridges.guests());
  }

  forgetBridges(): void {
    this.#bridges.forgetOthers();
  }

  /** The host's own, except those at routed bridges: the host has these for its guests, and sends nothing else from them. */
  #addresses(): OwnAddresses {
    const addresses = this.#known ?? findDomain(this.#network, undefined)?.addresses ?? [];
    if (this.#rules.isFollowed) this.#known = addresses;
    return new OwnAddresses(addresses, this.#bridges.guests());
  }
}

function downText(link: Link | undefined): string[] {
  if (link === undefined || link.up) return [];
  return [`the device ${link.name} is down, so no packet is routed into it: ip link set ${link.name} up`];
}

function* chunks<T>(items: readonly T[], size: number): Generator<readonly T[]> {
  for (let first = 0; first < items.length; first += size) yield items.slice(first, first + size);
}
