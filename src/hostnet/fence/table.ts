/**
 * The fence's table under watch: what it contained after our own last change, and whether that still holds.
 *
 * The kernel's notifications report at once what another program changes; without them it is found by comparing.
 * After each change of our own, or several that are made together, the objects that it concerns are read back. The result
 * counts as ours only if no other commit changed the table meanwhile, which the generations of nftables show.
 */

import { SystemError } from '../../sys/errno.ts';
import { NetlinkListener } from '../netlink/listener.ts';
import type { ObjectName } from '../netlink/nftables.ts';
import { NETLINK_NETFILTER, NFNLGRP_NFTABLES } from '../netlink/nftables-layout.ts';
import type { NftChannel } from '../nft/channel.ts';
import type { ReadBack } from './application.ts';
import { CommitLog } from './commits.ts';
import { contentDamage, type ObjectContent, type TableContent, TableReader } from './content.ts';
import type { LookScope } from './fence.ts';

/** More objects than these are read faster all together, */
const FEW_OBJECTS = 64;
/** where they are at least one in so many: asked for one by one, each takes that much longer. */
const ONE_BY_ONE_FACTOR = 4;
/** How often what a change concerned is read again when nftables changes meanwhile. */
const MAX_ATTEMPTS = 5;

export interface Difference {
  readonly name: ObjectName;
  /** What was found, in words that follow the name of the object. */
  readonly text: string;
  /** The object is none of ours. */
  readonly added: boolean;
}

export interface Comparison {
  readonly differences: readonly Difference[];
  /** Programs that changed something, where the kernel says. */
  readonly by: readonly string[];
}

const SAME: Comparison = { differences: [], by: [] };

/** What changes of our own made and was not read back yet. */
interface Unread {
  /** A generation before it. */
  readonly before: number;
  /** How many commits since then are ours. */
  readonly commits: number;
  /** The objects that it concerns. */
  readonly names: ReadonlySet<ObjectName> | 'all';
  /** It is read back with changes that follow: `before` is the generation that the last one made. */
  readonly isPostponed: boolean;
}

export class FenceTable {
  readonly #reader: TableReader;
  readonly #within: <T>(work: () => T) => T;
  readonly #commits: CommitLog;
  /** What our own changes left. BOUNDED: by the objects of the fence. */
  readonly #wanted = new Map<ObjectName, ObjectContent>();
  #listener: NetlinkListener | undefined;
  #onChange: (() => void) | undefined;
  /** Up to this generation the table contains what is wanted. */
  #verified = 0;
  #changing = false;
  #certain = true;
  #unread: Unread | undefined;

  /** @param within opens the socket that hears of changes: in the network namespace of the channel */
  constructor(name: string, channel: NftChannel, within: <T>(work: () => T) => T) {
    this.#within = within;
    this.#reader = new TableReader(name, channel);
    this.#commits = new CommitLog(name);
  }

  /** Calls `onChange` when other programs changed the table, or may have. @throws SystemError */
  watch(onChange: () => void): void {
    this.#listener = this.#within(
      () =>
        new NetlinkListener({
          protocol: NETLINK_NETFILTER,
          groups: [NFNLGRP_NFTABLES],
          onMessage: (message) => this.#commits.add(message),
          onOverrun: () => this.#commits.lost(),
          onRead: () => this.#notice(),
        }),
    );
    this.#onChange = onChange;
    // Earlier changes were not reported.
    if (this.#wanted.size > 0 || this.#unread !== undefined) this.#commits.lost();
  }

  async close(): Promise<void> {
    this.#onChange = undefined;
    await this.#listener?.close();
    this.#listener = undefined;
  }

  /** False while another program may have changed what was read back as ours: then all of it has to be made again. */
  get certain(): boolean {
    return this.#certain;
  }

