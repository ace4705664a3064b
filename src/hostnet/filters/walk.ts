/**
 * What chains of nftables do with a packet at a hook, as far as their rules are understood. A rule that is not understood
 * may match: its effect is reported as uncertain, and the packet is followed as if it went on. BOUNDED: by `MAX_WORK`.
 */
import type { IpAddress } from '../../base/address.ts';
import type { BaseChain, Chain, Hook, Table } from './listing.ts';
import type { HookPacket } from './packet.ts';
import { type Action, type Budget, doneBy } from './rule.ts';

/** What is done to a packet on its way. */
export interface Finding {
  readonly effect: 'drop' | 'source' | 'destination' | 'mark';
  /** `drop`, `reject`, `masquerade`, `policy drop` … */
  readonly how: string;
  /** False where it depends on what is not known here. */
  readonly certain: boolean;
  /** `inet filter` */
  readonly table: string;
  readonly chain: string;
  /** As nft prints it; of a chain's end its policy. */
  readonly rule: string;
  /** A rule that is not understood, which may let the packet go before it comes there. */
  readonly unless: string | undefined;
  /** New address, where the rule says which. */
  readonly to: IpAddress | undefined;
  /** New mark. */
  readonly mark: number | undefined;
}

export interface Passage {
  readonly findings: readonly Finding[];
  /** It does not go on. */
  readonly stopped: boolean;
  /** That it is routed by afterwards; `undefined` when a rule may have set it. */
  readonly routeMark: number | undefined;
  /** Chains that were asked. */
  readonly asked: number;
  /** More rules than are looked at. */
  readonly cut: boolean;
}

export interface HookQuestion {
  readonly hook: Hook;
  /** Leaves out base chains that have no say, such as those behind a translation that is already made. */
  readonly asks?: (base: BaseChain) => boolean;
}

/** Rules, and elements of their sets, that are looked at for a packet at a hook. */
const MAX_WORK = 100_000;
/** In the place of a rule. */
const UNSEEN = 'a rule that is not looked at';
/** The kernel's own (NFT_JUMP_STACK_SIZE). */
const MAX_DEPTH = 16;
/** Findings that are reported; beyond it only what stops or translates a packet for certain, which each happens once. */
const MAX_FINDINGS = 32;

/** Asks the base chains of a hook in their order. */
export function passHook(
  tables: readonly Table[],
  { hook, asks = () => true }: HookQuestion,
  packet: HookPacket,
): Passage {
  const { family } = packet.source;
  const chains = tables
    .filter((table) => table.family === 'inet' || table.family === (family === 4 ? 'ip' : 'ip6'))
    .flatMap((table) => [...table.chains.values()].map((chain) => ({ table, chain, base: chain.base })))
    .flatMap(({ table, chain, base }) =>
      base !== undefined && base.hook === hook && asks(base) ? [{ table, chain, base }] : [],
    )
    .sort((a, b) => a.base.priority - b.base.priority);
  const walk = new Walk(packet);
  for (const { table, chain, base } of chains) {
    if (!walk.ask(table, chain, base)) break;
  }
  const { findings, stopped, routeMark, cut } = walk;
  return { findings, stopped, routeMark, asked: chains.length, cut };
}

/** Where a packet is behind a chain: `gone`, it was dropped there; `accepted`, the base chain is left; else it goes on. */
type End = 'gone' | 'accepted' | 'on';

interface RulePlace {
  readonly table: Table;
  readonly chain: Chain;
  readonly rule: string;
}

/** What of a base chain is known so far. */
interface Doubts {
  readonly base: BaseChain;
  /** The rule that may have let the packet go already. */
  released: string | undefined;
}

class Walk {
  routeMark: number | undefined;
  readonly findings: Finding[] = [];
  stopped = false;
  /** Rules were left out. */
  cut = false;
  #packet: HookPacket;
  readonly #budget: Budget = { left: MAX_WORK };
  /** A translation of each kind is made once for a flow. */
  readonly #translated = new Set<Finding['effect']>();

  constructor(packet: HookPacket) {
    this.#packet = packet;
    this.routeMark = packet.mark;
  }

  /** @returns whether the packet goes on */
  ask(table: Table, chain: Chain, base: BaseChain): boolean {
    const doubts: Doubts = { base, released: this.cut ? UNSEEN : undefined };
    const end = this.#chain(table, chain, doubts, undefined, 0);
    if (end === 'on' && base.policy === 'drop') {
      const action = { type: 'drop', how: 'policy drop', certain: true } as const;
      this.#drop({ table, chain, rule: 'policy drop' }, action, doubts, undefined);
    }
    this.cut ||= this.#budget.left < 0;
    return !this.stopped;
  }

