/**
 * A rule in nft(8)'s words as the expressions of the kernel: the same that nft(8) makes of it. What a field presumes (the family, the
 * protocol) is compared first, unless the rule has done so; two fields side by side that have one value each are one comparison.
 */
import { concatBytes } from '../../base/bytes.ts';
import { NFPROTO, NFT_CMP, NFT_META, NFT_REG } from '../netlink/nftables-layout.ts';
import { type Expression, type Load, parseVerdict } from './expressions.ts';
import {
  type Field,
  FRAGMENT_HEADER,
  MARK,
  PACKET_FAMILY,
  SHOWS_PROTOCOL,
  TRANSPORT_PROTOCOL,
  takeField,
} from './fields.ts';
import { hostBytes, numberOf, prefixMask, type Span } from './values.ts';
import type { Words } from './words.ts';

/** A set without a name: of the rule alone. */
export interface OwnSet {
  readonly id: number;
  readonly field: Field;
  /** A value each. */
  readonly values: readonly Uint8Array[];
}

export interface CompiledRule {
  readonly expressions: readonly Expression[];
  readonly sets: readonly OwnSet[];
}

/** How the kernel names sets that have no name. */
export const NO_NAME = '__set%d';

/** Bytes of a register: what is longer is not compared together with its neighbour. */
const REGISTER_BYTES = 4;

/** @param nextSetId gives each set without a name a number that no other one of the batch has */
export function compileRule(words: Words, nextSetId: () => number): CompiledRule {
  const rule = new Rule(words, nextSetId);
  if (words.atEnd) throw words.unknown('its end');
  while (!words.atEnd) rule.take();
  return rule;
}

class Rule implements CompiledRule {
  readonly expressions: Expression[] = [];
  readonly sets: OwnSet[] = [];
  readonly #words: Words;
  readonly #nextSetId: () => number;
  /** What all packets have that come so far. */
  #family: number | undefined;
  #protocol: number | undefined;

  constructor(words: Words, nextSetId: () => number) {
    this.#words = words;
    this.#nextSetId = nextSetId;
  }

  /** The next statement or comparison. */
  take(): void {
    if (!this.#takesStatement()) this.#takeMatch();
  }

  #takesStatement(): boolean {
    const words = this.#words;
    if (words.takes('counter', 'name')) {
      this.expressions.push({ kind: 'counter', name: words.next() });
      return true;
    }
    if (words.takes('meta', 'mark')) {
      this.#takeMark();
      return true;
    }
    return this.#takesVerdict();
  }

