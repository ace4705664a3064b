/** One rule of nftables, as printed: whether it is for a packet, and what it does with it then. */
import { type IpAddress, parseAddress } from '../../base/address.ts';
import { splitElement, type Table } from './listing.ts';
import { type Fit, fits, fitsNot, type Test, testOf, valuesOf } from './match.ts';
import type { HookPacket } from './packet.ts';
import { elementsOf, unquoted, wordsOf } from './words.ts';

export type Action =
  | { readonly type: 'accept' | 'return' }
  /** `how`: drop, reject, … `certain` false: another program decides, as with `queue`. */
  | { readonly type: 'drop'; readonly how: string; readonly certain: boolean }
  | { readonly type: 'jump' | 'goto'; readonly chain: string }
  /** New addresses; `undefined` where the rule does not say which. */
  | { readonly type: 'source' | 'destination'; readonly how: string; readonly to: IpAddress | undefined }
  | { readonly type: 'mark'; readonly mark: number | undefined };

/** What a rule does with a packet, in its order, and whether it comes to that. */
export interface Done {
  readonly fit: Exclude<Fit, 'no'>;
  readonly action: Action;
}

/** How much may still be looked at: rules, elements of sets and maps, and `WORDS` words of a long rule each count one. */
export interface Budget {
  left: number;
}

/** Rules that programs make have fewer; longer ones, in chains that lead to each other, would take seconds. */
const WORDS = 32;

/** What is done with the packet; empty when the rule is not for it, or only counts or logs. */
export function doneBy(rule: string, packet: HookPacket, table: Table, budget: Budget): readonly Done[] {
  const words = wordsOf(rule);
  budget.left -= Math.floor(words.length / WORDS);
  return new RuleReader(words, packet, table, budget).read();
}

/** Words that take a number of others with them, and decide nothing. */
const IDLE: Readonly<Record<string, number>> = { notrack: 0, comment: 1 };
/** What one of these is followed by belongs to it. */
const IDLE_OPTIONS: Readonly<Record<string, ReadonlySet<string>>> = {
  counter: new Set(['name', 'packets', 'bytes']),
  log: new Set(['prefix', 'level', 'group', 'snaplen', 'queue-threshold', 'flags']),
};
/** Headers and data of a packet, each with a field and a value; where a field is not known here a rule may fit. */
const SUBJECTS = /^(ct|meta|ip|ip6|tcp|udp|th|sctp|dccp|udplite|icmp|icmpv6|ether|fib|rt|socket|esp|ah|ipsec|exthdr)$/;
const ONE_WORD = /^(iif|oif|iifname|oifname|iifgroup|oifgroup|iiftype|oiftype|pkttype|skuid|skgid)$/;
/** Targets of iptables that nft cannot print as its own, and that let a packet go on as it is. */
const IDLE_TARGETS =
  /^(LOG|NFLOG|TRACE|CT|NOTRACK|TCPMSS|CHECKSUM|CLASSIFY|DSCP|TOS|SET|AUDIT|HL|TTL|SECMARK|CONNSECMARK|RATEEST|LED|IDLETIMER|TEE)$/;

class RuleReader {
  readonly #words: readonly string[];
  readonly #packet: HookPacket;
  readonly #table: Table;
  readonly #budget: Budget;
  readonly #done: Done[] = [];
  #at = 0;
  #fit: Exclude<Fit, 'no'> = 'yes';
  /** A part is not understood: what follows may belong to it, and nothing that follows excludes the packet. */
  #lost = false;

  constructor(words: readonly string[], packet: HookPacket, table: Table, budget: Budget) {
    this.#words = words;
    this.#packet = packet;
    this.#table = table;
    this.#budget = budget;
  }

  read(): readonly Done[] {
    while (this.#at < this.#words.length) {
      if (!this.#statement()) return this.#done;
    }
    return this.#done;
  }

  /** @returns false when the rule is at its end for the packet */
  #statement(): boolean {
    const word = this.#words[this.#at]!;
    const known = this.#idle(word) || this.#setMark() || this.#act(word);
    if (known) return !this.#done.some(({ action }) => isFinal(action));
    if (this.#lost) {
      this.#at++;
      return true;
    }
    const found = this.#match(word);
    if (found === 'no') return false;
    if (found === 'maybe') this.#fit = 'maybe';
    return true;
  }

