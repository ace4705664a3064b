/**
 * The fence's table under watch: what it contained after our own last change, and whether that still holds.
 *
 * The kernel's notifications report at once what another program changes; without them it is found by comparing.
 * After each change of our own the objects that it concerns are read back. The result counts as ours only if no other commit
 * changed the table meanwhile, which the generations of nftables show.
 */

import { SystemError } from '../../sys/errno.ts';
import { NetlinkListener } from '../netlink/listener.ts';
import type { ObjectName } from '../netlink/nftables.ts';
import { NETLINK_NETFILTER, NFNLGRP_NFTABLES } from '../netlink/nftables-layout.ts';
import type { NftChannel } from '../nft/channel.ts';
import { CommitLog } from './commits.ts';
import { contentDamage, type ObjectContent, type TableContent, TableReader } from './content.ts';
import type { LookScope } from './fence.ts';

/** More objects than these are read faster all together. */
const FEW_OBJECTS = 64;
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
  /** Of a change of our own that was made and could not be read back yet: the generation before it, and what it concerned. */
  #unread: { readonly before: number; readonly names: ReadonlySet<ObjectName> | 'all' } | undefined;

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
    this.#commits.lost();
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
    if (this.#unread !== undefined) return true;
    if (this.#wanted.size === 0) return false;
    return this.#listener === undefined || !this.#certain || this.#commits.touchedAfter(this.#verified) !== undefined;
  }

  /** Whether the kernel has the table, be it ours or another program's. @throws SystemError */
  async exists(): Promise<boolean> {
    return (await this.#reader.read(new Set(['table']))).has('table');
  }

  /** Makes a change of our own. @param names the objects that it concerns */
  async change(names: ReadonlySet<ObjectName> | 'all', make: () => Promise<void>): Promise<void> {
    await this.#adoptUnread();
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
      this.#unread = { before, names };
      // It is made: what cannot be read back now is read back before the table is compared or changed again.
      await this.#adoptUnread().catch(rethrowUnlessRefused);
      if (unseen) this.distrust();
    } finally {
      this.#changing = false;
      this.#notice();
    }
  }

  /** Compares what stands with what is wanted. @throws SystemError */
  async compare(scope: LookScope): Promise<Comparison> {
    await this.#adoptUnread();
    this.#listener?.drain();
    const touched =
      this.#listener === undefined ? { names: undefined, by: [] } : this.#commits.touchedAfter(this.#verified);
    if (touched === undefined && scope === 'reported') return SAME;
    const few =
      scope === 'everything' || touched?.names === undefined || touched.names.size > FEW_OBJECTS
        ? undefined
        : touched.names;
    if (few === undefined) this.#commits.compareAll();
    try {
      const generation = this.#reader.generation();
      const found = await this.#reader.read(few);
      const names = few ?? new Set([...this.#wanted.keys(), ...found.keys()]);
      const differences = [...names].flatMap((name) => {
        const wanted = this.#wanted.get(name);
        const text = contentDamage(wanted, found.get(name), name);
        return text === undefined ? [] : [{ name, text, added: wanted === undefined }];
      });
      this.#verified = generation;
      this.#commits.settled(generation);
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
  async #adoptUnread(): Promise<void> {
    if (this.#unread === undefined) return;
    await this.#adopt(this.#unread.before, this.#unread.names);
    this.#unread = undefined;
  }

  /** Takes what is there now for what is wanted. */
  async #adopt(before: number, names: ReadonlySet<ObjectName> | 'all'): Promise<void> {
    const { generation, found, steady } = await this.#readBack(names);
    const concerned = names === 'all' ? new Set([...this.#wanted.keys(), ...found.keys()]) : names;
    const whole = names === 'all' || this.#isAll(concerned);
    for (const name of concerned) {
      const content = found.get(name);
      if (content === undefined) this.#wanted.delete(name);
      else this.#wanted.set(name, content);
    }
    this.#listener?.drain();
    const commits = (generation - before) >>> 0;
    const sole = steady && (commits <= 1 || this.#commits.isSole(before, generation));
    this.#certain = sole && (whole || this.#certain);
    this.#verified = generation;
    this.#commits.settled(generation);
  }

  #isAll(names: ReadonlySet<ObjectName>): boolean {
    for (const name of this.#wanted.keys()) if (!names.has(name)) return false;
    return true;
  }

  /** `steady`: nftables did not change while it was read. */
  async #readBack(
    names: ReadonlySet<ObjectName> | 'all',
  ): Promise<{ generation: number; found: TableContent; steady: boolean }> {
    for (let attempt = 1; ; attempt++) {
      const generation = this.#reader.generation();
      const found = await this.#reader.read(names === 'all' ? undefined : names);
      const steady = this.#reader.generation() === generation;
      if (steady || attempt === MAX_ATTEMPTS) return { generation, found, steady };
    }
  }

  #notice(): void {
    if (!this.#changing && this.#listener !== undefined && this.suspect) this.#onChange?.();
  }
}

function rethrowUnlessRefused(error: unknown): void {
  if (!(error instanceof SystemError)) throw error;
}
