/**
 * The SAs of one entry of the outbound policy, and which of them carry a packet. Where the entry is populated from packets
 * (RFC 4301 §4.4.1.2) it has an SA for each value, found by a hash however many there are.
 */
import type { Flow } from '../policy/flow.ts';
import { type PacketFlags, populatedKey, populatedKeyOf } from '../policy/populate.ts';
import type { EspOutboundSa } from './outbound-sa.ts';

/** Old and new SAs for the same packets, narrowed ones and those of several peers included. */
export const MAX_SAS_PER_ENTRY = 16;
/** Those of an entry that is populated from packets. */
export const MAX_POPULATED_SAS = 512;

/** SAs for the same packets. BOUNDED: MAX_SAS_PER_ENTRY both together. */
class SaList {
  /** The sending one first; the others take over when its selectors do not fit or it expires. */
  readonly active: EspOutboundSa[] = [];
  /** Installed, but not to be sent on until they are activated. */
  readonly standby: EspOutboundSa[] = [];

  get size(): number {
    return this.active.length + this.standby.length;
  }

  has(sa: EspOutboundSa): boolean {
    return this.active.includes(sa) || this.standby.includes(sa);
  }
}

const NONE: readonly EspOutboundSa[] = [];

export class EntrySas {
  /** Those that are for any packet of the entry. */
  readonly #all = new SaList();
  readonly #flags: PacketFlags | undefined;
  /** By the hash of the values that they are for. BOUNDED: MAX_POPULATED_SAS, an empty list is not kept. */
  readonly #populated: Map<number, SaList> | undefined;
  #populatedSize = 0;

  constructor(flags: PacketFlags | undefined) {
    this.#flags = flags;
    this.#populated = flags && new Map();
  }

  /** Those that are for any packet of the entry and may be sent on, the best first. */
  get active(): readonly EspOutboundSa[] {
    return this.#all.active;
  }

  /** Whether `forFlow` may have any. */
  get isPopulated(): boolean {
    return this.#populatedSize > 0;
  }

  /** Those that are for the values of the packet, if its hash is no accident; the best first. */
  forFlow(flow: Flow): readonly EspOutboundSa[] {
    return this.#populated!.get(populatedKey(this.#flags!, flow))?.active ?? NONE;
  }

  /** False, with nothing changed, when there are as many as there may be, or it is there. */
  add(sa: EspOutboundSa, activate: boolean): boolean {
    const key = this.#keyOf(sa);
    const list = this.#listOf(key) ?? new SaList();
    if (list.size >= MAX_SAS_PER_ENTRY || list.has(sa)) return false;
    if (key !== undefined) {
      if (this.#populatedSize >= MAX_POPULATED_SAS) return false;
      this.#populated!.set(key, list);
      this.#populatedSize++;
    }
    if (activate) list.active.unshift(sa);
    else list.standby.push(sa);
    return true;
  }

  /** From now on it comes first among those for its packets. */
  activate(sa: EspOutboundSa): void {
    const list = this.#listOf(this.#keyOf(sa));
    if (list !== undefined && (take(list.standby, sa) || take(list.active, sa))) list.active.unshift(sa);
  }

  remove(sa: EspOutboundSa): void {
    const key = this.#keyOf(sa);
    const list = this.#listOf(key);
    if (list === undefined || !(take(list.standby, sa) || take(list.active, sa)) || key === undefined) return;
    this.#populatedSize--;
    if (list.size === 0) this.#populated!.delete(key);
  }

  isActive(sa: EspOutboundSa): boolean {
    return this.#listOf(this.#keyOf(sa))?.active.includes(sa) === true;
  }

  *sas(): Generator<EspOutboundSa> {
    for (const list of [this.#all, ...(this.#populated?.values() ?? [])]) yield* [...list.active, ...list.standby];
  }

  /** Whether the packet is for an SA of which the peer has taken its part away. For packets that none carries. */
  isNarrowedAway(flow: Flow): boolean {
    const offered = (sa: EspOutboundSa): boolean => sa.usable && sa.offered?.matchesFlow(flow, true) === true;
    return this.#all.active.some(offered) || (this.isPopulated && this.forFlow(flow).some(offered));
  }

  #keyOf(sa: EspOutboundSa): number | undefined {
    return this.#flags && populatedKeyOf(this.#flags, sa.selectors.selectors);
  }

  #listOf(key: number | undefined): SaList | undefined {
    return key === undefined ? this.#all : this.#populated!.get(key);
  }
}

/** Removes the SA from a list; whether it was there. */
function take(list: EspOutboundSa[], sa: EspOutboundSa): boolean {
  const at = list.indexOf(sa);
  if (at >= 0) list.splice(at, 1);
  return at >= 0;
}
