/**
 * The tables of other programs that stand in the kernel of a network namespace, as nft(8) prints them: those of nftables, of
 * firewalld, Docker, libvirt, and of iptables where it is the one of nftables.
 */
import { readFileSync } from 'node:fs';
import { messageOf } from '../../base/text.ts';
import { MAX_OUTPUT } from '../../sys/program.ts';
import { TABLE } from '../fence/nft-words.ts';
import { runNft } from './nft-program.ts';

export interface ForeignTables {
  /** One for each table. */
  readonly texts: readonly string[];
  /** What there is besides and was not looked at, and why: a phrase each. */
  readonly unread: readonly string[];
}

/** BOUNDED: tables that are listed, characters and milliseconds for all of them. */
const MAX_TABLES = 64;
const MAX_TEXT = MAX_OUTPUT;
const TIME = 5_000;
/** Families of tables that routed packets of IP pass; of others `netdev` is asked by what a link takes in. */
const FAMILIES: readonly string[] = ['ip', 'ip6', 'inet'];

/** @param within does its work in the network namespace that is meant */
export async function listForeignTables(within: <T>(work: () => T) => T): Promise<ForeignTables> {
  const unread = within(legacyTables);
  const deadline = performance.now() + TIME;
  const nft = (words: readonly string[]): Promise<string> =>
    runNft(words, { timeout: Math.max(1, Math.round(deadline - performance.now())), start: within });
  let titles: string[];
  try {
    titles = titlesOf(await nft(['list', 'tables']));
  } catch (error) {
    return { texts: [], unread: [...unread, `nftables (${messageOf(error)})`] };
  }
  const texts: string[] = [];
  let room = MAX_TEXT;
  for (const [at, title] of titles.entries()) {
    const [family = ''] = title.split(' ');
    if (family === 'netdev') unread.push(`table ${title}, which is asked before routing`);
    if (!FAMILIES.includes(family)) continue;
    if (at >= MAX_TABLES || performance.now() >= deadline) {
      unread.push(`${titles.length - at} tables of nftables from table ${title} on, as there are too many`);
      break;
    }
    try {
      const text = await nft(['--stateless', 'list', 'table', ...title.split(' ')]);
      room -= text.length;
      if (room > 0) texts.push(text);
      else unread.push(`table ${title}, as there is too much`);
    } catch (error) {
      // It may have gone meanwhile.
      if (!/No such file or directory/.test(messageOf(error))) unread.push(`table ${title} (${messageOf(error)})`);
    }
  }
  return { texts, unread };
}

/** All but our own. */
function titlesOf(listed: string): string[] {
  return listed.split('\n').flatMap((line) => {
    const [, title] = /^table (\w+ \S+)/.exec(line.trim()) ?? [];
    return title === undefined || title === TABLE ? [] : [title];
  });
}

/** Those of iptables before nftables, which no netlink lists. */
function legacyTables(): string[] {
  return (['ip', 'ip6'] as const).flatMap((word) => {
    const names = namesIn(`/proc/thread-self/net/${word}_tables_names`);
    const program = word === 'ip' ? 'iptables-legacy' : 'ip6tables-legacy';
    return names.length === 0 ? [] : [`tables of ${program}: ${names.join(', ')} (see: ${program}-save)`];
  });
}

/** Empty where the kernel has none. */
function namesIn(file: string): string[] {
  try {
    return readFileSync(file, 'utf8')
      .split('\n')
      .filter((name) => name !== '');
  } catch (error) {
    if (error instanceof Error && 'code' in error) return [];
    throw error;
  }
}
