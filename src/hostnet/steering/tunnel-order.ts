/**
 * The order of the tunnels of a network namespace, as far as their policies meet: by priority, then the more specific first,
 * then the older. Within a redundancy group a tunnel with an SA comes first, then the preferred, then the older. Pure.
 */
import { PlacedClaims } from '../../policy/claims-index.ts';
import { type Claims, meetings, precedenceOf } from '../../policy/precedence.ts';

/** What decides the place of a tunnel among others. */
export interface Claimant {
  readonly tunnel: string;
  /** The routing domain: policies of different ones do not meet. Left out: the default one. */
  readonly vrf?: string | undefined;
  readonly device: string;
  readonly claims: Claims;
  readonly redundancy: { readonly group: string; readonly preference: number } | undefined;
}

interface Entry extends Claimant {
  /** Lower for older. */
  readonly age: number;
  up: boolean;
  /** By tunnels whose policies meet its own: whether it comes before them, whatever their age. BOUNDED: by the tunnels. */
  readonly met: Map<string, 'before' | 'after' | 'undecided'>;
}

export class TunnelOrder {
  /** BOUNDED: by the tunnels. */
  readonly #entries = new Map<string, Entry>();
  /** By routing domain. BOUNDED: as the entries. */
  readonly #claims = new PlacedClaims<string>();
  #ages = 0;

  /** A tunnel that is known keeps its age. */
  set(claimant: Claimant): void {
    const { tunnel } = claimant;
    const before = this.#entries.get(tunnel);
    this.delete(tunnel);
    const entry: Entry = {
      age: before?.age ?? this.#ages++,
      up: before?.up ?? false,
      met: new Map(),
      ...claimant,
    };
    for (const other of this.#near(claimant)) {
      const precedence = precedenceAmong(entry, other);
      if (precedence === undefined) continue;
      entry.met.set(other.tunnel, precedence);
      other.met.set(tunnel, MIRRORED[precedence]);
    }
    this.#entries.set(tunnel, entry);
    this.#claims.set(tunnel, entry.claims, entry.vrf);
  }

  /** Tunnels whose policies may meet these claims, the oldest first. */
  #near({ claims, vrf }: Claimant): Entry[] {
    return [...this.#claims.near(claims, vrf)].map((name) => this.#entries.get(name)!).sort((a, b) => a.age - b.age);
  }

  /**
   * Tunnels among which no order is possible, this one among them; empty when there is one. What goes before another is a
   * matter of pairs, so three may form a circle. Tunnels of a group may come in any order among themselves.
   */
  circle(tunnel: string): string[] {
    const start = new Set([tunnel, ...this.mates(tunnel)]);
    const cameFrom = new Map<string, string>();
    const reached = [...start];
    for (const name of reached) {
      for (const next of this.#behindGroups(name)) {
        if (start.has(next)) return [next, ...trail(cameFrom, name)];
        if (cameFrom.has(next)) continue;
        cameFrom.set(next, name);
        reached.push(next);
        for (const mate of this.mates(next)) {
          if (cameFrom.has(mate)) continue;
          cameFrom.set(mate, name);
          reached.push(mate);
        }
      }
    }
    return [];
  }

  /** Tunnels behind it, except those of its redundancy group. */
  #behindGroups(tunnel: string): string[] {
    return this.#met(tunnel, (one, other) => !areMates(one, other) && this.#isBefore(one, other));
  }

  delete(tunnel: string): void {
    for (const other of this.#entries.get(tunnel)?.met.keys() ?? []) this.#entries.get(other)?.met.delete(tunnel);
    this.#entries.delete(tunnel);
    this.#claims.delete(tunnel);
  }

  /** Sets whether it has an SA. Returns whether that changes the order. */
  setUp(tunnel: string, up: boolean): boolean {
    const entry = this.#entries.get(tunnel);
    if (entry === undefined || entry.up === up) return false;
    const mates = this.mates(tunnel);
    const before = mates.map((mate) => this.#isBefore(entry, this.#entries.get(mate)!));
    entry.up = up;
    return mates.some((mate, at) => this.#isBefore(entry, this.#entries.get(mate)!) !== before[at]);
  }

  /** Tunnels that come before it for packets of both. */
  before(tunnel: string): string[] {
    return this.#met(tunnel, (one, other) => this.#isBefore(other, one));
  }

  /** Tunnels that come behind it for packets of both. */
  behind(tunnel: string): string[] {
    return this.#met(tunnel, (one, other) => this.#isBefore(one, other));
  }

  /** Tunnels of its redundancy group whose packets meet its own. */
  mates(tunnel: string): string[] {
    return this.#met(tunnel, areMates);
  }

  /** A tunnel and its mates, the one that carries first. */
  ranked(tunnel: string): string[] {
    const group = [tunnel, ...this.mates(tunnel)].flatMap((name) => this.#entries.get(name) ?? []);
    return group.sort(compareMates).map((entry) => entry.tunnel);
  }

  /** The tunnel of its redundancy group that carries the packets of both; itself where it is in no group. */
  carrier(tunnel: string): string {
    return this.ranked(tunnel)[0] ?? tunnel;
  }

  /** Other devices that packets of a tunnel's policy may take: an earlier tunnel's, or one of its group. */
  devicesBeside(tunnel: string): string[] {
    const own = this.#entries.get(tunnel)?.device;
    const others = [...this.before(tunnel), ...this.mates(tunnel)].map((other) => this.#entries.get(other)!.device);
    return [...new Set(others)].filter((device) => device !== own);
  }

  #met(tunnel: string, fits: (one: Entry, other: Entry) => boolean): string[] {
    const one = this.#entries.get(tunnel);
    return [...(one?.met.keys() ?? [])].filter((other) => fits(one!, this.#entries.get(other)!));
  }

  /** Of two that meet. */
  #isBefore(one: Entry, other: Entry): boolean {
    if (areMates(one, other)) return compareMates(one, other) < 0;
    const decided = one.met.get(other.tunnel);
    return decided === 'before' || (decided === 'undecided' && one.age < other.age);
  }
}

/** From where a search came, backwards to its start. */
function trail(cameFrom: ReadonlyMap<string, string>, from: string): string[] {
  const names = [from];
  for (let at = cameFrom.get(from); at !== undefined; at = cameFrom.get(at)) names.push(at);
  return names;
}

/** Negative: `one` is the first to carry. */
function compareMates(one: Entry, other: Entry): number {
  const byPreference = (other.redundancy?.preference ?? 0) - (one.redundancy?.preference ?? 0);
  return Number(other.up) - Number(one.up) || byPreference || one.age - other.age;
}

const MIRRORED = { before: 'after', after: 'before', undecided: 'undecided' } as const;

function areMates({ redundancy: one }: Claimant, { redundancy: other }: Claimant): boolean {
  return one !== undefined && one.group === other?.group;
}

/** `undefined` when they do not meet. Of tunnels on one device the policy of the device decides, packet by packet. */
function precedenceAmong(one: Claimant, other: Claimant): 'before' | 'after' | 'undecided' | undefined {
  const found = meetings(one.claims, other.claims);
  // Too many entries to compare.
  if (found === undefined) return 'undecided';
  if (found.length === 0) return undefined;
  if (one.device === other.device) return 'undecided';
  const precedence = precedenceOf(found);
  return precedence === 'both' ? 'undecided' : precedence;
}
