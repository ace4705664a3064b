/** Which tunnels a query is about, and in which order. */
import { SectunnelError } from '../../base/error.ts';
import { globMatcher, isGlob } from '../../base/glob.ts';
import { suggestion } from '../../base/similar.ts';
import { SORT_KEYS, type SortKey, STATES } from '../../control/selection.ts';
import type { ObjectTable, TunnelObject } from '../store/objects.ts';

export interface Selection {
  readonly patterns?: readonly string[] | undefined;
  readonly state?: string | undefined;
  readonly sort?: string | undefined;
  readonly limit?: number | undefined;
}

/** What is asked of each tunnel that may be selected, as far as the selection needs it. */
export interface SelectionFacts {
  state(name: string): string;
  /** Milliseconds of the clock when it came into its state. */
  changedAt(name: string): number;
  /** Bytes in both directions. */
  traffic(name: string): number;
}

/**
 * @param suits what else is required of a tunnel
 * @throws SectunnelError for a word that is not known, and for a name or UUID that no tunnel has
 */
export function selectTunnels(
  objects: ObjectTable,
  { patterns, state, sort = 'name', limit = Number.POSITIVE_INFINITY }: Selection,
  facts: SelectionFacts,
  suits: (object: TunnelObject) => boolean = () => true,
): TunnelObject[] {
  if (state !== undefined) checkWord('state', state, STATES);
  checkWord('sort', sort, SORT_KEYS);
  const named = patterns === undefined ? objects.all() : matching(objects, patterns);
  const chosen = named.filter((object) => suits(object) && (state === undefined || facts.state(object.name) === state));
  return sorted(chosen, sort, facts).slice(0, limit);
}

function checkWord<T extends string>(what: string, word: string, known: readonly T[]): asserts word is T {
  if (known.some((one) => one === word)) return;
  const hint = suggestion(word, known);
  throw new SectunnelError('bad-request', `unknown ${what} '${word}'${hint}; expected one of: ${known.join(', ')}`);
}

/** In order of their names, each once. */
function matching(objects: ObjectTable, patterns: readonly string[]): TunnelObject[] {
  const globs = patterns.filter(isGlob).map(globMatcher);
  const exact = new Set(patterns.filter((pattern) => !isGlob(pattern)).map((name) => objects.find(name)));
  return objects.all().filter((object) => exact.has(object) || globs.some((matches) => matches(object.name)));
}

function sorted(objects: TunnelObject[], key: SortKey, facts: SelectionFacts): TunnelObject[] {
  if (key === 'name') return objects;
  const rank: Record<Exclude<SortKey, 'name'>, (name: string) => number> = {
    state: (name) => (STATES as readonly string[]).indexOf(facts.state(name)),
    since: (name) => -facts.changedAt(name),
    traffic: (name) => -facts.traffic(name),
  };
  // The sort is stable: what is equal stays in the order of the names.
  const ranked = objects.map((object) => ({ object, rank: rank[key](object.name) }));
  return ranked.sort((a, b) => a.rank - b.rank).map(({ object }) => object);
}
