/**
 * The rules of tables whose local networks are many. What came out of their tunnels (`onward.ts`) has a tree of rules for each address
 * family, behind the blocks of all tunnels. What goes into them has a tree (`local-tree.ts`), too, and behind it those for what
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
import { DEVICE_GROUP, type Prefix, type Rule, samePrefix } from '../routes/routes.ts';
import { ruleKey } from './compare.ts';
import { LocalTree, type RuleChange } from './local-tree.ts';
import { type Guarded, onwardRules } from './onward.ts';
import { type Block, isBehindBlocks } from './priorities.ts';
import { REFUSED_TABLE, UNBOUND_TABLE } from './unbound.ts';

const FAMILIES = [4, 6] as const;
/** Priorities behind the trees. */
const BEHIND = 3;
/** With this number of entries a packet passes the fewest rules. */
const ENTRIES = 6;
/** There is less room behind the blocks of tunnels. */
const GUARD_ENTRIES = 12;
const OWNERS = [UNBOUND_TABLE, REFUSED_TABLE] as const;

/** A table of tunnels whose packets for some networks go on by routes of these only. */
export interface GuardingTable {
  readonly number: number;
  /** Of its tunnels; `undefined`: too many. */
  readonly devices: readonly string[] | undefined;
  readonly guards: readonly Guarded[];
}

interface Guard {
  readonly table: GuardingTable;
  readonly guarded: Guarded;
}

export class LocalRules implements Block {
  readonly block: number;
  readonly size: number;
  /** Priorities for what came out of the tunnels; `undefined`: there was no room. */
  readonly guardBlock: Block | undefined;
  readonly #trees: Readonly<Record<IpFamily, LocalTree<number>>>;
  readonly #guardTrees: Readonly<Record<IpFamily, LocalTree<Guard>>> | undefined;
  /** BOUNDED: by the tables, and what each may guard. */
  readonly #guards = new Map<GuardingTable, readonly Guard[]>();

  constructor({ block, size }: Block, guardBlock: Block | undefined) {
    this.block = block;
    this.size = size;
    this.guardBlock = guardBlock;
    if (guardBlock !== undefined) this.#guardTrees = guardTrees(guardBlock);
    const tree = (family: IpFamily): LocalTree<number> =>
      new LocalTree({
        ...{ family, by: 'from', entries: ENTRIES, owners: OWNERS, end: this.#end, block, size: size - BEHIND },
        rulesOf: (from, table, priority) => [
          { family, priority, from, action: { type: 'table', table }, owner: table },
        ],
      });
    this.#trees = { 4: tree(4), 6: tree(6) };
  }

  get hasGuards(): boolean {
    return this.#guardTrees !== undefined;
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

  /** Follows what a table guards. @returns what is to be changed, one after the other */
  guard(table: GuardingTable): RuleChange[] {
    const before = this.#guards.get(table) ?? [];
    const wanted = table.devices === undefined ? [] : table.guards;
    const kept = before.filter(({ guarded }) => wanted.some((one) => sameGuard(one, guarded)));
    const missing = wanted.filter((one) => !kept.some(({ guarded }) => sameGuard(one, guarded)));
    const added = missing.map((guarded) => ({ table, guarded }));
    this.#guards.set(table, [...kept, ...added]);
    const gone = before.filter((guard) => !kept.includes(guard));
    return [...added.flatMap((guard) => this.#addGuard(guard)), ...gone.flatMap((guard) => this.#removeGuard(guard))];
  }

  /** It guards nothing any more. */
  unguard(table: GuardingTable): RuleChange[] {
    const before = this.#guards.get(table) ?? [];
    this.#guards.delete(table);
    return before.flatMap((guard) => this.#removeGuard(guard));
  }

  guardRulesOf(table: GuardingTable): Rule[] {
    const guards = this.#guards.get(table) ?? [];
    return guards.flatMap((guard) => {
      const { network } = guard.guarded;
      return this.#guardTrees?.[network.address.family].rulesOf([network], guard) ?? [];
    });
  }

  #addGuard(guard: Guard): RuleChange[] {
    const { network } = guard.guarded;
    const tree = this.#guardTrees?.[network.address.family];
    if (tree === undefined) return [];
    const end = tree.isEmpty ? [{ before: [], after: this.#guardEnd(network.address.family) }] : [];
    return [...end, tree.add(network, guard)];
  }

  #removeGuard(guard: Guard): RuleChange[] {
    const { network } = guard.guarded;
    const tree = this.#guardTrees?.[network.address.family];
    if (tree === undefined) return [];
    const change = tree.remove(network, guard);
    return [change, ...(tree.isEmpty ? [{ before: this.#guardEnd(network.address.family), after: [] }] : [])];
  }

  #guardEnd(family: IpFamily): Rule[] {
    const { guardBlock } = this;
    if (guardBlock === undefined) return [];
    return [{ family, priority: endOf(guardBlock), action: { type: 'nop' }, owner: UNBOUND_TABLE }];
  }

  /** Those that are of no table. */
  get common(): Rule[] {
    const there = FAMILIES.filter((family) => !this.#trees[family].isEmpty);
    const guarding = FAMILIES.filter((family) => this.#guardTrees?.[family].isEmpty === false);
    return [
      ...there.flatMap((family) => [...this.#trees[family].ways, ...this.#behind(family)]),
      ...guarding.flatMap((family) => [...this.#guardTrees![family].ways, ...this.#guardEnd(family)]),
    ];
  }

  /** Whether it is one of `common`. */
  wants(rule: Rule): boolean {
    const tree = this.#trees[rule.family];
    if (isBehindBlocks(rule)) return this.#wantsGuard(rule);
    if (rule.priority < this.#end) return tree.wantsWay(rule);
    const key = ruleKey(rule);
    return !tree.isEmpty && this.#behind(rule.family).some((other) => ruleKey(other) === key);
  }

  #wantsGuard(rule: Rule): boolean {
    const tree = this.#guardTrees?.[rule.family];
    if (tree === undefined || tree.isEmpty) return false;
    const key = ruleKey(rule);
    return tree.wantsWay(rule) || this.#guardEnd(rule.family).some((other) => ruleKey(other) === key);
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

/** What comes out of a device for a guarded network; behind it a rule where packets go on for which there is none. */
function guardTrees({ block, size }: Block): Record<IpFamily, LocalTree<Guard>> {
  const tree = (family: IpFamily): LocalTree<Guard> =>
    new LocalTree({
      ...{
        family,
        by: 'to',
        entries: GUARD_ENTRIES,
        owners: OWNERS,
        end: endOf({ block, size }),
        block,
        size: size - 1,
      },
      rulesOf: (_, { table, guarded }, priority) =>
        (table.devices ?? []).flatMap((device) =>
          onwardRules([guarded], device, table.number, { lookUp: priority, refuse: priority + 1 }),
        ),
    });
  return { 4: tree(4), 6: tree(6) };
}

function endOf({ block, size }: Block): number {
  return block + size - 1;
}

function sameGuard(one: Guarded, other: Guarded): boolean {
  return one.general === other.general && samePrefix(one.network, other.network);
}
