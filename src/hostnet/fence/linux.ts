/**
 * The fence in the kernel, by netlink: one batch a change, which the kernel takes as a whole or not at all. It outlives the
 * program: what another run left is kept until `reconcile`. `table.ts` finds what other programs change.
 */
import { isDeepStrictEqual } from 'node:util';
import { Serial } from '../../base/serial.ts';
import { NftChannel } from '../nft/channel.ts';
import type { Application, ReadBack } from './application.ts';
import { dispatchPairs, samePairs, sameUnmapped, type Unmapped } from './dispatch.ts';
import {
  FENCE_COUNTERS,
  type FenceCounters,
  type FenceDamage,
  type FenceKeeper,
  type FencePart,
  type LookScope,
} from './fence.ts';
import { Gathered } from './gathered.ts';
import { type HostDispatch, hostDispatch, hostParts } from './host-dispatch.ts';
import { idOf, idsOf, kindOf } from './ids.ts';
import { MappedPairs, partsIn } from './mapped.ts';
import { countersAgain, fenceBatch, type NamedPart } from './nft.ts';
import { hasNoTables, refusal } from './nft-errors.ts';
import { counterName, FENCE_TABLE, TABLE } from './nft-words.ts';
import { describe, isTableLost, namesIn, partOf, partWithChain, removal } from './objects.ts';
import { type Difference, FenceTable } from './table.ts';
import { vrfDevice } from './vrf.ts';

/**
 * Parts of a commit. Beside a thousand others the kernel validates for 12 ms whatever is in it; their lines are made without a turn for the
 * event loop, in 0.3 ms each.
 */
const MOST_AT_ONCE = 32;
/** The same while nothing waits for the daemon. A hook has room for 1,024 base chains, those that a batch adds to remove them counted. */
const MOST_TOGETHER = 512;
/** Parts that the map finds and rules lead to: each rule costs each packet. */
const MOST_SURPLUS = 256;
const KINDS = ['tunnel', 'bridge', 'untranslated'] as const satisfies readonly FencePart['kind'][];

export interface LinuxFenceOptions {
  /** Opens sockets: in another network namespace than the thread's. */
  readonly start?: (<T>(work: () => T) => T) | undefined;
}

