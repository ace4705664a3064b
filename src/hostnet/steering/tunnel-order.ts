/**
 * The order in which the tunnels of a network namespace are asked for packets, as far as their policies meet: by priority,
 * then the more specific first, then the older. Tunnels of a redundancy group come in the order in which they may carry: one
 * that has an SA, of these the preferred, of these the older. Pure.
 */
import { type Claims, meetings, precedenceOf } from '../../policy/precedence.ts';

/** A tunnel, as far as its place among others goes. */
export interface Claimant {
  readonly tunnel: string;
  readonly device: string;
  readonly claims: Claims;
  readonly redundancy: { readonly group: string; readonly preference: number } | undefined;
}

interface Standing extends Claimant {
  /** Lower for older. */
  readonly age: number;
  up: boolean;
  /** Of tunnels whose policies meet with its own: whether it goes before them whatever their age. BOUNDED: by the tunnels. */
  readonly met: Map<string, 'before' | 'after' | 'undecided'>;
}

export class TunnelOrder {
  /** BOUNDED: by the tunnels. */
  readonly #standing = new Map<string, Standing>();
  #ages = 0;

  /** One that is there keeps its age. */
  set(claimant: Claimant): void {
    const { tunnel } = claimant;
    const before = this.#standing.get(tunnel);
    this.delete(tunnel);
    const standing: Standing = {
      ...claimant,
      age: before?.age ?? this.#ages++,
      up: before?.up ?? false,
      met: new Map(),
    };
    for (const other of this.#standing.values()) {
      const precedence = precedenceAmong(standing, other);
      if (precedence === undefined) continue;
      standing.met.set(other.tunnel, precedence);
      other.met.set(tunnel, MIRRORED[precedence]);
    }
    this.#standing.set(tunnel, standing);
  }

  /**
   * Tunnels among which no order is possible, this one among them; empty when there is one. What goes before another is a
   * matter of pairs, so three may stand in a circle. Tunnels of a group may come in any order among themselves.
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

  /** Those behind it that are no mates of its own. */
  #behindGroups(tunnel: string): string[] {
    return this.#met(tunnel, (one, other) => !areMates(one, other) && this.#isBefore(one, other));
  }

  delete(tunnel: string): void {
    for (const other of this.#standing.get(tunnel)?.met.keys() ?? []) this.#standing.get(other)?.met.delete(tunnel);
    this.#standing.delete(tunnel);
  }

  /** Whether it has an SA. Returns whether the order is another one for that. */
  setUp(tunnel: string, up: boolean): boolean {
    const standing = this.#standing.get(tunnel);
    if (standing === undefined || standing.up === up) return false;
    const mates = this.mates(tunnel);
    const before = mates.map((mate) => this.#isBefore(standing, this.#standing.get(mate)!));
    standing.up = up;
    return mates.some((mate, at) => this.#isBefore(standing, this.#standing.get(mate)!) !== before[at]);
  }

  /** Those that are asked before it for packets that both are for. */
  before(tunnel: string): string[] {
    return this.#met(tunnel, (one, other) => this.#isBefore(other, one));
  }

  /** Those that are asked behind it for packets that both are for. */
  behind(tunnel: string): string[] {
    return this.#met(tunnel, (one, other) => this.#isBefore(one, other));
  }

  /** Those of its redundancy group that are for packets of its own. */
  mates(tunnel: string): string[] {
    return this.#met(tunnel, areMates);
  }

  /** A tunnel and those of its redundancy group that are for packets of its own, in the order in which they may carry. */
  ranked(tunnel: string): string[] {
    const group = [tunnel, ...this.mates(tunnel)].flatMap((name) => this.#standing.get(name) ?? []);
    return group.sort(compareMates).map((standing) => standing.tunnel);
  }

  /** Which of a tunnel's redundancy group carries packets that both are for; itself where it is in none. */
  carrier(tunnel: string): string {
    return this.ranked(tunnel)[0] ?? tunnel;
  }

  /** Devices by which packets of a tunnel's policy may go as well: an earlier tunnel's, or one of its group. */
  devicesBeside(tunnel: string): string[] {
    return [...new Set([...this.before(tunnel), ...this.mates(tunnel)])].map(
      (other) => this.#standing.get(other)!.device,
    );
  }

  #met(tunnel: string, fits: (one: Standing, other: Standing) => boolean): string[] {
    const one = this.#standing.get(tunnel);
    return [...(one?.met.keys() ?? [])].filter((other) => fits(one!, this.#standing.get(other)!));
  }

  /** Of two that meet. */
  #isBefore(one: Standing, other: Standing): boolean {
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
function compareMates(one: Standing, other: Standing): number {
  const byPreference = (other.redundancy?.preference ?? 0) - (one.redundancy?.preference ?? 0);
  return Number(other.up) - Number(one.up) || byPreference || one.age - other.age;
}

const MIRRORED = { before: 'after', after: 'before', undecided: 'undecided' } as const;

function areMates({ redundancy: one }: Claimant, { redundancy: other }: Claimant): boolean {
  return one !== undefined && one.group === other?.group;
}

/** `undefined` when they do not meet. */
function precedenceAmong(one: Claimant, other: Claimant): 'before' | 'after' | 'undecided' | undefined {
  const found = meetings(one.claims, other.claims);
  // Too much to tell.
  if (found === undefined) return 'undecided';
  if (found.length === 0) return undefined;
  const precedence = precedenceOf(found);
  return precedence === 'both' ? 'undecided' : precedence;
}
