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
import { type AddressRange, rangeContains } from '../../base/address.ts';
import { assertNever } from '../../base/assert.ts';
import { IKE_PORT } from '../../base/ports.ts';
import { isWhole } from '../../base/ranges.ts';
import { Protocol } from '../../policy/protocols.ts';
import {
  DEVICE_GROUP,
  type HostNetwork,
  type InstalledRoute,
  type InstalledRule,
  type InterfaceAddress,
  type Link,
  MAIN_TABLE,
  type NetworkChange,
  OWN_PROTOCOL,
  type Prefix,
} from '../routes/routes.ts';
import { BridgeRouting } from './bridges.ts';
import { checkPlan } from './check.ts';
import { routedFlows, ruleKey } from './compare.ts';
import type { TableMember } from './member.ts';
import { type Listed, listInstalled, type Mended, mendRouting } from './mend.ts';
import { mayLead } from './onward.ts';
import { mainTableOf } from './onward-routes.ts';
import type { RoutingPlan, TableWish } from './plan.ts';
import { isOfBridge } from './priorities.ts';
import { isOfGuests, OwnAddresses } from './sources.ts';
import type { RoutingTable } from './table.ts';
import { SteeringTables } from './tables.ts';
import { TunnelOrder } from './tunnel-order.ts';

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
  /** What is still wrong, by tunnel or bridge. BOUNDED: by those. */
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
  readonly #tables: SteeringTables;
  readonly #bridges: BridgeRouting;
  /** Counts our own changes: a list from before one is out of date. */
  #changes = 0;

  /** @param order in which rules of tunnels stand */
  constructor(network: HostNetwork, order: TunnelOrder = new TunnelOrder()) {
    this.#network = network;
    this.#order = order;
    this.#tables = new SteeringTables(network, order, () => this.#addresses());
    this.#bridges = new BridgeRouting(network, () => this.#changes++);
  }

  /**
   * Installs the rules that send packets to the tunnel's table, and the routes there that refuse. What is installed for the
   * same tunnel is replaced.
   *
   * @throws Error when the system refuses; then nothing of the tunnel is installed
   */
  prepare(plan: RoutingPlan, device: string): void {
    this.#changes++;
    checkPlan(plan, (table) => this.#tables.ownerOf(table), this.#network);
    this.#tables.add(plan, device);
  }

  /** Routes into the device, which is up. @throws Error when the system refuses */
  open(name: string, linkIndex: number): void {
    this.#changes++;
    this.#tables.open(name, linkIndex);
  }

  /** The number of the table that packets of the tunnel are routed by. */
  tableOf(tunnel: string): number | undefined {
    return this.#tables.of(tunnel)?.number;
  }

  /** Whether a change concerns what is wanted here: then `mend` is due. */
  concerns(change: NetworkChange): boolean {
    switch (change.kind) {
      case 'unknown':
        return true;
      case 'link':
        return this.#tables.hasLink(change.link.index);
      // The kernel removes routes with their address or link without reporting them, and refuses them without the address.
      case 'address':
        return this.#mayBeSource(change.address) || this.#mayLead(change.address);
      case 'route':
        return this.#concernsRoute(change.route, change.gone);
      case 'rule':
        return this.#concernsRule(change.rule, change.gone);
      default:
        return assertNever(change, 'network change');
    }
  }

  /** Whether a policy covers what the host sends from this address. */
  #mayBeSource({ address }: InterfaceAddress): boolean {
    return [...this.#tables.members()].some(({ plan }) =>
      plan.outbound.some(({ local }) => !isWhole(local) && rangeContains(local, address)),
    );
  }

  /** Whether packets out of a tunnel may go there. */
  #mayLead(prefix: Prefix): boolean {
    return [...this.#tables.all()].some(({ networks }) => mayLead(networks, prefix));
  }

  #concernsRoute({ table, protocol, destination }: InstalledRoute, gone: boolean): boolean {
    // Whoever set it: a network that is reached by the route of a routing daemon alone is lost with it.
    if (table === MAIN_TABLE) return this.#mayLead(destination);
    return this.#tables.numbered(table) !== undefined && (gone || protocol !== OWN_PROTOCOL);
  }

  #concernsRule(rule: InstalledRule, gone: boolean): boolean {
    if (rule.protocol !== OWN_PROTOCOL) return !this.#tables.areEmpty || this.#bridges.areRouted;
    if (isOfBridge(rule)) return gone && this.#bridges.want(rule);
    const table = this.#tables.ofRule(rule);
    return table !== undefined && gone === table.rules.some((other) => ruleKey(other) === ruleKey(rule));
  }

  /** Compares rules and routes with what is wanted, and puts right what differs; those of others stay. @throws Error */
  async mend(): Promise<RoutingDamage> {
    const found: string[] = [];
    // BOUNDED: by the tunnels.
    const adapted = new Map<string, Adapted>();
    const problems = new Map<string, readonly string[]>();
    const own = this.#addresses();
    const main = mainTableOf(this.#network);
    let [listed, changes] = [listInstalled(this.#network), this.#changes];
    const relist = (): void => {
      if (changes !== this.#changes) [listed, changes] = [listInstalled(this.#network), this.#changes];
    };
    const add = (tunnel: string, texts: readonly string[]): void => {
      if (texts.length > 0) problems.set(tunnel, [...(problems.get(tunnel) ?? []), ...texts]);
    };
    for (const table of [...this.#tables.all()]) {
      const up = new Set<TableMember>();
      for (const members of chunks([...table.members], MEMBERS_PER_TURN)) {
        for (const member of members) {
          if (table.member(member.plan.tunnel) !== member) continue;
          const link = this.#linkOf(member);
          if (link?.up === true) up.add(member);
          found.push(...this.#mendGroup(link));
          add(member.plan.tunnel, downText(link));
        }
        await setImmediate();
      }
      // It may have gone meanwhile, or another one come in its place.
      if (this.#tables.numbered(table.number) !== table) continue;
      relist();
      const addresses = table.setAddresses(own);
      const routes = this.#tables.setOnward(table, table.guarded, main);
      const mended = this.#mendTable(table, up, listed);
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
    relist();
    for (const { table, mended } of this.#bridges.mend(listed)) {
      found.push(...mended.found);
      const owner = table === undefined ? undefined : this.#tables.ownerOf(table);
      if (owner !== undefined) add(owner, mended.problems);
    }
    return { found, adapted, problems };
  }

  /** @param up members whose device exists and is up: only then there are routes into it */
  #mendTable(table: RoutingTable, up: ReadonlySet<TableMember>, { byOwner, foreign, routesOf }: Listed): Mended {
    const routes = table.routes((member) => up.has(member));
    const flows = routedFlows([...table.members].flatMap(({ plan }) => plan.outbound));
    const wanted = { rules: table.rules, table: { number: table.number, routes }, flows };
    return mendRouting(this.#network, wanted, { own: byOwner.get(table.number) ?? [], foreign, routesOf });
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
    return this.#tables.of(tunnel)?.lacks(tunnel) ?? [];
  }

  /**
   * Tells which children have an SA. Without one, packets of a child of level `use` go in the clear, and a tunnel without
   * any gives way to another one of its redundancy group.
   */
  setUp(name: string, up: ReadonlySet<string>): void {
    this.#changes++;
    if (this.#tables.of(name) === undefined) return;
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
    this.#changes++;
    this.#tables.release(tunnel, plan);
  }

  /** Removes what an earlier daemon left, except for tunnels with these plans. */
  reconcile(plans: readonly RoutingPlan[]): void {
    this.#changes++;
    this.#tables.reconcile(plans);
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
    return new OwnAddresses(this.#network.addresses(), this.#bridges.guests());
  }
}

function downText(link: Link | undefined): string[] {
  if (link === undefined || link.up) return [];
  return [`the device ${link.name} is down, so no packet is routed into it: ip link set ${link.name} up`];
}

function* chunks<T>(items: readonly T[], size: number): Generator<readonly T[]> {
  for (let first = 0; first < items.length; first += size) yield items.slice(first, first + size);
}
