/**
 * The SAs of one entry of the outbound policy, and which of them carry a packet. There may be many: the entry is populated
 * from packets (RFC 4301 §4.4.1.2), or peers ask for parts of it. A packet finds its own however many there are.
 */
import { DESTINATION, type Flow, SOURCE } from '../policy/flow.ts';
import { type PacketFlags, populatedKey, populatedKeyOf } from '../policy/populate.ts';
import { mixHash } from '../policy/words.ts';
import type { EspOutboundSa } from './outbound-sa.ts';

/** Old and new SAs, narrowed ones and those of several peers included. */
export const MAX_SAS_PER_ENTRY = 512;

/** Up to this many SAs are searched for each packet. With more, the entry remembers which SA carried each flow. */
const CROWD = 4;
/** Places in the memory of which SA carried which flow: a power of two. */
const HINTS = 1_024;

/** SAs for the same packets. */
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

/** Of the SA that is looked for. */
export type WantedMode = 'any' | 'tunnel';

const NONE: readonly EspOutboundSa[] = [];

export class EntrySas {
  /** Those that are not for one value of what the entry is populated with. */
  readonly #all = new SaList();
  readonly #flags: PacketFlags | undefined;
  /** By the hash of the values that they are for; an empty list is not kept. */
  readonly #populated: Map<number, SaList> | undefined;
  /** BOUNDED: MAX_SAS_PER_ENTRY, all lists together. */
  #size = 0;
  /** By a hash of flows, the SAs that carried the last two; only where there are more than CROWD. BOUNDED: HINTS. */
  #hints: (EspOutboundSa | undefined)[] | undefined;

  constructor(flags: PacketFlags | undefined) {
    this.#flags = flags;
    this.#populated = flags && new Map();
  }

  /**
   * The best SA that carries packets of this flow. An ICMP error about such a packet needs one in tunnel mode: in transport
   * mode it would get the addresses of the SA at the other end.
   */
  select(flow: Flow, mode: WantedMode): EspOutboundSa | undefined {
    if (this.#isPopulated) {
      const own = bestOf(this.#forValues(flow), flow, mode);
      if (own !== undefined) return own;
    }
    const { active } = this.#all;
    if (active.length > CROWD) return this.#fromCrowd(flow, mode);
    // Written out: this is every packet's way, and the compiler has a limit for calls that it unfolds.
    for (let i = 0; i < active.length; i++) {
      const sa = active[i]!;
      if (carries(sa, flow, mode)) return sa;
    }
    return undefined;
  }

  /** Whether SAs are for some values each, which `#forValues` finds. */
  get #isPopulated(): boolean {
    return this.#populated !== undefined && this.#size > this.#all.size;
  }

  /** Those that are for the values of the packet, unless two hashes are equal by accident; the best first. */
  #forValues(flow: Flow): readonly EspOutboundSa[] {
    return this.#populated!.get(populatedKey(this.#flags!, flow))?.active ?? NONE;
  }

  /** The best of many. */
  #fromCrowd(flow: Flow, mode: WantedMode): EspOutboundSa | undefined {
    this.#hints ??= new Array<EspOutboundSa | undefined>(HINTS).fill(undefined);
    const newer = hashOf(flow) & (HINTS - 2);
    for (let at = newer; at <= newer + 1; at++) {
      const hint = this.#hints[at];
      if (hint !== undefined && carries(hint, flow, mode)) return hint;
    }
    const sa = bestOf(this.#all.active, flow, mode);
    if (sa === undefined) return undefined;
    this.#hints[newer + 1] = this.#hints[newer];
    this.#hints[newer] = sa;
    return sa;
  }

  /** False, with nothing changed, when there are as many as there may be, or it is there. */
  add(sa: EspOutboundSa, { active }: { readonly active: boolean }): boolean {
    const key = this.#keyOf(sa);
    const list = this.#listOf(key) ?? new SaList();
    if (this.#size >= MAX_SAS_PER_ENTRY || list.has(sa)) return false;
    if (key !== undefined) this.#populated!.set(key, list);
    this.#size++;
    if (active) list.active.unshift(sa);
    else list.standby.push(sa);
    this.#hints = undefined;
    return true;
  }

  /** From now on it comes first among those for its packets. */
  activate(sa: EspOutboundSa): void {
    const list = this.#listOf(this.#keyOf(sa));
    if (list !== undefined && (take(list.standby, sa) || take(list.active, sa))) list.active.unshift(sa);
    this.#hints = undefined;
  }

  remove(sa: EspOutboundSa): void {
    const key = this.#keyOf(sa);
    const list = this.#listOf(key);
    if (list === undefined || !(take(list.standby, sa) || take(list.active, sa))) return;
    this.#size--;
    this.#hints = undefined;
    if (key !== undefined && list.size === 0) this.#populated!.delete(key);
  }

  *sas(): Generator<EspOutboundSa> {
    for (const list of [this.#all, ...(this.#populated?.values() ?? [])]) yield* [...list.active, ...list.standby];
  }

  /** Whether SAs carry other packets of the entry, or other ones with the same values. For packets that none carries. */
  carriesOthers(flow: Flow): boolean {
    const isUsable = ({ usable }: EspOutboundSa): boolean => usable;
    return this.#all.active.some(isUsable) || (this.#isPopulated && this.#forValues(flow).some(isUsable));
  }

  #keyOf(sa: EspOutboundSa): number | undefined {
    return this.#flags && populatedKeyOf(this.#flags, sa.selectors.selectors);
  }

  #listOf(key: number | undefined): SaList | undefined {
    return key === undefined ? this.#all : this.#populated!.get(key);
  }
}

/** The first of a list that carries packets of a flow. */
function bestOf(sas: readonly EspOutboundSa[], flow: Flow, mode: WantedMode): EspOutboundSa | undefined {
  for (let i = 0; i < sas.length; i++) {
    const sa = sas[i]!;
    if (carries(sa, flow, mode)) return sa;
  }
  return undefined;
}

function carries(sa: EspOutboundSa, flow: Flow, mode: WantedMode): boolean {
  return sa.usable && (mode === 'any' || !sa.transport) && sa.selectors.matchesFlow(flow, true);
}

function hashOf({ family, words, protocol, srcPort, dstPort }: Flow): number {
  let hash = mixHash(mixHash(protocol, srcPort), dstPort);
  const step = family === 4 ? DESTINATION - SOURCE : 1;
  for (let i = 0; i < words.length; i += step) hash = mixHash(hash, words[i]! | 0);
  return hash;
}

/** Removes the SA from a list; whether it was there. */
function take(list: EspOutboundSa[], sa: EspOutboundSa): boolean {
  const at = list.indexOf(sa);
  if (at >= 0) list.splice(at, 1);
  return at >= 0;
}
