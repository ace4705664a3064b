/**
 * Checks decapsulated packets against the policy as well as the SA's selectors. The selectors do not know the entries
 * before those of the SA, and combine each local range with each remote range; the policy database does
 * (RFC 4301 §5.2: a decapsulated packet must be one that the policy protects with this SA).
 */
import { type CompiledPolicy, compilePolicy, NO_ENTRY, type PolicyEntry } from './database.ts';
import type { Flow } from './flow.ts';
import { FlowCache } from './flow-cache.ts';
import { containsPair, intersectSelector, type SelectorPair, type TrafficSelector } from './selector.ts';

/** What decides the packets of an SA beside its selectors. */
export interface GuardEntries {
  /** Entries of the SA's own tunnel, in their order. */
  readonly own: readonly PolicyEntry[];
  /** Of each tunnel on the same device that claims some of these packets: entries that match some. */
  readonly rivals: readonly (readonly PolicyEntry[])[];
}

/**
 * The entries that decide the packets of an SA; `undefined` when its selectors alone do, as is the rule.
 * @param ordered of the inbound direction; without any the selectors alone decide
 * @param child which the entries that the SA is for demand
 * @param rivals inbound entries of other tunnels that share the device, in their order
 */
export function guardEntries(
  ordered: readonly PolicyEntry[],
  { child, selectors }: { readonly child: string; readonly selectors: SelectorPair },
  rivals: Iterable<readonly PolicyEntry[]> = [],
): GuardEntries | undefined {
  if (ordered.length === 0) return undefined;
  const meeting = (entries: readonly PolicyEntry[]): PolicyEntry[] =>
    entries.filter((entry) => meets(entry.selectors, selectors));
  const own = meeting(ordered);
  const others = [...rivals].map(meeting).filter((entries) => entries.some(({ action }) => action !== 'bypass'));
  const [first] = own;
  const isPlain = first?.child === child && containsPair(first.selectors, selectors);
  return isPlain && others.length === 0 ? undefined : { own, rivals: others };
}

function meets(a: SelectorPair, b: SelectorPair): boolean {
  const some = (mine: readonly TrafficSelector[], theirs: readonly TrafficSelector[]): boolean =>
    mine.some((one) => theirs.some((other) => intersectSelector(one, other) !== undefined));
  return some(a.local, b.local) && some(a.remote, b.remote);
}

/** Decides packets that came through an SA. Hot path: no allocation. */
export class InboundGuard {
  readonly #policy: CompiledPolicy;
  readonly #rivals: readonly CompiledPolicy[];
  readonly #child: string;
  readonly #flows = new FlowCache();

  constructor({ own, rivals }: GuardEntries, child: string) {
    this.#policy = compilePolicy(own, 'in');
    this.#rivals = rivals.map((entries) => compilePolicy(entries, 'in'));
    this.#child = child;
  }

  /** Whether the entry that decides the packet demands such an SA. */
  allows(flow: Flow): boolean {
    const index = this.#flows.lookup(this, flow);
    return index >= 0 && this.#policy.entries[index]!.child === this.#child;
  }

  /** The index of the own entry that decides; negative where there is none, or one of another tunnel goes before it. */
  lookup(flow: Flow): number {
    const found = this.#policy.lookup(flow);
    if (found < 0) return found;
    const { priority } = this.#policy.entries[found]!;
    for (const rival of this.#rivals) {
      const index = rival.lookup(flow);
      const its = index < 0 ? undefined : rival.entries[index]!;
      if (its !== undefined && its.action !== 'bypass' && its.priority > priority) return NO_ENTRY;
    }
    return found;
  }
}
