/**
 * The fence in the kernel, by nft(8): one batch a change, which the kernel takes as a whole or not at all. It outlives the
 * program: what another run left is kept until `reconcile`.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { messageOf } from '../base/text.ts';
import { FENCE_COUNTERS, type FenceCounters, type FenceKeeper, type FencePart } from './fence.ts';
import { type AddressPair, dispatchPairs, overlap, samePairs } from './fence-dispatch.ts';
import { fenceBatch, kindOf, type NamedPart, type Unmapped } from './fence-nft.ts';
import { counterName, FENCE_TABLE } from './nft-words.ts';

/** For a batch of thousands of addresses; the program is ended then. */
const TIMEOUT_MS = 20_000;
/** What is kept of its output: the counters of ten thousand parts, and more of an error than anybody reads. */
const MAX_OUTPUT = 16 << 20;
const MAX_MESSAGE = 500;
/** Where Debian and others have it, behind what the daemon was started with. */
const PATH = '/usr/sbin:/sbin:/usr/local/sbin';

const KINDS = ['tunnel', 'bridge', 'untranslated'] as const satisfies readonly FencePart['kind'][];

export interface LinuxFenceOptions {
  /** Starts the program: in another network namespace than the thread's. */
  readonly start?: (<T>(work: () => T) => T) | undefined;
  readonly program?: string;
}

export class LinuxFence implements FenceKeeper {
  readonly #options: LinuxFenceOptions;
  /** What was set, by its key. BOUNDED: by the owner's tunnels and bridges. */
  readonly #parts = new Map<string, NamedPart>();
  /** Ids of the parts in the kernel, as far as is known. BOUNDED: by those parts, and what stood there. */
  #present: ReadonlySet<string> | undefined;
  /** Of our own parts: what the maps have of them. BOUNDED: by the parts. */
  #mapped: ReadonlyMap<string, readonly AddressPair[]> = new Map();
  /** Parts that are in no map; `undefined` while the base chains are not known to be as they should. */
  #unmappable: readonly Unmapped[] | undefined;
  /** Changes happen one after another. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: LinuxFenceOptions = {}) {
    this.#options = options;
  }

  set(key: string, part: FencePart | undefined): Promise<void> {
    return this.#inTurn(async () => {
      if (part === undefined) {
        await this.#change(
          [],
          KINDS.map((kind) => idOf(kind, key)),
        );
        this.#parts.delete(key);
        return;
      }
      const added = { id: idOf(part.kind, key), part };
      await this.#change([added], []);
      this.#parts.set(key, added);
    });
  }

  reconcile(kind: FencePart['kind'], keep: readonly string[]): Promise<void> {
    return this.#inTurn(async () => {
      const kept = new Set([...[...this.#parts.values()].map(({ id }) => id), ...keep.map((key) => idOf(kind, key))]);
      const present = await this.#readPresent();
      const left = [...present].filter((id) => kindOf(id) === kind && !kept.has(id));
      await this.#change([], left);
    });
  }

  mend(): Promise<number> {
    return this.#inTurn(async () => {
      if (this.#parts.size === 0) return 0;
      const present = await this.#readPresent();
      const lost = [...this.#parts.values()].filter(({ id }) => !present.has(id));
      await this.#change(lost, []);
      return lost.length;
    });
  }

  counters(): Promise<ReadonlyMap<string, FenceCounters>> {
    return this.#inTurn(async () => {
      if (this.#parts.size === 0) return new Map();
      const found = parseCounters(await this.#nft(['-j', 'list', 'counters']));
      return new Map(
        [...this.#parts].map(([key, { id, part }]) => {
          const names = FENCE_COUNTERS[part.kind];
          return [key, Object.fromEntries(names.map((name) => [name, found.get(counterName(id, name)) ?? 0]))] as const;
        }),
      );
    });
  }

  /** What another program took away meanwhile makes the kernel refuse: all is put back then. */
  async #change(added: readonly NamedPart[], removed: readonly string[]): Promise<void> {
    const known = this.#present ?? (await this.#readPresent());
    const gone = removed.filter((id) => known.has(id));
    if (added.length === 0 && gone.length === 0) return;
    try {
      await this.#apply(known, added, gone);
    } catch (error) {
      const present = await this.#readPresent();
      if ([...known].every((id) => present.has(id))) throw error;
      const changed = new Set([...added.map(({ id }) => id), ...removed]);
      const lost = [...this.#parts.values()].filter(({ id }) => !present.has(id) && !changed.has(id));
      await this.#apply(
        present,
        [...added, ...lost],
        removed.filter((id) => present.has(id)),
      );
    }
  }

  async #apply(known: ReadonlySet<string>, added: readonly NamedPart[], removed: readonly string[]): Promise<void> {
    const after = new Set([...known, ...added.map(({ id }) => id)]);
    for (const id of removed) after.delete(id);
    const mapped = new Map([...this.#mapped].filter(([id]) => after.has(id)));
    for (const { id, part } of added) {
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
    const isSame = (id: string): boolean => samePairs(old.get(id) ?? [], mapped.get(id) ?? []);
    const batch = fenceBatch({
      added,
      removed,
      present: [...after],
      unmappable: anew ? unmappable : undefined,
      mapped: [...mapped].flatMap(([id, pairs]) => (isSame(id) ? [] : [{ id, pairs }])),
      unmapped: [...old].flatMap(([id, pairs]) => (isSame(id) ? [] : [{ id, pairs }])),
    });
    await this.#nft(['-f', '-'], batch);
    this.#present = after;
    this.#mapped = mapped;
    this.#unmappable = after.size === 0 ? undefined : unmappable;
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
      objects(listed, 'chain').flatMap(({ table, name }) => {
        const id = /^([tbu][0-9a-f]+)_(forward|postrouting)$/.exec(String(name))?.[1];
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

  #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(change);
    this.#turn = result.catch(() => undefined);
    return result;
  }

  #nft(words: readonly string[], input = ''): Promise<string> {
    const { start = (work) => work(), program = 'nft' } = this.#options;
    return new Promise((resolve, reject) => {
      const env = { ...process.env, LC_ALL: 'C', PATH: `${process.env.PATH ?? ''}:${PATH}` };
      const child = start(() => spawn(program, words, { env, timeout: TIMEOUT_MS, killSignal: 'SIGKILL' }));
      let [output, errors] = ['', ''];
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        if (output.length < MAX_OUTPUT) output += text;
      });
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        if (errors.length < MAX_MESSAGE) errors += text;
      });
      // A program that ends before it has read all says why itself.
      child.stdin.on('error', () => undefined).end(input);
      child.on('error', (error) => reject(startError(program, error)));
      child.on('close', (code, signal) => {
        if (code === 0) resolve(output);
        else reject(failure(words, code ?? signal, errors));
      });
    });
  }
}

