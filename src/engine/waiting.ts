/**
 * Packets that need an SA which does not exist: they wait while it is asked for, and when there is none, their senders get
 * ICMP (RFC 4301 §4.4.1, §5.1.1).
 */
import type { PacketBatch } from '../base/batch.ts';
import type { SetMap } from '../base/set-map.ts';
import { CompiledSelectors } from '../policy/compiled.ts';
import type { PolicyEntry } from '../policy/database.ts';
import { Flow, FlowError, readFlow } from '../policy/flow.ts';
import { flowSelectors } from '../policy/flow-values.ts';
import { type PacketFlags, populate, populatedKey, populatedKeyOf } from '../policy/populate.ts';
import type { SelectorPair } from '../policy/selector.ts';
import { asTrigger } from '../policy/uncovered.ts';
import { type HeldPacket, type HoldLimits, HoldQueue } from './hold.ts';
import type { IcmpReplies } from './icmp-replies.ts';
import { Refusals } from './refusals.ts';

/** Packets that find the queue full ask for their SA at most once in this many milliseconds. */
const ASK_AGAIN = 1_000;

export interface WaitingOptions {
  readonly entries: readonly PolicyEntry[];
  /** Indexes of the entries that a child carries. */
  readonly entriesOf: SetMap<string, number>;
  readonly hold: HoldLimits;
  readonly replies: IcmpReplies;
  /**
   * A packet needs an SA of the child. `selectors` are those of the SA where the child is populated from packets, `trigger`
   * is the packet.
   */
  readonly ask: (child: string, selectors: SelectorPair | undefined, trigger: SelectorPair) => void;
}

export class Waiting {
  readonly hold: HoldQueue;
  /** Whether packets wait at all. */
  enabled = false;
  readonly #options: WaitingOptions;
  readonly #refusals = new Refusals();
  /** By child: when a packet last asked for it. BOUNDED: by the policy. */
  readonly #askedAt = new Map<string, number>();
  readonly #flow = new Flow();

  constructor(options: WaitingOptions) {
    this.#options = options;
    this.hold = new HoldQueue(options.hold);
  }

  /** The packet in a slot met an entry that has no SA for it. Returns whether the peer has just refused one. */
  add(now: number, entry: number, batch: PacketBatch, slot: number, flow: Flow): boolean {
    const { entries, replies } = this.#options;
    const { hold } = this;
    const { child, pfp } = entries[entry]!;
    if (child === undefined) return false;
    const key = pfp === undefined ? 0 : populatedKey(pfp, flow);
    const refused = this.#refusals.holds(now, child, key) || this.#refusals.holdsPart(now, child, flow);
    if (!this.enabled || refused) {
      replies.unreachable(now, batch, slot, flow, refused ? 'prohibited' : 'host');
      return refused;
    }
    const held = hold.hasRoom(batch.length[slot]!) && hold.add(now, batch.packet(slot), entry, key);
    // A flood must not ask for every packet.
    if (!held && now - (this.#askedAt.get(child) ?? Number.NEGATIVE_INFINITY) < ASK_AGAIN) return false;
    this.#askedAt.set(child, now);
    this.#ask(entry, flow);
    return false;
  }

  /** Asks for each SA that is waited for, of one child or of all. */
  askAgain(only?: string): void {
    const asked = new Set<string>();
    for (const { data, entry, key } of [...this.hold.packets()]) {
      const { child } = this.#options.entries[entry]!;
      const what = `${child} ${key}`;
      if (only !== undefined && child !== only) continue;
      if (asked.has(what) || readFlow(data, 0, data.length, this.#flow) !== FlowError.none) continue;
      asked.add(what);
      this.#ask(entry, this.#flow);
    }
  }

  #ask(entry: number, flow: Flow): void {
    const { entries, ask } = this.#options;
    const { child, pfp, selectors: whole } = entries[entry]!;
    const selectors = pfp && populate(whole, pfp, flow);
    if (child === undefined || (pfp !== undefined && selectors === undefined)) return;
    ask(child, selectors, asTrigger(flowSelectors(flow, 'out')));
  }

  /** Takes packets that wait for an SA of the child, in their order; `hold.putBack` returns one to the queue. */
  take(child: string): readonly HeldPacket[] {
    const own = this.#options.entriesOf.get(child);
    return this.hold.length === 0 ? [] : this.hold.take(({ entry }) => own.has(entry));
  }

  /**
   * The peer refused the child: its packets do not wait until `until`.
   * @param selectors of the one SA of the child that was refused, where that was for a part of its packets
   * @returns how many packets waited for a part that the peer has narrowed away from other SAs
   */
  refuse(now: number, child: string, selectors: SelectorPair | undefined, until: number): number {
    const { entries, entriesOf, replies } = this.#options;
    const own = entriesOf.get(child);
    const [first] = own;
    if (first === undefined) return 0;
    const { pfp } = entries[first]!;
    const isRefused = this.#noteRefusal(child, pfp, selectors, until);
    const refused = this.hold.take((packet) => own.has(packet.entry) && isRefused(packet));
    for (const { data } of refused) replies.unreachableHeld(now, data, 'prohibited');
    // One packet has asked on behalf of all; packets of another part now ask themselves.
    if (refused.length > 0) this.askAgain(child);
    return pfp === undefined && selectors !== undefined ? refused.length : 0;
  }

  /** Returns which of the child's packets it is about. */
  #noteRefusal(
    child: string,
    pfp: PacketFlags | undefined,
    selectors: SelectorPair | undefined,
    until: number,
  ): (packet: HeldPacket) => boolean {
    if (selectors === undefined) {
      if (pfp === undefined) this.#refusals.add(child, 0, until);
      return () => true;
    }
    if (pfp === undefined) {
      const part = new CompiledSelectors(selectors);
      this.#refusals.addPart(child, part, until);
      return ({ data }) => this.#matches(part, data);
    }
    const refused = populatedKeyOf(pfp, selectors);
    if (refused !== undefined) this.#refusals.add(child, refused, until);
    return ({ key }) => key === refused;
  }

  #matches(part: CompiledSelectors, packet: Uint8Array): boolean {
    return readFlow(packet, 0, packet.length, this.#flow) === FlowError.none && part.matchesFlow(this.#flow, true);
  }

  /** Drops packets that waited too long: the peer did not answer in time, or not at all. */
  expire(now: number): void {
    for (const { data } of this.hold.expired(now)) this.#options.replies.unreachableHeld(now, data, 'host');
  }

  clear(): void {
    this.hold.clear();
    this.#refusals.clear();
  }
}
