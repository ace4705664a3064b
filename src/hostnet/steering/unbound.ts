/**
 * The routes of what the host itself sends without having bound a source, for all tunnels whose tables have no rule for that: two
 * tables, and a rule each, however many tunnels there are. The one has the routes of tunnels that the host has an address for,
 * into their devices and, behind these, those that refuse; the other one, which is looked up next, refuses what goes to tunnels that
 * it has none for. Over IPv6 the first has them all, as `rules.ts` says.
 *
 * Where tunnels with different local addresses protect one destination, the first one has it; of overlapping ones the narrower
 * decides. Pure.
 */
import { SetMap } from '../../base/set-map.ts';
import { formatPrefix, type InstalledRoute, type Route } from '../routes/routes.ts';
import { wayKey } from './compare.ts';
import type { TableMember } from './member.ts';

export const UNBOUND_TABLE = 0x5355_0000;
export const REFUSED_TABLE = 0x5355_0001;
export const UNBOUND_TABLES: readonly number[] = [UNBOUND_TABLE, REFUSED_TABLE];

interface Claim {
  readonly member: TableMember;
  /** Which of the routes of the member. */
  readonly at: number;
  readonly table: number;
}

export class UnboundRoutes {
  /** BOUNDED: by the tunnels, and their routes. */
  readonly #members = new Map<TableMember, readonly Claim[]>();
  /** By table and destination. BOUNDED: as the members. */
  readonly #claims = new SetMap<string, Claim>();

  get members(): Iterable<TableMember> {
    return this.#members.keys();
  }

  has(member: TableMember): boolean {
    return this.#members.has(member);
  }

  /** @returns the routes that refuse, to what no other had */
  add(member: TableMember): Route[] {
    const claims = claimsOf(member);
    this.#members.set(member, claims);
    for (const claim of claims) this.#claims.add(placeOf(claim), claim);
    return claims.filter((claim) => this.#decides(claim)).map(closed);
  }

  /** Its routes into the device. */
  open(member: TableMember): Route[] {
    const claims = this.#members.get(member) ?? [];
    return claims.filter((claim) => this.#decides(claim)).flatMap((claim) => opened(claim) ?? []);
  }

  /** What is to go with a member, and what comes in its place if the device is there. */
  without(member: TableMember): { readonly gone: readonly Route[]; readonly instead: readonly Route[] } {
    const decided = (this.#members.get(member) ?? []).filter((claim) => this.#decides(claim));
    const parts = decided.map((claim) => {
      const [, next] = this.#claims.get(placeOf(claim));
      const ways = [opened(claim), next === undefined ? closed(claim) : undefined];
      return { gone: ways.filter((route) => route !== undefined), instead: next && opened(next) };
    });
    return { gone: parts.flatMap(({ gone }) => gone), instead: parts.flatMap(({ instead }) => instead ?? []) };
  }

  remove(member: TableMember): void {
    for (const claim of this.#members.get(member) ?? []) this.#claims.delete(placeOf(claim), claim);
    this.#members.delete(member);
  }

  /** Follows the addresses of this host, which say for which tunnels it has one. */
  follow(): void {
    const members = [...this.#members.keys()];
    for (const member of members) this.remove(member);
    for (const member of members) this.add(member);
  }

  /** All that are to stand while all devices are up. */
  routes(table: number): Route[] {
    return [...this.#members.values()].flatMap((claims) =>
      claims
        .filter((claim) => claim.table === table && this.#decides(claim))
        .flatMap((claim) => [closed(claim), opened(claim)])
        .filter((route) => route !== undefined),
    );
  }

  /** Whether such a route is to stand, with the device or without it. */
  wants(route: InstalledRoute): boolean {
    const [first] = this.#claims.get(`${route.table} ${formatPrefix(route.destination)}`);
    if (first === undefined) return false;
    const key = wayKey(route);
    return [closed(first), opened(first)].some((other) => other !== undefined && wayKey(other) === key);
  }

  /** Whether a member claims the place of a route. */
  isClaimed({ table, destination }: Route): boolean {
    return this.#claims.get(`${table} ${formatPrefix(destination)}`).size > 0;
  }

  #decides(claim: Claim): boolean {
    const [first] = this.#claims.get(placeOf(claim));
    return first === claim;
  }
}

function placeOf({ member, at, table }: Claim): string {
  return `${table} ${formatPrefix(member.routes[at]!.destination)}`;
}

function claimsOf(member: TableMember): Claim[] {
  return member.routes.flatMap((route, at) => {
    const address = member.addressFor(route);
    if (address === 'others') return [];
    const isRefused = address === 'missing' && route.destination.address.family === 4;
    return [{ member, at, table: isRefused ? REFUSED_TABLE : UNBOUND_TABLE }];
  });
}

function closed({ member, at, table }: Claim): Route {
  return { ...member.closedRoutes[at]!, table };
}

function opened({ member, at, table }: Claim): Route | undefined {
  const route = table === UNBOUND_TABLE ? member.openRoutes[at] : undefined;
  return route && { ...route, table };
}