export class LinuxFence implements FenceKeeper {
  readonly #channel: NftChannel;
  readonly #table: FenceTable;
  /** What was set, by its key. BOUNDED: by the owner's tunnels and bridges. */
  readonly #parts = new Map<string, NamedPart>();
  /** The same without ids. */
  readonly #shown = new Map<string, FencePart>();
  /** The keys of those parts, by their ids. BOUNDED: by the parts. */
  readonly #owners = new Map<string, string>();
  /** Ids of the parts in the kernel, as far as is known. BOUNDED: by those parts, and what stood there. */
  #present: ReadonlySet<string> | undefined;
  /** Of our own parts: what the maps have of them. BOUNDED: by the parts. */
  #mapped = new MappedPairs();
  /** Parts that are in no map; `undefined` while the base chains are not known to be as they should. */
  #unmappable: readonly Unmapped[] | undefined;
  /** Of these, some that are in maps, too: see `#apply`. */
  #surplus: ReadonlySet<string> = new Set();
  /** What leads the host's own packets to parts. */
  #host: HostDispatch | undefined;
  /** The values of the counters when they were last read, by name. BOUNDED: by the counters of the parts. */
  #counted: ReadonlyMap<string, number> = new Map();
  /** What was restored along with a change, until `mend` reports it. BOUNDED: by the objects of the table. */
  #found: FenceDamage = WHOLE;
  #onChange: (() => void) | undefined;
  /** Changes happen one after another. */
  readonly #changes = new Serial();
  readonly #gathered = new Gathered<FencePart | undefined>(
    (work) => this.#changes.run(work),
    (parts, rest) => this.#setAll(parts, rest === 'follows' ? 'later' : 'now'),
    MOST_AT_ONCE,
  );

  constructor({ start: within = (work) => work() }: LinuxFenceOptions = {}) {
    this.#channel = new NftChannel(within);
    this.#table = new FenceTable(FENCE_TABLE, this.#channel, within);
  }

  get parts(): ReadonlyMap<string, FencePart> {
    return this.#shown;
  }

  set(key: string, part: FencePart | undefined): Promise<void> {
    return this.#gathered.add(key, part);
  }

  /** Many in few commits, which stop the daemon for as long as they take. @returns by key, what prevents those that are not set */
  async setTogether(parts: ReadonlyMap<string, FencePart | undefined>): Promise<ReadonlyMap<string, unknown>> {
    const problems = await this.#gathered.addTogether(parts, MOST_TOGETHER);
    await this.#changes.run(() => this.#table.catchUp());
    return problems;
  }

  async #setAll(parts: ReadonlyMap<string, FencePart | undefined>, readBack: ReadBack): Promise<void> {
    const isSuspect = this.#table.suspect;
    const removed: string[] = [];
    const added: NamedPart[] = [];
    for (const [key, part] of parts) {
      const ids = KINDS.flatMap((kind) => idsOf(kind, key));
      // In another domain it has another id.
      removed.push(...(part === undefined ? ids : idsOf(part.kind, key).filter((id) => id !== idOf(part, key))));
      if (part === undefined) continue;
      if (isSuspect || !isDeepStrictEqual(this.#parts.get(key)?.part, part)) {
        added.push({ id: this.#freeId(part, key), part });
      }
    }
    await this.#change(added, removed, readBack);
    const ids = new Map(added.map((each) => [each.id, each]));
    for (const [key, part] of parts) {
      const named = part && ids.get(idOf(part, key));
      if (part === undefined || named !== undefined) this.#forget(key);
      if (named !== undefined) {
        this.#parts.set(key, named);
        this.#shown.set(key, named.part);
        this.#owners.set(named.id, key);
      }
    }
  }

  #forget(key: string): void {
    const id = this.#parts.get(key)?.id;
    if (id !== undefined) this.#owners.delete(id);
    this.#parts.delete(key);
    this.#shown.delete(key);
  }

  /** That was set with that id. */
  #partOf(id: string): FencePart | undefined {
    return this.#shown.get(this.#owners.get(id) ?? '');
  }

  /** @throws Error when another part has the same one */
  #freeId(part: FencePart, key: string): string {
    const id = idOf(part, key);
    const owner = this.#owners.get(id);
    if (owner === undefined || owner === key) return id;
    throw new Error(`the fences of ${owner} and ${key} would have the same id ${id}: give one of them another name`);
  }

  /** Whether there is a part of that key, set by this program. */
  has(key: string): boolean {
    return this.#parts.has(key);
  }

  /** Takes away the whole fence, whatever a program before this one left of it. @returns false where there was none */
  clear(): Promise<boolean> {
    return this.#changes.run(async () => {
      if (!(await this.#table.exists())) return false;
      await this.#table.change('all', () => this.#write(`delete table ${TABLE}`));
      this.#parts.clear();
      this.#shown.clear();
      this.#owners.clear();
      this.#present = new Set();
      this.#mapped = new MappedPairs();
      this.#unmappable = undefined;
      return true;
    });
  }

  reconcile(kind: FencePart['kind'], keep: readonly string[]): Promise<void> {
    return this.#changes.run(async () => {
      const kept = new Set([
        ...[...this.#parts.values()].map(({ id }) => id),
        ...keep.flatMap((key) => idsOf(kind, key)),
      ]);
      const present = await this.#readPresent();
      const left = [...present].filter((id) => kindOf(id) === kind && !kept.has(id));
      await this.#change([], left);
    });
  }

  watch(onChange: () => void): void {
    this.#table.watch(onChange);
    this.#onChange = onChange;
  }

  mend(scope: LookScope = 'everything'): Promise<FenceDamage> {
    return this.#changes.run(async () => {
      await this.#putRight(scope);
      if (scope === 'everything') await this.#dropSurplus();
      const found = this.#found;
      this.#found = WHOLE;
      return found;
    });
  }

  close(): Promise<void> {
    return this.#changes.run(async () => {
      await this.#table.close();
      this.#channel.close();
    });
  }

  counters(): Promise<ReadonlyMap<string, FenceCounters>> {
    return this.#changes.run(async () => {
      if (this.#parts.size === 0) return new Map();
      await this.#count();
      return new Map(
        [...this.#parts].map(([key, { id, part }]) => {
          const names = FENCE_COUNTERS[part.kind];
          const count = (name: string): number => this.#counted.get(counterName(id, name)) ?? 0;
          return [key, Object.fromEntries(names.map((name) => [name, count(name)]))] as const;
        }),
      );
    });
  }

  async #count(): Promise<void> {
    this.#counted = await this.#channel.counters(FENCE_TABLE);
  }

  /** What another program changed meanwhile is put right first: a change builds on what stands. */
  async #change(added: readonly NamedPart[], removed: readonly string[], readBack: ReadBack = 'now'): Promise<void> {
    if (this.#table.suspect) await this.#putRight('reported');
    if (this.#found.found.length > 0) this.#onChange?.();
    const known = this.#present ?? (await this.#readPresent());
    const gone = removed.filter((id) => known.has(id));
    if (added.length === 0 && gone.length === 0) return;
    await this.#apply({ known, added, removed: gone, readBack });
  }

  /** Compares what stands with what was set, and puts back what differs. */
  async #putRight(scope: LookScope): Promise<void> {
    if (this.#parts.size === 0) return;
    const { differences, by } = await this.#table.compare(scope);
    const keys = this.#owners;
    // What a program before this one left is not known.
    const isLeft = (id: string): boolean => !keys.has(id) && (this.#present?.has(id) ?? false);
    const strange = differences.filter(({ name, added }) => !added || !isLeft(partOf(name) ?? ''));
    if (strange.length === 0 && this.#table.certain) return;
    try {
      await this.#repair(strange);
    } catch (error) {
      this.#table.distrust();
      throw error;
    }
    const lost = strange.filter(isTableLost);
    const found = (lost.length > 0 ? lost : strange).map((difference) => describe(difference, keys));
    this.#found = {
      found: [...new Set([...this.#found.found, ...found])],
      by: [...new Set([...this.#found.by, ...by])],
    };
  }

  /**
   * Makes the parts of which something differs again, or all of them, with what they stand on. Where the kernel refuses that
   * (a chain of that name has another hook) the whole table is replaced. Either is one batch. What a program before this one
   * left, and was not set yet, stays with the first only.
   */
  async #repair(differences: readonly Difference[]): Promise<void> {
    const lost = differences.some(isTableLost);
    const all = lost || !this.#table.certain;
    const ids = new Set(differences.map(({ name }) => partOf(name)));
    const parts = [...this.#parts.values()];
    if (all || ids.has(undefined)) this.#unmappable = undefined;
    const extra = differences.filter(({ added }) => added).map(({ name }) => name);
    try {
      await this.#apply({
        known: lost || this.#present === undefined ? new Set() : this.#present,
        added: all ? parts : parts.filter(({ id }) => ids.has(id)),
        removed: [],
        first: lost ? countersAgain(parts, this.#counted) : [],
        last: extra.flatMap(removal),
        concerned: differences.map(({ name }) => name),
      });
    } catch {
      // What refuses it may stand in the way of a list of counters too.
      await this.#count().catch(() => undefined);
      this.#unmappable = undefined;
      const first = [`add table ${TABLE}`, `delete table ${TABLE}`, ...countersAgain(parts, this.#counted)];
      await this.#apply({ known: new Set(), added: parts, removed: [], first });
    }
  }

  /**
   * What leads to a part moves from a rule to the map in two commits: the kernel follows new rules before it has the new elements
   * of the same commit, and in between nothing would lead there. While parts of an earlier daemon are taken over one after
   * another, the rules of many go in one commit.
   */
  async #apply(application: Application): Promise<void> {
    const { awaitsOthers } = await this.#commit(application);
    if (!awaitsOthers || this.#surplus.size >= MOST_SURPLUS) await this.#dropSurplus(application);
  }

  /** Takes away the rules that lead to parts which the map finds. @param last the last commit */
  async #dropSurplus({ added: latest = [], readBack }: Partial<Application> = {}): Promise<void> {
    if (this.#surplus.size === 0) return;
    await this.#commit({
      known: this.#present ?? new Set(),
      added: [],
      removed: [],
      latest,
      dropsSurplus: true,
      readBack,
    });
  }

  /** @returns whether there are parts of an earlier daemon that were not set yet */
  async #commit(application: Application): Promise<{ readonly awaitsOthers: boolean }> {
    const {
      known,
      added,
      removed,
      first = [],
      last = [],
      concerned = [],
      latest = [],
      dropsSurplus,
      readBack = 'now',
    } = application;
    const after = new Set([...known, ...added.map(({ id }) => id)]);
    for (const id of removed) after.delete(id);
    const mapped = this.#mapped.changed();
    for (const id of this.#mapped.ids()) if (!after.has(id)) mapped.remove(id);
    for (const { id, part } of added) {
      // One that is made again as it was has its place.
      if (this.#partOf(id) === part) continue;
      mapped.remove(id);
      const pairs = part.kind === 'tunnel' ? dispatchPairs(part) : undefined;
      if (pairs !== undefined) mapped.add(id, pairs);
    }
    const parts = new Map([...this.#parts.values(), ...latest, ...added].map(({ id, part }) => [id, part]));
    const before = this.#unmappable;
    // What an earlier daemon left may be in no map.
    const ruled = new Map(
      before?.map((each) => [each.id, each]) ?? [...known].map((id) => [id, { id, pairs: undefined }]),
    );
    const isSurplus = (id: string): boolean => dropsSurplus !== true && mapped.get(id) !== undefined && ruled.has(id);
    const surplus = new Set([...after].filter(isSurplus));
    const unmappable = [...after].flatMap((id) => {
      if (surplus.has(id)) return [ruled.get(id)!];
      if (mapped.get(id) !== undefined) return [];
      const part = parts.get(id);
      return [{ id, pairs: part?.kind === 'tunnel' ? dispatchPairs(part) : undefined }];
    });
    const anew = before === undefined || !sameUnmapped(before, unmappable);
    const host = hostDispatch(hostParts(after, parts, surplus));
    const other = [...mapped.ids()].filter((id) => !samePairs(this.#mapped.get(id) ?? [], mapped.get(id) ?? []));
    const batch = fenceBatch({
      added,
      removed,
      present: [...after],
      unmappable: anew ? unmappable : undefined,
      inherited: before === undefined,
      mapped: partsIn(mapped, anew ? after : other),
      unmapped: anew ? [] : partsIn(this.#mapped, other),
      host: { before: anew ? undefined : this.#host, after: host },
      vrfDevices: [...after].flatMap((id) => vrfDevice(parts.get(id)) ?? []),
    });
    const text = [...first, batch, ...last].join('\n');
    const names = namesIn(text);
    if (concerned.some((name) => !names.has(name))) throw new Error('the batch does not make all of it again');
    const whole = text.includes(`delete table ${TABLE}`);
    await this.#table.change(whole ? 'all' : names, () => this.#write(text), readBack);
    this.#present = after;
    mapped.settle();
    this.#unmappable = after.size === 0 ? undefined : unmappable;
    this.#host = host;
    this.#surplus = surplus;
    return { awaitsOthers: [...after].some((id) => !parts.has(id)) };
  }

  /** By the chains that stand there. Where the kernel has no nftables there is nothing, until something is to be added. */
  async #readPresent(): Promise<ReadonlySet<string>> {
    const present = new Set((await this.#listChains()).flatMap((name) => partWithChain(name) ?? []));
    const known = this.#present;
    if (known === undefined || [...known, ...present].some((id) => !known.has(id) || !present.has(id))) {
      this.#unmappable = undefined;
    }
    this.#present = present;
    return present;
  }

  async #listChains(): Promise<string[]> {
    try {
      return await this.#channel.chains(FENCE_TABLE);
    } catch (error) {
      if (hasNoTables(error)) return [];
      throw refusal(error);
    }
  }

  async #write(text: string): Promise<void> {
    try {
      await this.#channel.commit(text);
    } catch (error) {
      throw refusal(error);
    }
  }
}

/** Nothing of it differed. */
const WHOLE: FenceDamage = { found: [], by: [] };
