/**
 * The priorities of rules: those of bridges first, then those of tunnels, each with a block of its own, and directly before the
 * main table's those for what came out of tunnels. Pure.
 */
import { SectunnelError } from '../../base/error.ts';
import {
  formatPrefix,
  type InstalledRule,
  MAIN_TABLE,
  OWN_PROTOCOL,
  ownerOf,
  type Prefix,
  type Rule,
  type SeenRule,
} from '../routes/routes.ts';

/** Priorities of rules for bridges; behind them the blocks of tunnels, before the main table (32766). */
const BRIDGE = { own: 6992, table: 6993, end: 6994 } as const;
const FIRST_BLOCK = 7000;
const LAST_PRIORITY = 28_999;
/** Where rules for what came out of the tunnels of gathered tables may be: behind all blocks. */
const GUARDS = { first: 29_000, last: 32_761 } as const;
/**
 * As `onward.ts` says. A rule for any link has others than one for a device: the kernel, asked to delete a rule, takes the first
 * that has all that is said of it, so it would take one for a device, too.
 */
const ONWARD = { lookUp: 32_764, refuse: 32_765 } as const;
const ONWARD_BY_ANY = { lookUp: 32_762, refuse: 32_763 } as const;

export interface OnwardPriorities {
  readonly lookUp: number;
  readonly refuse: number;
}

/** @param device left out: for any link */
export function onwardPriorities(device: string | undefined): OnwardPriorities {
  return device === undefined ? ONWARD_BY_ANY : ONWARD;
}

/** The priorities of a tunnel; not each of them has a rule at all times. */
export interface Block {
  readonly block: number;
  readonly size: number;
}

export interface WantedBlock {
  /** The tunnel's table, for the message. */
  readonly table: number;
  readonly size: number;
  /** No priority before this one. */
  readonly from: number | undefined;
}

/**
 * The first of `size` priorities that are free. Those of the same tunnel are not: its old rules stay until the new ones stand.
 * @param installed the priorities of rules that stand
 * @param blocks of the other tunnels
 * @throws Error when there is no room
 */
export function freeBlock(installed: Iterable<number>, blocks: Iterable<Block>, wanted: WantedBlock): number {
  const first = findFreeBlock(installed, blocks, wanted);
  if (first !== undefined) return first;
  throw new SectunnelError(
    'system',
    `no room for ${wanted.size} rules of table ${wanted.table} between the priorities ${FIRST_BLOCK} and ${LAST_PRIORITY}; see: ip rule`,
  );
}

/** As `freeBlock`; `undefined` when there is no room. */
export function findFreeBlock(
  installed: Iterable<number>,
  blocks: Iterable<Block>,
  { size, from = FIRST_BLOCK, last = LAST_PRIORITY }: Pick<WantedBlock, 'size' | 'from'> & { readonly last?: number },
): number | undefined {
  const taken = new Uint8Array(last + 1);
  for (const priority of installed) if (priority <= last) taken[priority] = 1;
  for (const other of blocks) taken.fill(1, other.block, other.block + other.size);
  let first = Math.max(FIRST_BLOCK, from);
  for (let at = first; at < first + size && at <= last; at++) if (taken[at] === 1) first = at + 1;
  return first + size - 1 > last ? undefined : first;
}

/** As `findFreeBlock`, of those for what came out of tunnels. */
export function findGuardBlock(installed: Iterable<number>, blocks: Iterable<Block>, size: number): number | undefined {
  return findFreeBlock(installed, blocks, { size, from: GUARDS.first, last: GUARDS.last });
}

/** Whether it stands behind the blocks of tunnels. */
export function isBehindBlocks({ priority }: Pick<Rule, 'priority'>): boolean {
  return priority >= GUARDS.first;
}

/** The priorities from the first to the last of some rules; none of no rules. */
export function spanOf(rules: readonly Rule[]): Block[] {
  if (rules.length === 0) return [];
  const priorities = rules.map(({ priority }) => priority);
  const block = Math.min(...priorities);
  return [{ block, size: Math.max(...priorities) - block + 1 }];
}

export function isWithin({ block, size }: Block, priority: number): boolean {
  return block <= priority && priority < block + size;
}

export function isOfBridge({ priority }: Rule): boolean {
  return Object.values(BRIDGE).some((other) => other === priority);
}

/** Whether it is ours and belongs to a tunnel. */
export function isOfTunnel(rule: InstalledRule): boolean {
  return rule.protocol === OWN_PROTOCOL && !isOfBridge(rule);
}

/** Whether it refuses what came out of a tunnel and has no route of its own. */
export function isOnwardRefusal(rule: InstalledRule | SeenRule): boolean {
  const { action, from, protocol } = rule;
  return protocol === OWN_PROTOCOL && isBehindBlocks(rule) && action.type === 'unreachable' && from === undefined;
}

/** Whether it finds the routes of what came out of a tunnel. */
export function isOnwardLookUp(rule: Rule): boolean {
  const { action, to } = rule;
  return isBehindBlocks(rule) && action.type === 'table' && action.table === MAIN_TABLE && to !== undefined;
}

/** Says whose rule is whose. A look-up of the main table bears no number of its owner: the refusals do, and one of them is said. */
export function ownersIn(rules: readonly InstalledRule[]): (rule: InstalledRule) => number | undefined {
  const owners = new Map(rules.filter(isOnwardRefusal).map((rule) => [pairKey(rule), ownerOf(rule)]));
  return (rule) => (isOnwardLookUp(rule) ? owners.get(pairKey(rule)) : ownerOf(rule));
}

/**
 * What the two rules for a network have in common, their place included: a look-up stands directly before its refusals, and
 * those of several owners may have one look-up.
 */
export function pairKey({ inputLink, to, priority, action }: Rule): string {
  const lookUp = action.type === 'unreachable' ? priority - 1 : priority;
  return `${lookUp} ${inputLink} ${to && formatPrefix(to)}`;
}

/** In an order to delete them in: what refuses goes before its look-up, which stays as long as another one refuses. */
export function lookUpsLast<T extends Rule>(rules: readonly T[]): T[] {
  return [...rules.filter((rule) => !isOnwardLookUp(rule)), ...rules.filter(isOnwardLookUp)];
}

export function placed(rule: Rule, block: number, owner: number): Rule {
  const { action } = rule;
  return {
    ...rule,
    priority: rule.priority + block,
    owner,
    action: action.type === 'goto' ? { ...action, priority: action.priority + block } : action,
  };
}

/** The end first, so that guests' packets have no other way, not even for a moment. */
export function bridgeRules(bridge: string, own: readonly Prefix[], table: number | undefined): Rule[] {
  const main = { type: 'table', table: MAIN_TABLE } as const;
  return ([4, 6] as const).flatMap((family): Rule[] => [
    ...(table === undefined
      ? []
      : ([
          { family, priority: BRIDGE.end, inputLink: bridge, action: { type: 'unreachable' } },
          { family, priority: BRIDGE.table, inputLink: bridge, action: { type: 'table', table } },
        ] as const)),
    ...own
      .filter(({ address }) => address.family === family)
      .map((to) => ({ family, priority: BRIDGE.own, to, action: main })),
  ]);
}

/** The table that the rules of a bridge look up. */
export function tableOfBridge(rules: readonly Rule[]): number | undefined {
  const [table] = rules.flatMap(({ priority, action }) =>
    priority === BRIDGE.table && action.type === 'table' ? [action.table] : [],
  );
  return table;
}
