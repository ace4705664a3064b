/**
 * nftables' netlink messages (linux/netfilter/nf_tables.h), as far as they show what a table contains and which program
 * changed it: requests, and what of each answer is content. Handles, use counts and the values of counters are not. Pure.
 */
import type { IpFamily } from '../../base/address.ts';
import { equalBytes, readU32, toHex } from '../../base/bytes.ts';
import { utf8 } from '../../base/text.ts';
import type { Attributes } from './netlink.ts';
import { forEachAttribute, NetlinkRequest, NLM_F, parseAttributes, readName } from './netlink.ts';
import {
  NFGEN_SIZE,
  NFNL_SUBSYS_NFTABLES,
  NFPROTO,
  NFPROTO_INET,
  NFT_MSG,
  NFT_OBJECT_COUNTER,
  NFT_SET,
  NFTA_CHAIN,
  NFTA_CMP,
  NFTA_COUNTER,
  NFTA_DATA,
  NFTA_EXPR,
  NFTA_GEN,
  NFTA_IMMEDIATE,
  NFTA_OBJECT,
  NFTA_RULE,
  NFTA_SET,
  NFTA_SET_ELEM,
  NFTA_SET_ELEM_LIST,
  NFTA_TABLE,
  NFTA_VERDICT,
  nftType,
} from './nftables-layout.ts';

/** What the kernel writes into these while packets pass: not content. */
const STATEFUL: readonly Uint8Array[] = ['counter', 'quota', 'last'].map(zeroEnded);

/** An object of a table: `chain input`, `set remote4` (a map too), or `table`. */
export type ObjectName = 'table' | `chain ${string}` | `set ${string}`;

export function generationRequest(): NetlinkRequest {
  return request(NFT_MSG.GETGEN, 0);
}

export function tableRequest(table: string): NetlinkRequest {
  return request(NFT_MSG.GETTABLE, 0, table);
}

/** One chain of a table; without a name all chains of all tables of the family. */
export function chainsRequest(table: string, name?: string): NetlinkRequest {
  return named(NFT_MSG.GETCHAIN, table, name, NFTA_CHAIN.NAME);
}

export function setsRequest(table: string, name?: string): NetlinkRequest {
  return named(NFT_MSG.GETSET, table, name, NFTA_SET.NAME);
}

/** All counters with a name of the table. */
export function countersRequest(table: string): NetlinkRequest {
  return request(NFT_MSG.GETOBJ, NLM_F.DUMP, table).attribute(
    NFTA_OBJECT.TYPE,
    Uint8Array.of(0, 0, 0, NFT_OBJECT_COUNTER),
  );
}

/** Rules of a chain, or of the whole table. */
export function rulesRequest(table: string, chain?: string): NetlinkRequest {
  const rules = request(NFT_MSG.GETRULE, NLM_F.DUMP, table);
  return chain === undefined ? rules : rules.attribute(NFTA_RULE.CHAIN, zeroEnded(chain));
}

export function elementsRequest(table: string, set: string): NetlinkRequest {
  return request(NFT_MSG.GETSETELEM, NLM_F.DUMP, table).attribute(NFTA_SET_ELEM_LIST.SET, zeroEnded(set));
}

/** Rules of a chain of another program's table. */
export function foreignRulesRequest(family: IpFamily, table: string, chain: string): NetlinkRequest {
  return request(NFT_MSG.GETRULE, NLM_F.DUMP, table, NFPROTO[family]).attribute(NFTA_RULE.CHAIN, zeroEnded(chain));
}

function request(message: number, flags: number, table?: string, family: number = NFPROTO_INET): NetlinkRequest {
  const made = new NetlinkRequest(nftType(message), flags, Uint8Array.of(family, 0, 0, 0));
  return table === undefined ? made : made.attribute(NFTA_TABLE.NAME, zeroEnded(table));
}

