/**
 * The fence in the kernel, by nft(8): one batch a change, which the kernel takes as a whole or not at all. It outlives the
 * program: what another run left is kept until `reconcile`. `table.ts` finds what other programs change.
 */
import { isDeepStrictEqual } from 'node:util';
import { Serial } from '../../base/serial.ts';
import { MissingProgramError } from '../../sys/program.ts';
import type { ObjectName } from '../netlink/nftables.ts';
import { MISSING } from './content.ts';
import { type AddressPair, dispatchPairs, overlap, samePairs, type Unmapped } from './dispatch.ts';
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
import { ID, idOf, idsOf, kindOf } from './ids.ts';
import { fenceBatch, type NamedPart } from './nft.ts';
import { nftObjects } from './nft-json.ts';
import { runNft } from './nft-program.ts';
import { counterName, FENCE_TABLE, TABLE, TABLE_LINE } from './nft-words.ts';
import { type Difference, FenceTable } from './table.ts';

/** For a batch of thousands of addresses; the program is ended then. */
const TIMEOUT_MS = 20_000;

const KINDS = ['tunnel', 'bridge', 'untranslated'] as const satisfies readonly FencePart['kind'][];

export interface LinuxFenceOptions {
  /** Starts the program: in another network namespace than the thread's. */
  readonly start?: (<T>(work: () => T) => T) | undefined;
  readonly program?: string;
}

