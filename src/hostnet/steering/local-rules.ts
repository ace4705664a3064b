/**
 * The rules of tables whose local networks are many: for each address family a tree (`local-tree.ts`), and behind it those for what
 * the host sends without a source, the same for all tables (`unbound.ts`):
 *
 * ```text
 * IPv4:  n    from 0.0.0.0 lookup UNBOUND         IPv6:  n    from ::/1 goto n+2, from 8000::/1 goto n+2
 *        n+1  from 0.0.0.0 lookup REFUSED                n+1  from all lookup UNBOUND
 *                                                        n+2  from all iif lo lookup UNBOUND suppress_ifgroup 83
 * ```
 *
 * As `rules.ts` says, a rule with a source fits no IPv6 packet that has none, and after an unreachable route the kernel looks
 * again with another one. Pure.
 */
import type { IpFamily } from '../../base/address.ts';
import { DEVICE_GROUP, type Prefix, type Rule } from '../routes/routes.ts';
import { ruleKey } from './compare.ts';
import { LocalTree, type RuleChange } from './local-tree.ts';
import type { Block } from './priorities.ts';
import { REFUSED_TABLE, UNBOUND_TABLE } from './unbound.ts';

const FAMILIES = [4, 6] as const;
/** Priorities behind the trees. */
const BEHIND = 3;

export class LocalRules implements Block {
  readonly block: number;
  readonly size: number;
  readonly #trees: Readonly<Record<IpFamily, LocalTree>>;

  constructor({ block, size }: Block) {
    this.block = block;
    this.size = size;
    const tree = (family: IpFamily): LocalTree =>
      new LocalTree({
        ...{ family, owners: [UNBOUND_TABLE, REFUSED_TABLE], end: this.#end },
        ...{ block, size: size - BEHIND },
      });
    this.#trees = { 4: tree(4), 6: tree(6) };
  }

  get #end(): number {
    return this.block + this.size - BEHIND;
  }

  get isEmpty(): boolean {
    return FAMILIES.every((family) => this.#trees[family].isEmpty);
  }

  /** What is to be changed, one after the other. */
  add(locals: readonly Prefix[], table: number): RuleChange[] {
    return locals.flatMap((local) => {
      const { family } = local.address;
      const tree = this.#trees[family];
      const behind = tree.isEmpty ? [{ before: [], after: this.#behind(family) }] : [];
      return [...behind, tree.add(local, table)];
    });
  }

  remove(locals: readonly Prefix[], table: number): RuleChange[] {
    return locals.flatMap((local) => {
      const { family } = local.address;
      const tree = this.#trees[family];
      if (tree.isEmpty) return [];
      const change = tree.remove(local, table);
      return [change, ...(tree.isEmpty ? [{ before: this.#behind(family), after: [] }] : [])];
    });
  }

  rulesOf(locals: readonly Prefix[], table: number): Rule[] {
    return locals.flatMap((local) => this.#trees[local.address.family].rulesOf([local], table));
  }

  /** Those that are of no table. */
  get common(): Rule[] {
    const there = FAMILIES.filter((family) => !this.#trees[family].isEmpty);
    return there.flatMap((family) => [...this.#trees[family].ways, ...this.#behind(family)]);
  }

  /** Whether it is one of `common`. */
  wants(rule: Rule): boolean {
    const tree = this.#trees[rule.family];
    if (rule.priority < this.#end) return tree.wantsWay(rule);
    const key = ruleKey(rule);
    return !tree.isEmpty && this.#behind(rule.family).some((other) => ruleKey(other) === key);
  }

  #behind(family: IpFamily): Rule[] {
    const at = this.#end;
    const lookUp = (table: number): Rule['action'] => ({ type: 'table', table });
    if (family === 4) {
      const from = { address: { family, value: 0n }, prefixLength: 32 };
      return [
        { family, priority: at, from, action: lookUp(UNBOUND_TABLE) },
        { family, priority: at + 1, from, action: lookUp(REFUSED_TABLE) },
      ];
    }
    const halves = [0n, 1n << 127n].map((value) => ({ address: { family, value }, prefixLength: 1 }));
    const action = { type: 'goto', priority: at + 2 } as const;
    return [
      ...halves.map((from): Rule => ({ family, priority: at, from, action, owner: UNBOUND_TABLE })),
      { family, priority: at + 1, action: lookUp(UNBOUND_TABLE) },
      {
        ...{ family, priority: at + 2, inputLink: 'lo', suppressedGroup: DEVICE_GROUP },
        action: lookUp(UNBOUND_TABLE),
      },
    ];
  }
}