  /** Whether other programs may have changed it since it was compared. */
  get suspect(): boolean {
    this.#listener?.drain();
    if (this.#unread !== undefined) return !this.#isUntouched(this.#unread);
    if (this.#wanted.size === 0) return false;
    return this.#listener === undefined || !this.#certain || this.#commits.touchedAfter(this.#verified) !== undefined;
  }

  /** Whether the kernel has the table, be it ours or another program's. @throws SystemError */
  async exists(): Promise<boolean> {
    return (await this.#reader.read(new Set(['table']))).has('table');
  }

  /**
   * Makes a change of our own.
   * @param names the objects that it concerns
   */
  async change(
    names: ReadonlySet<ObjectName> | 'all',
    make: () => Promise<void>,
    readBack: ReadBack = 'now',
  ): Promise<void> {
    const former = await this.#takePostponed();
    const before = this.#reader.generation();
    this.#listener?.drain();
    const unseen = this.#listener !== undefined && this.#commits.touchedAfter(this.#verified) !== undefined;
    this.#changing = true;
    try {
      try {
        await make();
      } catch (error) {
        // It may have been made all the same, where the answer was lost.
        if (this.#reader.generation() !== before) this.distrust();
        throw error;
      }
      this.#unread = { before, commits: 1, names: union(former, names), isPostponed: false };
      // It is made: what cannot be read back now is read back before the table is compared or changed again.
      await this.#follow(this.#unread, readBack).catch(rethrowUnlessRefused);
      if (unseen) this.distrust();
    } finally {
      this.#changing = false;
      this.#notice();
    }
  }

  async #follow(made: Unread, readBack: ReadBack): Promise<void> {
    const generation = this.#reader.generation();
    const isAlone = (generation - made.before) >>> 0 === 1;
    this.#listener?.drain();
    // A large change of our own is more than can be reported.
    if (isAlone) this.#commits.forgetLost();
    if (readBack === 'now' || !isAlone) return this.#readBackUnread();
    this.#unread = { ...made, before: generation, commits: 0, isPostponed: true };
    this.#settled(generation);
  }

  /** Reads back what was postponed, or could not be read before; what cannot be read now either stays for later. */
  async catchUp(): Promise<void> {
    await this.#readBackUnread().catch(rethrowUnlessRefused);
    this.#notice();
  }

  /** What earlier changes concerned that is read back with the next one. What cannot wait for that is read back. */
  async #takePostponed(): Promise<Unread['names'] | undefined> {
    const unread = this.#unread;
    if (unread !== undefined && this.#isUntouched(unread)) return unread.names;
    await this.#readBackUnread();
    return undefined;
  }

  /** Whether nothing was changed after changes that are read back later. */
  #isUntouched({ isPostponed, before }: Unread): boolean {
    return isPostponed && before === this.#reader.generation();
  }

  /** Compares what stands with what is wanted. @throws SystemError */
  async compare(scope: LookScope): Promise<Comparison> {
    await this.#readBackUnread();
    this.#listener?.drain();
    const touched =
      this.#listener === undefined ? { names: undefined, by: [] } : this.#commits.touchedAfter(this.#verified);
    if (touched === undefined && scope === 'reported') return SAME;
    const few =
      scope === 'everything' || touched?.names === undefined || touched.names.size > FEW_OBJECTS
        ? undefined
        : touched.names;
    if (few === undefined) this.#commits.forgetLost();
    try {
      const generation = this.#reader.generation();
      const found = await this.#reader.read(few);
      const names = few ?? new Set([...this.#wanted.keys(), ...found.keys()]);
      const differences = [...names].flatMap((name) => {
        const wanted = this.#wanted.get(name);
        const text = contentDamage(wanted, found.get(name), name);
        return text === undefined ? [] : [{ name, text, added: wanted === undefined }];
      });
      this.#settled(generation);
      return { differences, by: touched?.by ?? [] };
    } catch (error) {
      this.distrust();
      throw error;
    }
  }

  /** Anything may differ: the next comparison is of everything. */
  distrust(): void {
    this.#commits.lost();
  }

  /** @throws SystemError when it still cannot be read */
  async #readBackUnread(): Promise<void> {
    if (this.#unread === undefined) return;
    await this.#adopt(this.#unread);
    this.#unread = undefined;
  }

  /** Takes what is there now for what is wanted. */
  async #adopt({ before, commits: own, names }: Unread): Promise<void> {
    const { generation, found, steady } = await this.#readSteady(names);
    const concerned = names === 'all' ? new Set([...this.#wanted.keys(), ...found.keys()]) : names;
    const whole = names === 'all' || this.#isAll(concerned);
    for (const name of concerned) {
      const content = found.get(name);
      if (content === undefined) this.#wanted.delete(name);
      else this.#wanted.set(name, content);
    }
    this.#listener?.drain();
    const commits = (generation - before) >>> 0;
    const sole = steady && (commits <= own || this.#commits.isAll(own, before, generation));
    this.#certain = sole && (whole || this.#certain);
    this.#settled(generation);
  }

  #settled(generation: number): void {
    this.#verified = generation;
    this.#commits.settled(generation);
  }

  #isAll(names: ReadonlySet<ObjectName>): boolean {
    for (const name of this.#wanted.keys()) if (!names.has(name)) return false;
    return true;
  }

  /** `steady`: nftables did not change while it was read. */
  async #readSteady(
    names: ReadonlySet<ObjectName> | 'all',
  ): Promise<{ generation: number; found: TableContent; steady: boolean }> {
    for (let attempt = 1; ; attempt++) {
      const generation = this.#reader.generation();
      const found = await this.#reader.read(this.#some(names));
      const steady = this.#reader.generation() === generation;
      if (steady || attempt === MAX_ATTEMPTS) return { generation, found, steady };
    }
  }

  /** `undefined` where it is faster to read everything. */
  #some(names: ReadonlySet<ObjectName> | 'all'): ReadonlySet<ObjectName> | undefined {
    if (names === 'all') return undefined;
    return names.size > FEW_OBJECTS && names.size * ONE_BY_ONE_FACTOR >= this.#wanted.size ? undefined : names;
  }

  #notice(): void {
    // What follows postponed changes sees to it, and the channel may be in use.
    if (this.#changing || this.#unread?.isPostponed === true) return;
    if (this.#listener !== undefined && this.suspect) this.#onChange?.();
  }
}

function union(former: Unread['names'] | undefined, names: Unread['names']): Unread['names'] {
  if (former === undefined) return names;
  return former === 'all' || names === 'all' ? 'all' : new Set([...former, ...names]);
}

function rethrowUnlessRefused(error: unknown): void {
  if (!(error instanceof SystemError)) throw error;
}