export class LinuxFence implements FenceKeeper {
  readonly #options: LinuxFenceOptions;
  readonly #table: FenceTable;
  /** What was set, by its key. BOUNDED: by the owner's tunnels and bridges. */
  readonly #parts = new Map<string, NamedPart>();
  /** The keys of those parts, by their ids. BOUNDED: by the parts. */
  readonly #owners = new Map<string, string>();
  /** Ids of the parts in the kernel, as far as is known. BOUNDED: by those parts, and what stood there. */
  #present: ReadonlySet<string> | undefined;
  /** Of our own parts: what the maps have of them. BOUNDED: by the parts. */
  #mapped: ReadonlyMap<string, readonly AddressPair[]> = new Map();
  /** Parts that are in no map; `undefined` while the base chains are not known to be as they should. */
  #unmappable: readonly Unmapped[] | undefined;
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
    (parts) => this.#setAll(parts),
  );

  constructor(options: LinuxFenceOptions = {}) {
    this.#options = options;
    this.#table = new FenceTable(FENCE_TABLE, options.start ?? ((work) => work()));
  }

  get parts(): ReadonlyMap<string, FencePart> {
    return new Map([...this.#parts].map(([key, { part }]) => [key, part]));
  }

  set(key: string, part: FencePart | undefined): Promise<void> {
    return this.#gathered.add(key, part);
  }

  async #setAll(parts: ReadonlyMap<string, FencePart | undefined>): Promise<void> {
    const removed: string[] = [];
    const added: NamedPart[] = [];
    for (const [key, part] of parts) {
      const ids = KINDS.flatMap((kind) => idsOf(kind, key));
      // In another domain it has another id.
      removed.push(...(part === undefined ? ids : idsOf(part.kind, key).filter((id) => id !== idOf(part, key))));
      if (part === undefined) continue;
      if (this.#table.suspect || !isDeepStrictEqual(this.#parts.get(key)?.part, part)) {
        added.push({ id: this.#freeId(part, key), part });
      }
    }
    await this.#change(added, removed);
    const ids = new Map(added.map((each) => [each.id, each]));
    for (const [key, part] of parts) {
      const named = part && ids.get(idOf(part, key));
      if (part === undefined || named !== undefined) this.#forget(key);
      if (named !== undefined) {
        this.#parts.set(key, named);
        this.#owners.set(named.id, key);
      }
    }
  }

  #forget(key: string): void {
    const id = this.#parts.get(key)?.id;
    if (id !== undefined) this.#owners.delete(id);
    this.#parts.delete(key);
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
      await this.#table.change('all', () => this.#nft(['-f', '-'], `delete table ${TABLE}\n`));
      this.#parts.clear();
      this.#owners.clear();
      this.#present = new Set();
      this.#mapped = new Map();
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
      const found = this.#found;
      this.#found = WHOLE;
      return found;
    });
  }

  close(): Promise<void> {
    return this.#changes.run(() => this.#table.close());
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
    this.#counted = parseCounters(await this.#nft(['-j', 'list', 'counters']));
  }

  /** What another program changed meanwhile is put right first: a change builds on what stands. */
  async #change(added: readonly NamedPart[], removed: readonly string[]): Promise<void> {
    if (this.#table.suspect) await this.#putRight('reported');
    if (this.#found.found.length > 0) this.#onChange?.();
    const known = this.#present ?? (await this.#readPresent());
    const gone = removed.filter((id) => known.has(id));
    if (added.length === 0 && gone.length === 0) return;
    await this.#apply({ known, added, removed: gone });
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
        first: lost ? this.#countersAgain() : [],
        last: extra.flatMap(removal),
        concerned: differences.map(({ name }) => name),
      });
    } catch {
      // What refuses it may stand in the way of a list of counters too.
      await this.#count().catch(() => undefined);
      this.#unmappable = undefined;
      const first = [`add table ${TABLE}`, `delete table ${TABLE}`, ...this.#countersAgain()];
      await this.#apply({ known: new Set(), added: parts, removed: [], first });
    }
  }

  #countersAgain(): string[] {
    const names = [...this.#parts.values()].flatMap(({ id, part }) =>
      FENCE_COUNTERS[part.kind].map((name) => counterName(id, name)),
    );
    const counted = names.filter((name) => (this.#counted.get(name) ?? 0) > 0);
    return [
      TABLE_LINE,
      ...counted.map((name) => `add counter ${TABLE} ${name} { packets ${this.#counted.get(name)} bytes 0 }`),
    ];
  }

  async #apply({ known, added, removed, first = [], last = [], concerned = [] }: Application): Promise<void> {
    const after = new Set([...known, ...added.map(({ id }) => id)]);
    for (const id of removed) after.delete(id);
    const mapped = new Map([...this.#mapped].filter(([id]) => after.has(id)));
    const standing = new Set([...this.#parts.values()].map(({ part }) => part));
    for (const { id, part } of added) {
      // One that is made again as it was has its place.
      if (standing.has(part)) continue;
      mapped.delete(id);
      const pairs = part.kind === 'tunnel' ? dispatchPairs(part) : undefined;
      if (pairs !== undefined && ![...mapped.values()].some((others) => overlap(pairs, others))) mapped.set(id, pairs);
    }
    const parts = new Map([...this.#parts.values(), ...added].map(({ id, part }) => [id, part]));
    const unmappable = [...after].flatMap((id) => {
      const part = parts.get(id);
      return mapped.has(id) ? [] : [{ id, pairs: part?.kind === 'tunnel' ? dispatchPairs(part) : undefined }];
    });
    const before = this.#unmappable;
    const anew =
      before?.length !== unmappable.length ||
      before.some(({ id, pairs }, at) => {
        const now = unmappable[at]!;
        return id !== now.id || !samePairs(pairs ?? [], now.pairs ?? []);
      });
    const old = anew ? new Map<string, readonly AddressPair[]>() : this.#mapped;
    const host = hostDispatch(hostParts(after, parts));
    const isSame = (id: string): boolean => samePairs(old.get(id) ?? [], mapped.get(id) ?? []);
    const batch = fenceBatch({
      added,
      removed,
      present: [...after],
      unmappable: anew ? unmappable : undefined,
      inherited: before === undefined,
      mapped: [...mapped].flatMap(([id, pairs]) => (isSame(id) ? [] : [{ id, pairs }])),
      unmapped: [...old].flatMap(([id, pairs]) => (isSame(id) ? [] : [{ id, pairs }])),
      host: { before: anew ? undefined : this.#host, after: host },
      vrfDevices: [...after].flatMap((id) => vrfDevice(parts.get(id)) ?? []),
    });
    const text = [...first, batch, ...last].join('\n');
    const names = namesIn(text);
    if (concerned.some((name) => !names.has(name))) throw new Error('the batch does not make all of it again');
    const whole = text.includes(`delete table ${TABLE}`);
    await this.#table.change(whole ? 'all' : names, () => this.#nft(['-f', '-'], `${text}\n`));
    this.#present = after;
    this.#mapped = mapped;
    this.#unmappable = after.size === 0 ? undefined : unmappable;
    this.#host = host;
  }

  /** By the chains that stand there. Where there is no nft there is nothing, until something is to be added. */
  async #readPresent(): Promise<ReadonlySet<string>> {
    let listed: string;
    try {
      listed = await this.#nft(['-j', 'list', 'chains', 'inet']);
    } catch (error) {
      if (error instanceof MissingProgramError) return new Set();
      throw error;
    }
    const present = new Set(
      nftObjects(listed, 'chain').flatMap(({ table, name }) => {
        const id = PRESENT.exec(String(name))?.[1];
        return table === FENCE_TABLE && id !== undefined ? [id] : [];
      }),
    );
    const known = this.#present;
    if (known === undefined || [...known, ...present].some((id) => !known.has(id) || !present.has(id))) {
      this.#unmappable = undefined;
    }
    this.#present = present;
    return present;
  }

  #nft(words: readonly string[], input = ''): Promise<string> {
    return runNft(words, { ...this.#options, input, timeout: TIMEOUT_MS });
  }
}

/** The device of a tunnel in a VRF. */
function vrfDevice(part: FencePart | undefined): string | undefined {
  return part?.kind === 'tunnel' && part.vrf !== undefined ? part.device : undefined;
}

/** What is to be done, and what stands before. */
interface Application {
  /** Ids of the parts that stand. */
  readonly known: ReadonlySet<string>;
  readonly added: readonly NamedPart[];
  readonly removed: readonly string[];
  /** Lines before and behind those of the change. */
  readonly first?: readonly string[];
  readonly last?: readonly string[];
  /** Objects that it must make again. */
  readonly concerned?: readonly ObjectName[];
}

/** Nothing of it differed. */
const WHOLE: FenceDamage = { found: [], by: [] };

const PRESENT = new RegExp(`^(${ID})_(leave|forward|postrouting)$`);
const OF_PART = new RegExp(`^\\w+ (${ID})_`);

/** The part that an object belongs to; `undefined` for what all parts stand on. */
function partOf(name: ObjectName): string | undefined {
  return OF_PART.exec(name)?.[1];
}

function isTableLost({ name, text }: Difference): boolean {
  return name === 'table' && text === MISSING;
}

/** `chain out of tunnel net: 1 of 1 rules missing`. @param keys of the parts, by their ids */
function describe({ name, text }: Difference, keys: ReadonlyMap<string, string>): string {
  if (name === 'table') return `table ${TABLE}: ${text}`;
  const id = partOf(name);
  const key = id === undefined ? undefined : keys.get(id);
  return `${key === undefined ? name : `${name.replace(`${id}_`, '')} of ${key.replace(':', ' ')}`}: ${text}`;
}

/** The objects that the lines of a batch make, fill or take away. */
function namesIn(batch: string): Set<ObjectName> {
  const names = new Set<ObjectName>(['table']);
  for (const [, kind, name] of batch.matchAll(new RegExp(`^\\w+ (\\w+) ${TABLE} (\\w+)`, 'gm'))) {
    if (kind === 'chain' || kind === 'rule') names.add(`chain ${name}`);
    else if (kind === 'set' || kind === 'map' || kind === 'element') names.add(`set ${name}`);
  }
  return names;
}

/** Lines that take away what another program added. */
function removal(name: ObjectName): string[] {
  const object = name.replace(' ', ` ${TABLE} `);
  return name.startsWith('chain ') ? [`flush ${object}`, `delete ${object}`] : [`delete ${object}`];
}

function parseCounters(json: string): Map<string, number> {
  return new Map(
    nftObjects(json, 'counter')
      .filter(({ table }) => table === FENCE_TABLE)
      .map(({ name, packets }) => [String(name), Number(packets)]),
  );
}