  /** @param doubt the rule that may have led here or not */
  #chain(table: Table, chain: Chain, doubts: Doubts, doubt: string | undefined, depth: number): End {
    /** A rule that may have left this chain. */
    let left: string | undefined;
    for (const rule of chain.rules) {
      if (--this.#budget.left < 0 || depth > MAX_DEPTH) {
        this.cut = true;
        doubts.released ??= UNSEEN;
        return 'on';
      }
      for (const { fit, action } of doneBy(rule, this.#packet, table, this.#budget)) {
        const unsure = fit === 'maybe' ? rule : (left ?? doubt);
        switch (action.type) {
          case 'accept':
            if (unsure === undefined) return 'accepted';
            doubts.released ??= unsure;
            if (fit === 'yes') return left === undefined ? 'accepted' : 'on';
            break;
          case 'return':
            if (fit === 'yes') return 'on';
            left ??= rule;
            break;
          case 'drop':
            this.#drop({ table, chain, rule }, action, doubts, unsure);
            if (fit === 'yes' && action.certain) return left === undefined ? 'gone' : 'on';
            break;
          case 'jump':
          case 'goto': {
            const other = table.chains.get(action.chain);
            const end = other === undefined ? 'on' : this.#chain(table, other, doubts, unsure, depth + 1);
            if (this.stopped) return 'gone';
            if (fit === 'yes' && (end !== 'on' || action.type === 'goto')) return left === undefined ? end : 'on';
            if (end === 'accepted') doubts.released ??= rule;
            if (action.type === 'goto') left ??= rule;
            break;
          }
          case 'mark':
            this.#mark({ table, chain, rule }, action.mark, doubts, unsure);
            break;
          case 'source':
          case 'destination':
            if (doubts.base.type !== 'nat') break;
            this.#translate(table, chain, rule, action, unsure ?? doubts.released);
            if (fit === 'yes') return left === undefined ? 'accepted' : 'on';
            doubts.released ??= rule;
            break;
        }
      }
    }
    return 'on';
  }

  #drop(
    { table, chain, rule }: RulePlace,
    { how, certain }: Extract<Action, { type: 'drop' }>,
    { released }: Doubts,
    doubt: string | undefined,
  ): void {
    const unless = doubt ?? released;
    const isCertain = certain && unless === undefined;
    if (isCertain) this.stopped = true;
    this.#tell(
      { effect: 'drop', how, certain: isCertain, rule, unless: unless === rule ? undefined : unless },
      table,
      chain,
    );
  }

  #mark(
    { table, chain, rule }: RulePlace,
    mark: number | undefined,
    { base, released }: Doubts,
    doubt: string | undefined,
  ): void {
    const certain = (doubt ?? released) === undefined && mark !== undefined;
    this.#packet = { ...this.#packet, mark: certain ? mark : undefined };
    // The host's own packets have a route already, and only chains of the type route have it looked up again.
    if (base.hook !== 'output' || base.type === 'route') this.routeMark = this.#packet.mark;
    this.#tell({ effect: 'mark', how: 'mark', certain, rule, unless: undefined, mark }, table, chain);
  }

  #translate(
    table: Table,
    chain: Chain,
    rule: string,
    { type, how, to }: Extract<Action, { type: 'source' | 'destination' }>,
    doubt: string | undefined,
  ): void {
    if (this.#translated.has(type)) return;
    const certain = doubt === undefined;
    if (certain) this.#translated.add(type);
    // Chains behind this one see it so.
    if (certain && to !== undefined) this.#packet = { ...this.#packet, [type]: to };
    if (type === 'destination') this.#packet = { ...this.#packet, redirected: certain || undefined };
    this.#tell({ effect: type, how, certain, rule, unless: doubt === rule ? undefined : doubt, to }, table, chain);
  }

  #tell(
    found: Omit<Finding, 'table' | 'chain' | 'to' | 'mark'> & Partial<Pick<Finding, 'to' | 'mark'>>,
    table: Table,
    chain: Chain,
  ): void {
    const isLast = found.certain && found.effect !== 'mark';
    if (this.findings.length >= MAX_FINDINGS && !isLast) return;
    this.findings.push({ to: undefined, mark: undefined, ...found, table: table.title, chain: chain.name });
  }
}
