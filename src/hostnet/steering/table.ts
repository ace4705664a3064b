/**
 * A routing table with the rules that lead into it. It is the table of one tunnel, or of many that have the same local
 * addresses and differ in their destinations alone: then the rules are the same however many there are. Asks the system
 * nothing.
 */
import { formatRange, rangeToPrefixes } from '../../base/address.ts';
import { isWhole } from '../../base/ranges.ts';
import { SetMap } from '../../base/set-map.ts';
import { ELSEWHERE } from '../fence/fence.ts';
import { formatPrefix, type InstalledRoute, type Prefix, type Route, type Rule } from '../routes/routes.ts';
import { ruleKey } from './compare.ts';
import type { LocalRules } from './local-rules.ts';
import type { TableMember } from './member.ts';
import {
  findOnward,
  type Guarded,
  type LocalNetworks,
  localNetworks,
  lostText,
  type MainTable,
  type Onward,
  onwardRules,
} from './onward.ts';
import { isRequired, type PolicyBox, type RoutingPlan } from './plan.ts';
import { type Block, placed } from './priorities.ts';
import { MAX_REFUSED, needsExceptions, routingRules } from './rules.ts';
import type { OwnAddresses } from './sources.ts';

/** Of more tunnels than these, what came out of their devices is not told by device: a rule costs each packet. */
const MAX_DEVICES = 8;

/** More entries than these are better in a table of their own. */
const MAX_SHARED_ENTRIES = 64;
const FAMILIES = [4, 6] as const;

/**
 * What the tunnels of a shared table have in common; `undefined` where a tunnel needs a table of its own: more than the
 * destination decides about its packets, they must be told from those of other tunnels, or its document names a table.
 */
export function sharedKey(plan: RoutingPlan): string | undefined {
  const { table, redundancy, host, outbound, inbound } = plan;
  if (table !== undefined || redundancy !== undefined || host !== undefined) return undefined;
  if (outbound.length === 0 || outbound.length > MAX_SHARED_ENTRIES) return undefined;
  const locals = FAMILIES.map((family) => {
    const boxes = [...outbound, ...inbound].filter(({ local }) => local.start.family === family);
    const ranges = new Set(boxes.map(({ local }) => formatRange(local)));
    return boxes.every(isPlain) && ranges.size < 2 ? ([...ranges][0] ?? '-') : undefined;
  });
  return locals.includes(undefined) || needsExceptions(plan) ? undefined : locals.join(' ');
}

/** The same for tunnels on one device whose documents name one table: these share it. */
export function namedKey(plan: RoutingPlan): string | undefined {
  const key = sharedKey({ ...plan, table: undefined });
  return key === undefined || plan.table === undefined ? undefined : `${key} in ${plan.table}`;
}

/** Whether tunnels on these devices may have the table that both documents name. */
export function canShare(other: Pick<TableMember, 'plan' | 'device'>, plan: RoutingPlan, device: string): boolean {
  const key = namedKey(plan);
  return key !== undefined && other.device === device && namedKey(other.plan) === key;
}

function isPlain(box: PolicyBox): boolean {
  return isRequired(box) && box.protocol === undefined && !isWhole(box.local) && !isWhole(box.remote);
}

export class RoutingTable implements Block {
  readonly number: number;
  #key: string | undefined;
  /** By the name of the tunnel. BOUNDED: by the tunnels. */
  readonly #members = new Map<string, TableMember>();
  /** By a destination of theirs. BOUNDED: by the routes of the tunnels. */
  readonly #byDestination = new SetMap<string, TableMember>();
  /** Children of level `use` that have an SA. */
  #up: ReadonlySet<string> = new Set();
  #own: OwnAddresses;
  #block = 0;
  #size = 0;
  #rules: readonly Rule[] = [];
  /** The rules of many tables, which its own are among. */
  #gathered: LocalRules | undefined;
  #onward: Onward = { guarded: [], lost: [], links: new Set() };
  #lost: string | undefined;