  #take(count: number): void {
    this.#at += count;
  }

  #idle(word: string): boolean {
    const follow = IDLE[word];
    if (follow !== undefined) {
      this.#take(1 + follow);
      return true;
    }
    const options = IDLE_OPTIONS[word];
    if (options !== undefined) {
      this.#take(1);
      while (options.has(this.#words[this.#at] ?? '')) this.#take(2);
      return true;
    }
    const [, next, third] = this.#words.slice(this.#at, this.#at + 3);
    if (word === 'xt' && next === 'target' && IDLE_TARGETS.test(unquoted(third ?? ''))) {
      this.#take(3);
      return true;
    }
    // What is set of the packet, other than its mark, is not asked for here.
    if (third === 'set' && SUBJECTS.test(word) && next !== 'mark') {
      this.#take(4);
      return true;
    }
    return false;
  }

  #setMark(): boolean {
    const [word, next, third] = this.#words.slice(this.#at, this.#at + 3);
    if (next !== 'mark' || third !== 'set' || (word !== 'meta' && word !== 'ct')) return false;
    this.#take(3);
    const mark = this.#markExpression();
    if (word === 'meta') this.#done.push({ fit: this.#fit, action: { type: 'mark', mark } });
    return true;
  }

  /** `0x10`, `meta mark | 0x10`, `mark and 0xffffff00 xor 0x1`. */
  #markExpression(): number | undefined {
    let value: number | undefined;
    const [subject] = this.#words.slice(this.#at);
    if (subject === 'meta' || subject === 'ct') this.#take(1);
    if (subject !== 'ct')
      value = this.#words[this.#at] === 'mark' ? this.#packet.mark : numberOf(this.#words[this.#at]);
    this.#take(1);
    for (;;) {
      const operation = OPERATIONS[this.#words[this.#at] ?? ''];
      const operand = numberOf(this.#words[this.#at + 1]);
      if (operation === undefined || operand === undefined) return value;
      if (value !== undefined) value = operation(value, operand) >>> 0;
      this.#take(2);
    }
  }

  /** What is done with the packet. */
  #act(word: string): boolean {
    const next = this.#words[this.#at + 1] ?? '';
    switch (word) {
      case 'accept':
      case 'return':
        return this.#add({ type: word });
      case 'continue':
        this.#take(1);
        return true;
      case 'drop':
      case 'reject':
        return this.#add({ type: 'drop', how: word, certain: true });
      case 'queue':
      case 'synproxy':
      case 'tproxy':
        return this.#add({ type: 'drop', how: word, certain: false });
      case 'jump':
      case 'goto':
        return this.#add({ type: word, chain: unquoted(next) });
      case 'masquerade':
        return this.#add({ type: 'source', how: word, to: undefined });
      case 'redirect':
        return this.#add({ type: 'destination', how: word, to: undefined });
      case 'snat':
      case 'dnat':
        // Elsewhere it is a state of the connection (ct status).
        return this.#words.slice(this.#at, this.#at + 3).includes('to') ? this.#translate(word) : false;
      case 'vmap':
        // In a rule whose key is not understood.
        return this.#lost ? this.#everyVerdict(next) : false;
      case 'xt':
        return next === 'target' ? this.#target(unquoted(this.#words[this.#at + 2] ?? '')) : false;
      default:
        return false;
    }
  }

  #add(action: Action): true {
    this.#done.push({ fit: this.#fit, action });
    this.#take(1);
    return true;
  }

  /** `snat to 10.1.0.1`, `dnat ip to 10.9.9.9:80`, `dnat ip6 to [fd00::2]:80`; for a range or a map, the address is not given. */
  #translate(word: 'snat' | 'dnat'): true {
    const to = this.#words.indexOf('to', this.#at);
    const text = to < 0 ? '' : (this.#words[to + 1] ?? '');
    const [, bracketed, plain] = /^(?:\[([^\]]+)\](?::[0-9-]+)?|([0-9.]+)(?::[0-9-]+)?)$/.exec(text) ?? [];
    const address = parseAddress(bracketed ?? plain ?? text);
    return this.#add({ type: word === 'snat' ? 'source' : 'destination', how: word, to: address });
  }

  /** A target of iptables that is known by its name alone. */
  #target(name: string): true {
    switch (name) {
      case 'MASQUERADE':
      case 'SNAT':
        return this.#add({ type: 'source', how: name, to: undefined });
      case 'DNAT':
      case 'REDIRECT':
        return this.#add({ type: 'destination', how: name, to: undefined });
      case 'REJECT':
        return this.#add({ type: 'drop', how: 'reject', certain: true });
      case 'MARK':
      case 'CONNMARK':
        return this.#add({ type: 'mark', mark: undefined });
      default:
        return this.#add({ type: 'drop', how: `target ${name}`, certain: false });
    }
  }

  /** Whether the packet is as the words from here say; afterwards stands behind them. */
  #match(word: string): Fit {
    const keyed = word === 'fib' ? 3 : ONE_WORD.test(word) ? 1 : SUBJECTS.test(word) ? 2 : 0;
    if (keyed === 0) return this.#lose();
    const test = testOf(this.#words.slice(this.#at, this.#at + keyed).join(' '), this.#packet);
    this.#take(keyed);
    const operator = this.#words[this.#at];
    if (operator === 'vmap') return this.#verdictMap(test);
    if (operator !== undefined && /^([.&|^/]|and|or|xor|set|map|<|>|<=|>=)$/.test(operator))
      return this.#masked(test, operator);
    if (operator === '==' || operator === '!=') this.#take(1);
    const value = this.#words[this.#at];
    this.#take(1);
    if (value === undefined || test === undefined) return 'maybe';
    const values = valuesOf(value, this.#table);
    if (values === undefined || !this.#spend(values.length)) return 'maybe';
    return operator === '!=' ? fitsNot(test, values) : fits(test, values);
  }

  #spend(elements: number): boolean {
    this.#budget.left -= elements;
    return this.#budget.left >= 0;
  }

  /** `meta mark & 0xff == 0x1` */
  #masked(test: Test | undefined, operator: string): Fit {
    const [, mask, comparison, value] = this.#words.slice(this.#at, this.#at + 4);
    const bits = numberOf(mask);
    const wanted = numberOf(value);
    const isMark = this.#words[this.#at - 1] === 'mark' && this.#words[this.#at - 2] === 'meta';
    if (!isMark || operator !== '&' || bits === undefined || wanted === undefined) return this.#lose();
    if (comparison !== '==' && comparison !== '!=') return this.#lose();
    this.#take(4);
    const { mark } = this.#packet;
    if (test === undefined || mark === undefined) return 'maybe';
    return ((mark & bits) >>> 0 === wanted) === (comparison === '==') ? 'yes' : 'no';
  }

  /** From here on all that is understood is what the rule does. */
  #lose(): Fit {
    this.#lost = true;
    return 'maybe';
  }

  /** `vmap { established : accept, invalid : drop }`. Keys do not overlap. */
  #verdictMap(test: Test | undefined): Fit {
    const map = this.#words[this.#at + 1] ?? '';
    const elements = map.startsWith('{') ? elementsOf(map) : this.#table.sets.get(unquoted(map.slice(1)));
    if (test === undefined || elements === undefined || !this.#spend(elements.length)) {
      this.#everyVerdict(map);
      return 'maybe';
    }
    this.#take(2);
    const before = this.#fit;
    for (const element of elements) {
      const { key, data = '' } = splitElement(element);
      const fit = fits(test, [key]);
      if (fit === 'no') continue;
      this.#fit = fit === 'yes' ? before : 'maybe';
      this.#verdict(data);
      this.#fit = before;
      if (fit === 'yes') break;
    }
    return 'yes';
  }

  /** Each that a map has may be that of the packet. */
  #everyVerdict(map: string): true {
    this.#take(2);
    const elements = map.startsWith('{') ? elementsOf(map) : (this.#table.sets.get(unquoted(map.slice(1))) ?? []);
    this.#fit = 'maybe';
    if (!this.#spend(elements.length)) return true;
    for (const verdict of new Set(elements.map((element) => splitElement(element).data ?? ''))) this.#verdict(verdict);
    return true;
  }

  #verdict(text: string): void {
    const [word = '', chain = ''] = text.split(' ');
    const fit = this.#fit;
    if (word === 'accept' || word === 'return') this.#done.push({ fit, action: { type: word } });
    else if (word === 'drop') this.#done.push({ fit, action: { type: 'drop', how: word, certain: true } });
    else if (word === 'jump' || word === 'goto')
      this.#done.push({ fit, action: { type: word, chain: unquoted(chain) } });
  }
}

const OPERATIONS: Readonly<Record<string, (a: number, b: number) => number>> = {
  '&': (a, b) => a & b,
  and: (a, b) => a & b,
  '|': (a, b) => a | b,
  or: (a, b) => a | b,
  '^': (a, b) => a ^ b,
  xor: (a, b) => a ^ b,
};

function numberOf(word: string | undefined): number | undefined {
  return word !== undefined && /^(0x[0-9a-f]+|[0-9]+)$/i.test(word) ? Number(word) : undefined;
}

function isFinal({ type }: Action): boolean {
  return type !== 'mark' && type !== 'jump';
}
