/** A table of nftables, read from the text that `nft list table` prints. Pure. */
import { elementsOf, openedIn, unquoted, wordsOf } from './words.ts';

export type Hook = 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting';

/** Where a chain is asked. */
export interface BaseChain {
  readonly type: 'filter' | 'nat' | 'route';
  readonly hook: Hook;
  /** Lower ones are asked first. */
  readonly priority: number;
  readonly policy: 'accept' | 'drop';
}

export interface Chain {
  readonly name: string;
  /** `undefined` for one that others jump to. */
  readonly base: BaseChain | undefined;
  /** As printed, in their order. */
  readonly rules: readonly string[];
}

export interface Table {
  /** `inet filter` */
  readonly title: string;
  readonly family: 'ip' | 'ip6' | 'inet';
  readonly chains: ReadonlyMap<string, Chain>;
  /** Elements of sets and maps, as printed; those with more than `MAX_ELEMENTS` are left out. */
  readonly sets: ReadonlyMap<string, readonly string[]>;
}

/** Families whose packets are those of IP, when they are routed. */
const FAMILIES = ['ip', 'ip6', 'inet'] as const;
const HOOKS: readonly string[] = ['prerouting', 'input', 'forward', 'output', 'postrouting'];
/** BOUNDED: elements that a packet is held against. */
const MAX_ELEMENTS = 20_000;
/** NF_IP_PRI_* of linux/netfilter_ipv4.h, by nft's names. */
const PRIORITIES: Readonly<Record<string, number>> = {
  raw: -300,
  mangle: -150,
  dstnat: -100,
  filter: 0,
  security: 50,
  srcnat: 100,
};

/** `table inet filter` of `nft list tables`: its title; of other families `undefined`. */
export function readTitle(line: string): { readonly family: Table['family']; readonly title: string } | undefined {
  const [, family, name] = /^table (\w+) (\S+)/.exec(line.trim()) ?? [];
  const known = FAMILIES.find((one) => one === family);
  return known === undefined || name === undefined ? undefined : { family: known, title: `${known} ${name}` };
}

/** `undefined` for one whose rules are not asked (flag dormant), or of a family that routes nothing. */
export function parseTable(text: string): Table | undefined {
  const [first = '', ...lines] = joined(text);
  const title = readTitle(first);
  if (title === undefined) return undefined;
  const chains = new Map<string, Chain>();
  const sets = new Map<string, readonly string[]>();
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at]!;
    if (/^flags .*\bdormant\b/.test(line)) return undefined;
    const [, kind, name] = /^(\w+) (\S+) \{$/.exec(line) ?? [];
    if (kind === undefined || name === undefined) continue;
    const body: string[] = [];
    for (at++; at < lines.length && lines[at] !== '}'; at++) body.push(lines[at]!);
    if (kind === 'chain') chains.set(name, readChain(name, body));
    else if (kind === 'set' || kind === 'map') {
      const elements = readElements(body);
      if (elements.length <= MAX_ELEMENTS) sets.set(name, elements);
    }
  }
  return { ...title, chains, sets };
}

/** Lines without their margins; elements that are printed on several are on one. */
function joined(text: string): string[] {
  const lines: string[] = [];
  let parts: string[] = [];
  let depth = 0;
  for (const raw of text.split('\n')) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    // A block's own bracket stays open at the end of its line.
    const opened = parts.length === 0 && line.endsWith('{') ? 0 : openedIn(line);
    parts.push(line);
    depth += opened;
    if (depth > 0) continue;
    lines.push(parts.join(' '));
    parts = [];
    depth = 0;
  }
  return lines;
}

function readChain(name: string, body: readonly string[]): Chain {
  const head = body.find((line) => /^type \w+ hook /.test(line));
  const rules = body.filter((line) => line !== head && !/^comment "/.test(line));
  return { name, base: head === undefined ? undefined : readBase(head), rules };
}

/** `type filter hook forward priority filter - 5; policy drop;` */
function readBase(head: string): BaseChain | undefined {
  const [, type, hook, priority = ''] = /^type (\w+) hook (\w+) .*?priority ([^;]+);/.exec(head) ?? [];
  if ((type !== 'filter' && type !== 'nat' && type !== 'route') || hook === undefined || !HOOKS.includes(hook)) {
    return undefined;
  }
  const policy = /policy drop;/.test(head) ? 'drop' : 'accept';
  return { type, hook: hook as Hook, priority: readPriority(priority), policy };
}

function readPriority(text: string): number {
  const [first = '', sign, by] = text.trim().split(/\s+/);
  const start = PRIORITIES[first] ?? Number(first);
  return by === undefined ? start : start + (sign === '-' ? -1 : 1) * Number(by);
}

function readElements(body: readonly string[]): string[] {
  const line = body.find((one) => one.startsWith('elements = '));
  return line === undefined ? [] : elementsOf(line.slice('elements = '.length));
}

/** The set of that name; `undefined` when it is not known. @param word `@blocked` */
export function namedSet({ sets }: Table, word: string): readonly string[] | undefined {
  return sets.get(unquoted(word.slice(1)));
}

/** The key of an element and, in a map, what it leads to. */
export function splitElement(element: string): { readonly key: string; readonly data: string | undefined } {
  const words = wordsOf(element);
  const colon = words.indexOf(':');
  const key = (colon < 0 ? words : words.slice(0, colon))
    .join(' ')
    .replace(/ (timeout|expires|counter|comment) .*/, '');
  return { key, data: colon < 0 ? undefined : words.slice(colon + 1).join(' ') };
}
