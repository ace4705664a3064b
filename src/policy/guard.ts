/**
 * Checks decapsulated packets against the policy as well as the SA's selectors. The selectors do not know the entries
 * before those of the SA, and combine each local range with each remote range; the policy database does
 * (RFC 4301 §5.2: a decapsulated packet must be one that the policy protects with this SA).
 */
import { type CompiledPolicy, compilePolicy, type PolicyEntry } from './database.ts';
import type { Flow } from './flow.ts';
import { FlowCache } from './flow-cache.ts';
import { containsPair, intersectSelector, type SelectorPair, type TrafficSelector } from './selector.ts';

/**
 * The entries that decide the packets of an SA; `undefined` when its selectors alone do, as is the rule.
 * @param ordered of the inbound direction; without any the selectors alone decide
 * @param child which the entries that the SA is for demand
 */
export function guardEntries(
  ordered: readonly PolicyEntry[],
  child: string,
  selectors: SelectorPair,
): readonly PolicyEntry[] | undefined {
  if (ordered.length === 0) return undefined;
  const meeting = ordered.filter((entry) => meets(entry.selectors, selectors));
  const [first] = meeting;
  return first?.child === child && containsPair(first.selectors, selectors) ? undefined : meeting;
}

function meets(a: SelectorPair, b: SelectorPair): boolean {
  const some = (mine: readonly TrafficSelector[], theirs: readonly TrafficSelector[]): boolean =>
    mine.some((one) => theirs.some((other) => intersectSelector(one, other) !== undefined));
  return some(a.local, b.local) && some(a.remote, b.remote);
}

/** Decides packets that came through an SA. Hot path: no allocation. */
export class InboundGuard {
  readonly #policy: CompiledPolicy;
  readonly #child: string;
  readonly #flows = new FlowCache();

  constructor(entries: readonly PolicyEntry[], child: string) {
    this.#policy = compilePolicy(entries, 'in');
    this.#child = child;
  }

  /** Whether the entry that decides the packet demands such an SA. */
  allows(flow: Flow): boolean {
    const index = this.#flows.lookup(this.#policy, flow);
    return index >= 0 && this.#policy.entries[index]!.child === this.#child;
  }
}