function named(message: number, table: string, name: string | undefined, attribute: number): NetlinkRequest {
  if (name === undefined) return request(message, NLM_F.DUMP, table);
  return request(message, 0, table).attribute(attribute, zeroEnded(name));
}

function zeroEnded(text: string): Uint8Array {
  return utf8(`${text}\0`);
}

/** A number that grows with each commit of the namespace, modulo 2^32. `undefined` for another kind of message. */
export function parseGeneration(type: number, body: Uint8Array): Generation | undefined {
  if (type !== nftType(NFT_MSG.NEWGEN)) return undefined;
  const attributes = parseAttributes(body, NFGEN_SIZE);
  const id = attributes.get(NFTA_GEN.ID);
  const pid = attributes.get(NFTA_GEN.PROC_PID);
  const program = attributes.get(NFTA_GEN.PROC_NAME);
  return {
    id: id === undefined ? 0 : readU32(id, 0),
    by: program && `${readName(program)}${pid === undefined ? '' : `, process ${readU32(pid, 0)}`}`,
  };
}

export interface Generation {
  readonly id: number;
  /** The program that committed it, where the kernel says: `nft, process 4711`. */
  readonly by: string | undefined;
}

/**
 * Takes what a table contains out of the answers to a listing. A listing of a thousand tunnels has fifty thousand rules, so
 * it looks at no more than it needs, and makes of each rule or element a hash of 64 bits: enough to find what changed, not
 * to withstand forgery, but whoever can change the table can end the daemon as well.
 */
export class ContentParser {
  readonly #table: Uint8Array;
  readonly #found: ContentSink;
  /** The chain or set of the last item: most follow one of the same. */
  #lastName: Uint8Array = new Uint8Array(0);
  #lastObject: ObjectName = 'table';

  constructor(table: string, found: ContentSink) {
    this.#table = zeroEnded(table);
    this.#found = found;
  }

  /** Passes over other tables, and sets without a name. @throws DecodeError */
  add(type: number, body: Uint8Array): void {
    const table = attribute(body, NFGEN_SIZE, NFTA_TABLE.NAME);
    if (body[0] !== NFPROTO_INET || table === undefined || !equalBytes(table, this.#table)) return;
    switch (type & 0xff) {
      case NFT_MSG.NEWTABLE:
        this.#found.object('table', propertiesOf(body, [NFTA_TABLE.FLAGS]));
        break;
      case NFT_MSG.NEWCHAIN: {
        const { NAME, HOOK, POLICY, TYPE, FLAGS } = NFTA_CHAIN;
        this.#found.object(this.#object('chain', body, NAME), propertiesOf(body, [HOOK, POLICY, TYPE, FLAGS]));
        break;
      }
      case NFT_MSG.NEWRULE:
        this.#found.item(this.#object('chain', body, NFTA_RULE.CHAIN), ruleHash(body));
        break;
      case NFT_MSG.NEWSET:
        this.#addSet(body);
        break;
      case NFT_MSG.NEWSETELEM:
        this.#addElements(body);
        break;
    }
  }

  #addSet(body: Uint8Array): void {
    const { NAME, FLAGS, KEY_TYPE, KEY_LEN, DATA_TYPE, DATA_LEN, TIMEOUT } = NFTA_SET;
    const flags = attribute(body, NFGEN_SIZE, FLAGS);
    if (flags !== undefined && (readU32(flags, 0) & NFT_SET.ANONYMOUS) !== 0) return;
    const properties = propertiesOf(body, [FLAGS, KEY_TYPE, KEY_LEN, DATA_TYPE, DATA_LEN, TIMEOUT]);
    this.#found.object(this.#object('set', body, NAME), properties);
  }

  #addElements(body: Uint8Array): void {
    const set = this.#object('set', body, NFTA_SET_ELEM_LIST.SET);
    const list = attribute(body, NFGEN_SIZE, NFTA_SET_ELEM_LIST.ELEMENTS) ?? NOTHING;
    forEachAttribute(list, 0, (_, element) => this.#found.item(set, elementHash(element)));
  }

  #object(kind: 'chain' | 'set', body: Uint8Array, type: number): ObjectName {
    const name = attribute(body, NFGEN_SIZE, type) ?? NOTHING;
    if (!this.#lastObject.startsWith(kind) || !equalBytes(name, this.#lastName)) {
      this.#lastName = name;
      this.#lastObject = `${kind} ${readName(name)}`;
    }
    return this.#lastObject;
  }
}