/** The program that keeps fences is not there. */
class MissingProgramError extends Error {
  override readonly name = 'MissingProgramError';
}

function startError(program: string, error: Error): Error {
  if (!('code' in error) || error.code !== 'ENOENT') return error;
  return new MissingProgramError(
    `the program ${program} is not there: install the package nftables (apt-get install nftables). ` +
      'Without it nothing keeps packets that the policy protects from leaving in the clear when a route changes, ' +
      "nor clear ones from coming in; <device routes='none'/> leaves all of it to you",
  );
}

function failure(words: readonly string[], how: number | string | null, errors: string): Error {
  const text = errors.trim().replace(/\s+/g, ' ').slice(0, MAX_MESSAGE);
  const hint = /not permitted|denied/i.test(text) ? '. It takes root, or the capability CAP_NET_ADMIN' : '';
  return new Error(`nft ${words.join(' ')} ended with ${how}: ${text}${hint}`);
}

/** The same in each run, so that what a crash left behind is found again. */
function idOf(kind: FencePart['kind'], key: string): string {
  return `${kind[0]}${createHash('sha256').update(key).digest('hex').slice(0, 12)}`;
}

function parseCounters(json: string): Map<string, number> {
  return new Map(
    objects(json, 'counter')
      .filter(({ table }) => table === FENCE_TABLE)
      .map(({ name, packets }) => [String(name), Number(packets)]),
  );
}

/** @throws Error when nft says what is not JSON as it is known */
function objects(json: string, kind: string): Readonly<Record<string, unknown>>[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(json);
  } catch (error) {
    throw new Error(`nft answered what is not JSON: ${messageOf(error)}`);
  }
  const list = isRecord(parsed) && Array.isArray(parsed.nftables) ? parsed.nftables : [];
  return list.flatMap((item: unknown) => (isRecord(item) && isRecord(item[kind]) ? [item[kind]] : []));
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}