  constructor(number: number, key: string | undefined, own: OwnAddresses) {
    this.number = number;
    this.#key = key;
    this.#own = own;
  }

  /** As `sharedKey` or `namedKey` says; `undefined` for the table of one tunnel. */
  get key(): string | undefined {
    return this.#key;
  }

  /** From now on other tunnels may have it too. */
  share(key: string): void {
    this.#key = key;
    this.#compile();
  }

  /** The first of its priorities. */
  get block(): number {
    return this.#gathered?.block ?? this.#block;
  }

  /** How many priorities it takes, whatever addresses the host has. */
  get size(): number {
    return this.#gathered?.size ?? this.#size;
  }

  get rules(): readonly Rule[] {
    return [...(this.#gathered === undefined ? this.#rules : this.ledRules), ...this.#onwardRules()];
  }

  /** Those of a gathered table that are among others'. */
  get ledRules(): readonly Rule[] {
    if (this.#gathered === undefined) return [];
    return [...this.#gathered.rulesOf(this.locals, this.number), ...this.#gathered.guardRulesOf(this)];
  }

  /** The local addresses of the tunnels that share it. */
  get locals(): readonly Prefix[] {
    const [first] = this.#members.values();
    const boxes = first === undefined ? [] : [...first.plan.outbound, ...first.plan.inbound];
    return FAMILIES.flatMap((family) => {
      const box = boxes.find(({ local }) => local.start.family === family);
      return box === undefined ? [] : rangeToPrefixes(box.local);
    });
  }

  /** From now on it has its rules among those of others. */
  gather(gathered: LocalRules): void {
    this.#gathered = gathered;
  }

  get isGathered(): boolean {
    return this.#gathered !== undefined;
  }

  /** The local networks that packets out of the tunnels are for, by family: the same for all members. */
  get networks(): LocalNetworks {
    const [first] = this.#members.values();
    return first === undefined ? { 4: [], 6: [] } : localNetworks(first.plan);
  }

  /** The links by which packets out of the tunnels go on. */
  get onwardLinks(): ReadonlySet<number> {
    return this.#onward.links;
  }

  get guarded(): readonly Prefix[] {
    return this.#onward.guarded.map(({ network }) => network);
  }

  /** What the host lacks for a tunnel, in words: an address for its own packets, routes for what comes out of the tunnel. */
  lacks(tunnel: string): readonly string[] {
    return [this.#members.get(tunnel)?.unserved, this.#lost].filter((text) => text !== undefined);
  }

  get members(): Iterable<TableMember> {
    return this.#members.values();
  }

  /** Whether documents name its number. */
  get isNamed(): boolean {
    const [first] = this.#members.values();
    return first?.plan.table !== undefined;
  }

  get isEmpty(): boolean {
    return this.#members.size === 0;
  }

  member(tunnel: string): TableMember | undefined {
    return this.#members.get(tunnel);
  }

  /** A member that is not this tunnel. */
  otherThan(tunnel: string): TableMember | undefined {
    for (const member of this.#members.values()) if (member.plan.tunnel !== tunnel) return member;
    return undefined;
  }

  /** Adds a tunnel, or replaces what it has. */
  add(member: TableMember): void {
    this.#forget(member.plan.tunnel);
    this.#members.set(member.plan.tunnel, member);
    for (const { destination } of member.routes) this.#byDestination.add(formatPrefix(destination), member);
    this.#compile();
  }

  remove(tunnel: string): void {
    this.#forget(tunnel);
    this.#members.delete(tunnel);
    this.#compile();
  }

  #forget(tunnel: string): void {
    const member = this.#members.get(tunnel);
    for (const { destination } of member?.routes ?? []) this.#byDestination.delete(formatPrefix(destination), member!);
  }

  /** Whether such a route is to stand in it. */
  wantsRoute(route: InstalledRoute): boolean {
    return [...this.#byDestination.get(formatPrefix(route.destination))].some((member) => member.wants(route));
  }

  wantsRule(rule: Rule): boolean {
    const key = ruleKey(rule);
    return this.rules.some((other) => ruleKey(other) === key);
  }

  /** Gives the rules their priorities, from `block` on. */
  place(block: number): void {
    this.#block = block;
    this.#compile();
  }

  setUp(up: ReadonlySet<string>): void {
    this.#up = up;
    this.#compile();
  }

  /** Follows the addresses of this host. @returns what changed, by tunnel, in words */
  setAddresses(own: OwnAddresses): ReadonlyMap<string, string> {
    // BOUNDED: by the members.
    const changes = new Map<string, string>();
    if (own.key === this.#own.key) return changes;
    this.#own = own;
    for (const [tunnel, member] of this.#members) {
      const change = member.setAddresses(own);
      if (change !== undefined) changes.set(tunnel, change);
    }
    this.#compile();
    return changes;
  }

  /** @param isUp whether the device of a member exists and is up: only then it has routes into it */
  routes(isUp: (member: TableMember) => boolean): Route[] {
    return [...this.#members.values()].flatMap((member) => [
      ...member.closedRoutes,
      ...(isUp(member) ? member.openRoutes : []),
    ]);
  }

  /**
   * Follows the routes by which packets out of the tunnels go on.
   *
   * @param known networks that once had a route
   * @param isReached whether a packet out of a tunnel has one, for networks where `main` has none
   * @returns what changed, in words; `undefined` when nothing did
   */
  setOnward(known: readonly Prefix[], main: MainTable, isReached: (network: Guarded) => boolean): string | undefined {
    const before = this.guarded.map(formatPrefix);
    const peers = [...this.#members.values()].flatMap(({ plan }) => plan.own.peer ?? []);
    this.#onward = findOnward(this.networks, peers, known, main);
    this.#lost = lostText(this.#onward.lost.filter((network) => !isReached(network)));
    const now = this.guarded.map(formatPrefix);
    if (now.join() === before.join()) return undefined;
    return `packets out of the tunnel reach ${now.join(', ') || 'no network'} by routes of these networks only, and never by the default route`;
  }

  /** Those for what came out of the tunnels, where these have no place among others'. */
  #onwardRules(): Rule[] {
    if (this.#gathered?.hasGuards === true && this.devices !== undefined) return [];
    const devices = this.devices ?? [undefined];
    return devices.flatMap((device) => onwardRules(this.#onward.guarded, device, this.number));
  }

  /** Of the tunnels; `undefined` where they are too many for rules of each. */
  get devices(): readonly string[] | undefined {
    // Tunnels may share one.
    const names = new Set([...this.#members.values()].map(({ device }) => device));
    return names.size > MAX_DEVICES ? undefined : [...names];
  }

  /** The networks that packets out of the tunnels reach by routes of their own only. */
  get guards(): readonly Guarded[] {
    return this.#onward.guarded;
  }

  #compile(): void {
    const [first] = this.#members.values();
    if (first === undefined || this.#gathered !== undefined) return;
    const isShared = this.key !== undefined;
    const { rules, size } = routingRules(isShared ? this.#commonPlan(first.plan) : first.plan, {
      table: this.number,
      hasMore: isShared && this.#members.size > MAX_REFUSED,
      device: first.device,
      hasAddressIn: (range) => this.#own.has(range),
      isUp: (child) => this.#up.has(child),
    });
    this.#size = Math.max(size, this.#size);
    this.#rules = rules.map((rule) => placed(rule, this.#block, this.number));
  }

  /** Of many destinations it only counts that they are many. */
  #commonPlan(first: RoutingPlan): RoutingPlan {
    const members = this.#members.size > MAX_REFUSED ? [first] : [...this.#members.values()].map(({ plan }) => plan);
    // None of the members' own packets needs an exception.
    return { ...first, outbound: members.flatMap(({ outbound }) => outbound), own: ELSEWHERE };
  }
}
