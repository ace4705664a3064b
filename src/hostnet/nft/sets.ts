/**
 * Sets and maps in nft(8)'s words, as the kernel has them, with what nft(8) remembers with them to print them (userdata). There are
 * three kinds: sets of values; sets of ranges, whose starts and ends are elements of their own; and maps of several ranges to
 * verdicts, where an element has both.
 */
import { compareBytes, concatBytes } from '../../base/bytes.ts';
import {
  NFT_DATA_VERDICT,
  NFT_FIB_RESULT_ADDRTYPE,
  NFT_SET,
  NFT_SET_ELEM_INTERVAL_END,
  NFTA_SET,
  NFTA_SET_DESC,
  NFTA_SET_ELEM,
  NFTA_SET_FIELD_LEN,
} from '../netlink/nftables-layout.ts';
import { parseVerdict, type Verdict, writeVerdict } from './expressions.ts';
import type { Field } from './fields.ts';
import type { OwnSet } from './rule.ts';
import { after, hostBytes, ORDER, type Span, TYPES, type ValueType } from './values.ts';
import { Words } from './words.ts';
import type { MessageWriter } from './writer.ts';

/** Of a number of several types: bits for each. */
const TYPE_BITS = 6;

/** What nft(8) remembers with a set: numbers of what follows, each with its length. */
const REMEMBERED = { KEY_ORDER: 0, DATA_ORDER: 1, KEY_EXPRESSION: 3, DATA_IS_RANGE: 6 } as const;
/** An expression: its kind, and of each kind its own. */
const EXPRESSION = { PAYLOAD: 7, META: 9, CONCATENATION: 13, FIB: 26 } as const;
const [EXPRESSION_KIND, EXPRESSION_DATA] = [0, 1];
/** With an element: that no end of its range follows. */
const OPEN_RANGE = Uint8Array.of(1, 4, 1, 0, 0, 0);

/** @param words behind the set's name: `{ type ipv4_addr . ipv4_addr : verdict; flags interval; }` */
export function writeSet(to: MessageWriter, id: number, words: Words): void {
  words.expect('{', 'type');
  const types: ValueType[] = [];
  let isMap = false;
  let last = false;
  do {
    const word = words.next();
    last = word.endsWith(';');
    const name = last ? word.slice(0, -1) : word;
    if (isMap && name !== 'verdict') throw words.unknown(word);
    if (!isMap) types.push(typeNamed(name) ?? refuse(words, word));
    if (!last && words.takes(':')) isMap = true;
    else if (!last) words.expect('.');
  } while (!last);
  const isRange = words.takes('flags', 'interval;');
  words.expect('}');
  words.end();
  const hasParts = types.length > 1;
  // What of these an element is has to be seen from its key alone.
  if (isMap !== hasParts || isRange === (types[0] === TYPES.ifname && !hasParts)) throw words.unknown('{ type');
  to.u32(
    NFTA_SET.FLAGS,
    (isRange ? NFT_SET.INTERVAL : 0) | (isMap ? NFT_SET.MAP : 0) | (hasParts ? NFT_SET.CONCAT : 0),
  );
  to.u32(
    NFTA_SET.KEY_TYPE,
    types.reduce((number, type) => (number << TYPE_BITS) | type.id, 0),
  );
  to.u32(NFTA_SET.KEY_LEN, hasParts ? types.reduce((sum, { length }) => sum + padded(length), 0) : types[0]!.length);
  if (isMap) {
    to.u32(NFTA_SET.DATA_TYPE, NFT_DATA_VERDICT);
    to.u32(NFTA_SET.DATA_LEN, 0);
  }
  to.u32(NFTA_SET.ID, id);
  if (hasParts) writeParts(to, types);
  to.bytes(NFTA_SET.USERDATA, hasParts ? MAP_USERDATA : remembered(REMEMBERED.KEY_ORDER, hostBytes(types[0]!.order)));
}

function writeParts(to: MessageWriter, types: readonly ValueType[]): void {
  to.nested(NFTA_SET.DESC, () =>
    to.nested(NFTA_SET_DESC.CONCAT, () => {
      for (const { length } of types) to.element(() => to.u32(NFTA_SET_FIELD_LEN, length));
    }),
  );
}

/** The set of a rule alone. */
export function writeOwnSet(to: MessageWriter, { id, field, values }: OwnSet): void {
  const { load, type } = field;
  to.u32(NFTA_SET.FLAGS, NFT_SET.ANONYMOUS | NFT_SET.CONSTANT);
  to.u32(NFTA_SET.KEY_TYPE, type.id);
  to.u32(NFTA_SET.KEY_LEN, type.length);
  to.u32(NFTA_SET.ID, id);
  to.nested(NFTA_SET.DESC, () => to.u32(NFTA_SET_DESC.SIZE, values.length));
  const order = load.kind === 'payload' ? ORDER.BIG : ORDER.HOST;
  to.bytes(
    NFTA_SET.USERDATA,
    concatBytes(
      remembered(REMEMBERED.KEY_ORDER, hostBytes(order)),
      remembered(
        REMEMBERED.KEY_EXPRESSION,
        remembered(EXPRESSION_KIND, hostBytes(expressionKind(field))),
        remembered(
          EXPRESSION_DATA,
          ...expressionData(field).map((number, index) => remembered(index, hostBytes(number))),
        ),
      ),
    ),
  );
}

function expressionKind({ load }: Field): number {
  if (load.kind === 'meta') return EXPRESSION.META;
  return load.kind === 'fib' ? EXPRESSION.FIB : EXPRESSION.PAYLOAD;
}

