/**
 * The policies of tunnels that share a device as one database (RFC 4301 §4.4.1): of the entries of all that match a packet
 * the one with the highest priority decides, and the packet is its tunnel's. Each tunnel keeps its own compiled policy;
 * which of thousands may match is found by addresses, so tunnels come and go at a cost that does not grow with their number.
 */
import type { IpFamily } from '../base/address.ts';
import { type AddressBox, AddressIndex } from './address-index.ts';
import { boxesOf, hullOf } from './boxes.ts';
import { type CompiledPolicy, FRAGMENT_UNDECIDED, NO_ENTRY, type PolicyEntry } from './database.ts';
import { DESTINATION, type Flow, SOURCE } from './flow.ts';
import { addressWords, compareWords } from './words.ts';

/** A policy of more boxes stands in the index by the hulls around them. */
const MAX_BOXES = 256;

/** Of an outbound packet: the remote address is its destination. */
const OUTBOUND = [DESTINATION, SOURCE] as const;

interface Member {
  readonly number: number;
  readonly policy: CompiledPolicy;
  /** Which came first. */
  readonly rank: number;
  readonly boxes: readonly MemberBox[];
}

interface MemberBox {
  readonly ranges: AddressBox;
  readonly member: Member;
  /** The ends of both ranges: remote, local. */
  readonly words: Uint32Array;
}

/** Outbound policies, each known by the number of its tunnel. */
export class SharedPolicy {
  readonly #index = new AddressIndex<MemberBox>();
  /** BOUNDED: by the owner, who deletes what was set. */
  readonly #members = new Map<number, Member>();
  #lastRank = 0;
  /** Of the look-up that is under way. */
  #flow: Flow | undefined;
  #best: Member | undefined;
  #bestPriority = Number.NEGATIVE_INFINITY;
  #fallback: Member | undefined;
  readonly #consider = (box: MemberBox): void => this.#weigh(box);

  get size(): number {
    return this.#members.size;
  }

  set(number: number, policy: CompiledPolicy): void {
    this.delete(number);
    const boxes: MemberBox[] = [];
    const member = { number, policy, rank: ++this.#lastRank, boxes };
    for (const ranges of rangesOf(policy.entries)) boxes.push({ ranges, member, words: wordsOf(ranges) });
    this.#members.set(number, member);
    for (const box of boxes) this.#index.add(box);
  }

  delete(number: number): void {
    const member = this.#members.get(number);
    if (member === undefined) return;
    this.#members.delete(number);
    for (const { ranges } of member.boxes) this.#index.delete(ranges, (box) => box.member === member);
  }

  /**
   * The number of the tunnel that decides about an outbound packet; `NO_ENTRY` when the policy of none matches. An entry that
   * bypasses lets its tunnel out: it decides only where no other does.
   */
  lookup(flow: Flow): number {
    this.#flow = flow;
    this.#forget();
    this.#index.at(flow.family, flow.words, OUTBOUND, this.#consider);
    const decides: Member | undefined = this.#best ?? this.#fallback;
    return decides?.number ?? NO_ENTRY;
  }

  #forget(): void {
    this.#best = undefined;
    this.#fallback = undefined;
    this.#bestPriority = Number.NEGATIVE_INFINITY;
  }

  #weigh({ member, words }: MemberBox): void {
    const flow = this.#flow!;
    if (member === this.#best || !holds(words, flow)) return;
    const found = member.policy.lookup(flow);
    if (found === NO_ENTRY) return;
    const entry = found === FRAGMENT_UNDECIDED ? undefined : member.policy.entries[found]!;
    if (entry === undefined || entry.action === 'bypass') {
      if (member.rank < (this.#fallback?.rank ?? Number.POSITIVE_INFINITY)) this.#fallback = member;
      return;
    }
    const isFirst = entry.priority === this.#bestPriority && member.rank < this.#best!.rank;
    if (entry.priority <= this.#bestPriority && !isFirst) return;
    this.#best = member;
    this.#bestPriority = entry.priority;
  }
}

function rangesOf(entries: readonly PolicyEntry[]): AddressBox[] {
  const boxes = entries.flatMap(({ selectors }) => boxesOf(selectors));
  if (boxes.length <= MAX_BOXES) return boxes.map(({ remote, local }) => [remote, local]);
  return ([4, 6] as const).flatMap((family: IpFamily): AddressBox[] => {
    const own = boxes.filter(({ remote }) => remote.start.family === family);
    if (own.length === 0) return [];
    const { remote, local } = hullOf(own);
    return [[remote, local]];
  });
}

function wordsOf(ranges: AddressBox): Uint32Array {
  return Uint32Array.from(ranges.flatMap(({ start, end }) => [...addressWords(start), ...addressWords(end)]));
}

function holds(words: Uint32Array, flow: Flow): boolean {
  const own = flow.words;
  if (flow.family === 4) {
    const remote = own[DESTINATION]!;
    const local = own[SOURCE]!;
    return remote >= words[0]! && remote <= words[1]! && local >= words[2]! && local <= words[3]!;
  }
  return (
    compareWords(own, DESTINATION, words, 0) >= 0 &&
    compareWords(own, DESTINATION, words, 4) <= 0 &&
    compareWords(own, SOURCE, words, 8) >= 0 &&
    compareWords(own, SOURCE, words, 12) <= 0
  );
}