/** What is reported of a table, in the order of the listing. */
export interface ContentSink {
  object(name: ObjectName, properties: string): void;
  item(name: ObjectName, hash: ContentHash): void;
}

/** Which object of a table a notification is about; `undefined` when it is about none. */
export function parseTouched(type: number, body: Uint8Array, table: string): ObjectName | undefined {
  if (type >>> 8 !== NFNL_SUBSYS_NFTABLES || type === nftType(NFT_MSG.NEWGEN) || body[0] !== NFPROTO_INET)
    return undefined;
  const attributes = parseAttributes(body, NFGEN_SIZE);
  if (nameOf(attributes, NFTA_TABLE.NAME) !== table) return undefined;
  switch (type & 0xff) {
    case NFT_MSG.NEWCHAIN:
    case NFT_MSG.DELCHAIN:
      return `chain ${nameOf(attributes, NFTA_CHAIN.NAME)}`;
    case NFT_MSG.NEWRULE:
    case NFT_MSG.DELRULE:
      return `chain ${nameOf(attributes, NFTA_RULE.CHAIN)}`;
    case NFT_MSG.NEWSET:
    case NFT_MSG.DELSET:
    case NFT_MSG.NEWSETELEM:
    case NFT_MSG.DELSETELEM:
      return `set ${nameOf(attributes, NFTA_SET.NAME)}`;
    default:
      return 'table';
  }
}

/** The name of a chain of that table. @param body of an answer to `chainsRequest` */
export function parseChainName(body: Uint8Array, table: string): string | undefined {
  return nameWithin(body, table, NFTA_CHAIN.NAME);
}

export interface Counter {
  readonly name: string;
  readonly packets: number;
}

/** @param body of an answer to `countersRequest` */
export function parseCounter(body: Uint8Array, table: string): Counter | undefined {
  const name = nameWithin(body, table, NFTA_OBJECT.NAME);
  const packets = attribute(attribute(body, NFGEN_SIZE, NFTA_OBJECT.DATA) ?? NOTHING, 0, NFTA_COUNTER.PACKETS);
  if (name === undefined || packets?.length !== 8) return undefined;
  return { name, packets: readU32(packets, 0) * 2 ** 32 + readU32(packets, 4) };
}

/** The name of an object of that table; `undefined` of others, which a listing may have. */
function nameWithin(body: Uint8Array, table: string, type: number): string | undefined {
  const [owner, name] = [NFTA_TABLE.NAME, type].map((number) => attribute(body, NFGEN_SIZE, number));
  if (body[0] !== NFPROTO_INET || owner === undefined || name === undefined) return undefined;
  return readName(owner) === table ? readName(name) : undefined;
}

/** Whose table of IPv4 or IPv6 a notification is about; `undefined` when it is about none. */
export function parseForeignTable(type: number, body: Uint8Array): string | undefined {
  if (type >>> 8 !== NFNL_SUBSYS_NFTABLES || type === nftType(NFT_MSG.NEWGEN)) return undefined;
  if (body[0] !== NFPROTO[4] && body[0] !== NFPROTO[6]) return undefined;
  return nameOf(parseAttributes(body, NFGEN_SIZE), NFTA_TABLE.NAME);
}

/** What a rule compares parts of packets with, hexadecimal, and the chain that it leads to. */
export interface RuleFacts {
  readonly constants: readonly string[];
  readonly jump: string | undefined;
}