  /** The last of a rule. */
  #takesVerdict(): boolean {
    const words = this.#words;
    const verdict = parseVerdict(words);
    if (verdict !== undefined) this.expressions.push({ kind: 'verdict', verdict });
    else if (words.takes('reject', 'with', 'icmpx', 'admin-prohibited')) this.expressions.push({ kind: 'reject' });
    else if (words.takes('snat', 'ip', 'to')) this.#takeOwnAddress(NFPROTO[4]);
    else if (words.takes('snat', 'ip6', 'to')) this.#takeOwnAddress(NFPROTO[6]);
    else return false;
    words.end();
    return true;
  }

  /** Translation to an address of the packet itself. */
  #takeOwnAddress(family: number): void {
    const field = takeField(this.#words);
    if (field.family !== family) throw this.#words.unknown('snat');
    this.#presume(field);
    this.#load(field.load);
    this.expressions.push({ kind: 'snat', family });
  }

  /** Behind `meta mark`: `set meta mark or 4`, `set meta mark and 4`, or `and 4 == 0`. */
  #takeMark(): void {
    const words = this.#words;
    const isSet = words.takes('set', 'meta', 'mark');
    const operation = words.next();
    const bits = numberOf(words.peeked);
    if (bits === undefined || !(operation === 'and' || (operation === 'or' && isSet))) throw words.unknown(operation);
    words.next();
    this.#load(MARK.load);
    const [mask, xor] = operation === 'and' ? [bits, 0] : [~bits >>> 0, bits];
    this.expressions.push({ kind: 'bitwise', mask: hostBytes(mask)!, xor: hostBytes(xor)! });
    if (isSet) this.expressions.push({ kind: 'set-meta', key: NFT_META.MARK });
    else this.#compare(this.#takeSign(), this.#single(MARK, words.next()));
  }

  #takeMatch(): void {
    const words = this.#words;
    if (words.takes('exthdr', 'frag')) {
      this.#presume(FRAGMENT_HEADER);
      this.#load(FRAGMENT_HEADER.load);
      const exists = words.takes('exists');
      if (!exists) words.expect('missing');
      this.#compare(NFT_CMP.EQ, Uint8Array.of(exists ? 1 : 0));
      return;
    }
    const field = takeField(words);
    if (words.peeked === '.' || words.peeked === 'vmap') this.#takeVerdictMap(field);
    else {
      this.#presume(field);
      this.#takeValue(field);
    }
  }

  /** `ip saddr . ip daddr vmap @out4`: the values behind one another in memory, in registers of 4 bytes or of 16. */
  #takeVerdictMap(first: Field): void {
    const words = this.#words;
    const fields = [first];
    while (words.takes('.')) fields.push(takeField(words));
    words.expect('vmap');
    const map = nameOf(words.next());
    if (map === undefined) throw words.unknown('vmap');
    for (const field of fields) this.#presume(field);
    let at = 0;
    for (const { load, type } of fields) {
      this.#load(load, at % 4 === 0 ? NFT_REG.FIRST + at / 4 : NFT_REG.FIRST_OF_4 + at);
      at += Math.ceil(type.length / REGISTER_BYTES);
    }
    this.expressions.push({ kind: 'verdicts', map });
  }

  #takeValue(field: Field): void {
    const words = this.#words;
    if (words.takes('&')) {
      this.#loadMasked(field.load, this.#single(field, words.next()));
      this.#compare(this.#takeSign(), this.#single(field, words.next()));
      return;
    }
    if (field.mask !== undefined) {
      this.#loadMasked(field.load, field.mask);
      const [sign, value] = [this.#takeSign(), this.#single(field, words.next())];
      // A field that ends before its last byte does would have to be shifted.
      if ((field.mask.at(-1)! & 1) === 0 && value.some((byte) => byte !== 0))
        throw words.unknown('a value behind a mask');
      this.#compare(sign, value);
      return;
    }
    const sign = this.#takeSign();
    const set = nameOf(words.peeked);
    if (set !== undefined || words.peeked === '{') this.#takeLookup(field, sign, set);
    else this.#takeSpanOf(field, sign);
  }

  #takeLookup(field: Field, sign: number, set: string | undefined): void {
    const words = this.#words;
    if (sign !== NFT_CMP.EQ && (sign !== NFT_CMP.NEQ || set === undefined)) throw words.unknown(words.peeked);
    words.next();
    this.#load(field.load);
    if (set !== undefined) {
      this.expressions.push({ kind: 'lookup', set, inverted: sign === NFT_CMP.NEQ });
      return;
    }
    const values: Uint8Array[] = [];
    for (let more = true; more; ) {
      const word = words.next();
      more = word.endsWith(',');
      values.push(this.#single(field, more ? word.slice(0, -1) : word));
    }
    words.expect('}');
    const id = this.#nextSetId();
    this.sets.push({ id, field, values });
    this.expressions.push({ kind: 'lookup', set: NO_NAME, setId: id, inverted: false });
  }

  /** A value, a prefix, or a range. */
  #takeSpanOf(field: Field, sign: number): void {
    const words = this.#words;
    const { start, end, prefixLength } = this.#takeSpan(field);
    const { load } = field;
    const isSingle = start.every((byte, at) => byte === end[at]);
    // What is in the host's order is not compared byte by byte.
    if (sign === NFT_CMP.GTE && load.kind !== 'payload') throw words.unknown('>=');
    if (isSingle && prefixLength === undefined) {
      this.#compareLoaded(load, sign, start);
      if (sign === NFT_CMP.EQ) this.#learn(field, start);
      return;
    }
    if (sign !== NFT_CMP.EQ || load.kind !== 'payload') throw words.unknown('a range');
    if (prefixLength === undefined) {
      this.#load(load);
      this.#compare(NFT_CMP.GTE, start);
      this.#compare(NFT_CMP.LTE, end);
    } else if (prefixLength % 8 === 0 && prefixLength > 0) {
      const length = prefixLength / 8;
      this.#load({ ...load, length });
      this.#compare(NFT_CMP.EQ, start.subarray(0, length));
    } else {
      this.#loadMasked(load, prefixMask(prefixLength, start.length));
      this.#compare(NFT_CMP.EQ, start);
    }
  }

  /** A sign; `==` where there is none. */
  #takeSign(): number {
    const words = this.#words;
    if (words.takes('!=')) return NFT_CMP.NEQ;
    if (words.takes('>=')) return NFT_CMP.GTE;
    words.takes('==');
    return NFT_CMP.EQ;
  }

  #takeSpan({ type }: Field): Span {
    const word = this.#words.next();
    const span = type.parse(word);
    if (span === undefined) throw this.#words.unknown(word);
    return span;
  }

  #single({ type }: Field, word: string): Uint8Array {
    const span = type.parse(word);
    if (span === undefined || span.start.some((byte, at) => byte !== span.end[at])) throw this.#words.unknown(word);
    return span.start;
  }

  #load(load: Load, register: number = NFT_REG.FIRST): void {
    this.expressions.push({ kind: 'load', load, register });
  }

  #loadMasked(load: Load, mask: Uint8Array): void {
    this.#load(load);
    this.expressions.push({ kind: 'bitwise', mask, xor: new Uint8Array(mask.length) });
  }

  #compare(op: number, value: Uint8Array): void {
    this.expressions.push({ kind: 'cmp', op, value });
  }

  /** Together with what was compared last, where that is the field before it. */
  #compareLoaded(load: Load, op: number, value: Uint8Array): void {
    const [before, comparison] = this.expressions.slice(-2);
    const isNext =
      op === NFT_CMP.EQ &&
      load.kind === 'payload' &&
      before?.kind === 'load' &&
      before.load.kind === 'payload' &&
      comparison?.kind === 'cmp' &&
      comparison.op === NFT_CMP.EQ &&
      before.load.base === load.base &&
      before.load.offset + before.load.length === load.offset &&
      before.load.length + load.length <= REGISTER_BYTES;
    if (isNext) {
      this.expressions.splice(-2);
      this.#load({ ...before.load, length: before.load.length + load.length });
      this.#compare(op, concatBytes(comparison.value, value));
    } else {
      this.#load(load);
      this.#compare(op, value);
    }
  }

  /** Compares the family and the protocol that the field presumes, once. */
  #presume({ family, protocol }: Field): void {
    if (family !== undefined && this.#family === undefined) {
      this.#compareLoaded(PACKET_FAMILY.load, NFT_CMP.EQ, Uint8Array.of(family));
      this.#family = family;
    }
    if (protocol !== undefined && this.#protocol === undefined) {
      this.#compareLoaded(TRANSPORT_PROTOCOL.load, NFT_CMP.EQ, Uint8Array.of(protocol));
      this.#protocol = protocol;
    }
    if (family !== undefined && family !== this.#family) throw this.#words.unknown('another family');
    if (protocol !== undefined && protocol !== this.#protocol) throw this.#words.unknown('another protocol');
  }

  #learn(field: Field, [value]: Uint8Array): void {
    if (field === PACKET_FAMILY) this.#family ??= value;
    else if (SHOWS_PROTOCOL.includes(field)) this.#protocol ??= value;
  }
}

/** `@out4` */
function nameOf(word: string): string | undefined {
  return /^@(\w+)$/.exec(word)?.[1];
}