function expressionData({ load, remembered: numbers }: Field): readonly number[] {
  if (load.kind === 'meta') return [load.key];
  if (load.kind === 'fib') return [NFT_FIB_RESULT_ADDRTYPE, load.flags];
  if (numbers === undefined) throw new Error('bug: the fence looks up no such field in a set without a name');
  return numbers;
}

export function writeOwnElements(to: MessageWriter, values: readonly Uint8Array[]): void {
  for (const value of values) to.element(() => to.data(NFTA_SET_ELEM.KEY, value));
}

/** Writes an element of a set into the list of its message. */
export type ElementWriter = (to: MessageWriter) => void;

/** @param text between the braces: `10.1.0.0/24 . 10.2.0.0/24 : jump t01_leave, …` */
export function elementWriters(words: Words, text: string): ElementWriter[] {
  const elements = text.split(', ').map((element) => parseElement(words, element));
  const [first] = elements;
  const isAlike = elements.every(({ types }) => types.every((type, at) => type === first!.types[at]));
  if (!isAlike) throw words.unknown('elements of several types');
  if (first!.types.length > 1) return elements.map(writePartsElement);
  if (elements.some(({ verdict }) => verdict !== undefined)) throw words.unknown(':');
  if (first!.types[0] === TYPES.ifname)
    return elements.map(
      ({ spans }) =>
        (to) =>
          writeKey(to, spans[0]!.start),
    );
  return rangeWriters(
    words,
    elements.map(({ spans }) => spans[0]!),
  );
}

interface Element {
  readonly types: readonly ValueType[];
  readonly spans: readonly Span[];
  readonly verdict: Verdict | undefined;
}

function parseElement(words: Words, text: string): Element {
  const [key = '', verdict, more] = text.split(' : ');
  if (more !== undefined) throw words.unknown(text);
  const parts = key.split(' . ');
  const types = parts.map(typeOfText);
  const spans = parts.map((part, at) => types[at]!.parse(part) ?? refuse(words, part));
  return { types, spans, verdict: verdict === undefined ? undefined : parseMapVerdict(words, verdict) };
}

function parseMapVerdict(words: Words, text: string): Verdict {
  const own = new Words(text);
  const verdict = parseVerdict(own) ?? refuse(words, text);
  own.end();
  return verdict;
}

function writePartsElement({ spans, verdict }: Element): ElementWriter {
  return (to) => {
    to.element(() => {
      to.data(NFTA_SET_ELEM.KEY, joined(spans.map(({ start }) => start)));
      to.data(NFTA_SET_ELEM.KEY_END, joined(spans.map(({ end }) => end)));
      if (verdict !== undefined) to.nested(NFTA_SET_ELEM.DATA, () => writeVerdict(to, verdict));
    });
  };
}

function rangeWriters(words: Words, spans: readonly Span[]): ElementWriter[] {
  const sorted = [...spans].sort((a, b) => compareBytes(a.start, b.start));
  if (sorted.some(({ start }, at) => at > 0 && compareBytes(sorted[at - 1]!.end, start) >= 0)) {
    throw words.unknown('overlapping ranges');
  }
  const writers: ElementWriter[] = [];
  for (const { start, end } of sorted) {
    const next = after(end);
    writers.push((to) => writeKey(to, start, { isOpen: next === undefined }));
    if (next !== undefined) writers.push((to) => writeRangeEnd(to, next));
  }
  return writers;
}

function writeKey(to: MessageWriter, value: Uint8Array, { isOpen = false }: { readonly isOpen?: boolean } = {}): void {
  to.element(() => {
    to.data(NFTA_SET_ELEM.KEY, value);
    if (isOpen) to.bytes(NFTA_SET_ELEM.USERDATA, OPEN_RANGE);
  });
}

function writeRangeEnd(to: MessageWriter, value: Uint8Array): void {
  to.element(() => {
    to.u32(NFTA_SET_ELEM.FLAGS, NFT_SET_ELEM_INTERVAL_END);
    to.data(NFTA_SET_ELEM.KEY, value);
  });
}

/** Which type a key is of can be seen. */
function typeOfText(text: string): ValueType {
  if (text.startsWith('"')) return TYPES.ifname;
  if (text.includes(':')) return TYPES.ipv6_addr;
  return text.includes('.') ? TYPES.ipv4_addr : TYPES.inet_proto;
}

function typeNamed(name: string): ValueType | undefined {
  return Object.hasOwn(TYPES, name) ? TYPES[name as keyof typeof TYPES] : undefined;
}

function refuse(words: Words, word: string): never {
  throw words.unknown(word);
}

/** Values behind one another, each from a multiple of four on. */
function joined(values: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(values.reduce((sum, { length }) => sum + padded(length), 0));
  let at = 0;
  for (const value of values) {
    bytes.set(value, at);
    at += padded(value.length);
  }
  return bytes;
}

function padded(length: number): number {
  return (length + 3) & ~3;
}

function remembered(type: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const value = concatBytes(...parts);
  return concatBytes(Uint8Array.of(type, value.length), value);
}

const MAP_USERDATA: Uint8Array = concatBytes(
  remembered(REMEMBERED.KEY_ORDER, hostBytes(ORDER.NONE)),
  remembered(REMEMBERED.DATA_ORDER, hostBytes(ORDER.NONE)),
  remembered(
    REMEMBERED.KEY_EXPRESSION,
    remembered(EXPRESSION_KIND, hostBytes(EXPRESSION.CONCATENATION)),
    remembered(EXPRESSION_DATA),
  ),
  remembered(REMEMBERED.DATA_IS_RANGE, hostBytes(0)),
);