/** @param body of an answer to `foreignRulesRequest` */
export function parseRule(body: Uint8Array): RuleFacts {
  const constants: string[] = [];
  let jump: string | undefined;
  forEachAttribute(attribute(body, NFGEN_SIZE, NFTA_RULE.EXPRESSIONS) ?? NOTHING, 0, (_, expression) => {
    const name = readName(attribute(expression, 0, NFTA_EXPR.NAME) ?? NOTHING);
    const data = attribute(expression, 0, NFTA_EXPR.DATA) ?? NOTHING;
    if (name === 'cmp') {
      const value = attribute(attribute(data, 0, NFTA_CMP.DATA) ?? NOTHING, 0, NFTA_DATA.VALUE);
      if (value !== undefined) constants.push(toHex(value));
    } else if (name === 'immediate') {
      const verdict = attribute(attribute(data, 0, NFTA_IMMEDIATE.DATA) ?? NOTHING, 0, NFTA_DATA.VERDICT);
      const chain = attribute(verdict ?? NOTHING, 0, NFTA_VERDICT.CHAIN);
      if (chain !== undefined) jump = readName(chain);
    }
  });
  return { constants, jump };
}

function nameOf(attributes: Attributes, attribute: number): string {
  const bytes = attributes.get(attribute);
  return bytes === undefined ? '' : readName(bytes);
}

const NOTHING = new Uint8Array(0);

/** The value of the first attribute of a type. */
function attribute(body: Uint8Array, from: number, type: number): Uint8Array | undefined {
  for (let at = from; at + 4 <= body.length; ) {
    const length = body[at]! | (body[at + 1]! << 8);
    if (length < 4 || at + length > body.length) break;
    if ((body[at + 2]! | ((body[at + 3]! & 0x3f) << 8)) === type) return body.subarray(at + 4, at + length);
    at += (length + 3) & ~3;
  }
  return undefined;
}

/** The attributes of these types, as text. */
function propertiesOf(body: Uint8Array, types: readonly number[]): string {
  return types.map((type) => toHex(attribute(body, NFGEN_SIZE, type) ?? NOTHING)).join('.');
}

/** The expressions, without what the kernel counts in them, and the comment. */
function ruleHash(body: Uint8Array): ContentHash {
  const hash = new ContentHash();
  const { NAME, DATA } = NFTA_EXPR;
  forEachAttribute(attribute(body, NFGEN_SIZE, NFTA_RULE.EXPRESSIONS) ?? NOTHING, 0, (_, expression) => {
    const name = attribute(expression, 0, NAME) ?? NOTHING;
    hash.bytes(name);
    if (!STATEFUL.some((other) => equalBytes(other, name))) hash.bytes(attribute(expression, 0, DATA) ?? NOTHING);
  });
  hash.bytes(attribute(body, NFGEN_SIZE, NFTA_RULE.USERDATA) ?? NOTHING);
  return hash;
}

function elementHash(element: Uint8Array): ContentHash {
  const hash = new ContentHash();
  const { KEY, DATA, FLAGS, OBJREF, KEY_END } = NFTA_SET_ELEM;
  for (const type of [KEY, KEY_END, DATA, FLAGS, OBJREF]) hash.bytes(attribute(element, 0, type) ?? NOTHING);
  return hash;
}

/** Two FNV-1a hashes of 32 bits with different starts. */
export class ContentHash {
  high = 0x811c_9dc5;
  low = 0x2f0b_4c47;

  /** Bytes, and how many there are. */
  bytes(bytes: Uint8Array): void {
    let { high, low } = this;
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at]!;
      high = Math.imul(high ^ byte, FNV_PRIME);
      low = Math.imul(low ^ byte, FNV_PRIME);
      low ^= low >>> 15;
    }
    this.high = Math.imul(high ^ bytes.length, FNV_PRIME);
    this.low = Math.imul(low ^ bytes.length, FNV_PRIME);
  }
}

const FNV_PRIME = 0x0100_0193;
