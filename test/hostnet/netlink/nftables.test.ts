/** What of nftables' messages is content, and what commits tell of a table. */
import { describe, expect, it } from 'vitest';
import { toHex } from '../../../src/base/bytes.ts';
import { utf8 } from '../../../src/base/text.ts';
import { CommitLog, isAfter } from '../../../src/hostnet/fence/commits.ts';
import { hostU32, NetlinkRequest } from '../../../src/hostnet/netlink/netlink.ts';
import {
  type ContentHash,
  ContentParser,
  elementsRequest,
  foreignRulesRequest,
  parseForeignTable,
  parseRule,
  rulesRequest,
} from '../../../src/hostnet/netlink/nftables.ts';
import type { NetlinkData } from '../../../src/hostnet/netlink/socket.ts';

/** Messages of linux/netfilter/nf_tables.h, subsystem 10. */
const MSG = { NEWTABLE: 0xa00, NEWCHAIN: 0xa03, NEWRULE: 0xa06, DELRULE: 0xa08, NEWSET: 0xa09, NEWSETELEM: 0xa0c };
const NEWGEN = 0xa0f;
const INET = 1;

const text = (value: string): Uint8Array => utf8(`${value}\0`);
const number = (value: number): Uint8Array => hostU32(value).reverse();

/** The attributes alone, padded. */
function attributes(list: readonly (readonly [number, Uint8Array])[]): Uint8Array {
  const request = new NetlinkRequest(0, 0, new Uint8Array(0));
  for (const [type, value] of list) request.attribute(type, value);
  return request.finish(0).subarray(16);
}

function message(type: number, list: readonly (readonly [number, Uint8Array])[], family = INET): NetlinkData {
  const body = Uint8Array.of(family, 0, 0, 0, ...attributes(list));
  return { kind: 'data', type, sequence: 0, body };
}

const expression = (name: string, data: Uint8Array): readonly [number, Uint8Array] => [
  1,
  attributes([
    [1, text(name)],
    [2, data],
  ]),
];

function rule(chain: string, expressions: readonly (readonly [number, Uint8Array])[], handle = 7): NetlinkData {
  return message(MSG.NEWRULE, [
    [1, text('sectunnel')],
    [2, text(chain)],
    [3, number(handle)],
    [4, attributes(expressions)],
    [6, number(handle - 1)],
  ]);
}

function contentOf(...messages: readonly NetlinkData[]): string[] {
  const found: string[] = [];
  const item = (name: string, { high, low }: ContentHash): void => void found.push(`${name}: ${high} ${low}`);
  const parser = new ContentParser('sectunnel', { object: (name, what) => found.push(`${name}: ${what}`), item });
  for (const { type, body } of messages) parser.add(type, body);
  return found;
}

describe('what a table contains', () => {
  it('is the expressions of its rules, without handles, places and counts', () => {
    const drop = expression('immediate', Uint8Array.of(1, 2, 3, 4));
    const counter = (count: number): readonly [number, Uint8Array] => expression('counter', number(count));
    const [plain] = contentOf(rule('out', [drop]));
    expect(contentOf(rule('out', [drop], 99))).toEqual([plain]);
    expect(contentOf(rule('out', [counter(1), drop]))).toEqual(contentOf(rule('out', [counter(2), drop])));
    const others = [
      rule('in', [drop]),
      rule('out', [expression('immediate', Uint8Array.of(1, 2, 3, 5))]),
      rule('out', [drop, drop]),
      rule('out', [counter(1), drop]),
      rule('out', []),
    ];
    const hashes = others.flatMap((other) => contentOf(other));
    expect(new Set([plain, ...hashes]).size).toBe(others.length + 1);
  });

  it('is its flags, and hook, policy and type of its chains, without their use', () => {
    const chain = (policy: number, use: number): NetlinkData =>
      message(MSG.NEWCHAIN, [
        [1, text('sectunnel')],
        [3, text('output')],
        [4, number(3)],
        [5, number(policy)],
        [6, number(use)],
      ]);
    expect(contentOf(chain(1, 1))).toEqual(contentOf(chain(1, 2)));
    expect(contentOf(chain(1, 1))).not.toEqual(contentOf(chain(0, 1)));
    const table = (flags: number): NetlinkData =>
      message(MSG.NEWTABLE, [
        [1, text('sectunnel')],
        [2, number(flags)],
      ]);
    expect(contentOf(table(0))).not.toEqual(contentOf(table(1)));
  });

  it('is the elements of sets with a name; nothing of other tables and families', () => {
    const set = (flags: number): NetlinkData =>
      message(MSG.NEWSET, [
        [1, text('sectunnel')],
        [2, text('remote4')],
        [3, number(flags)],
      ]);
    expect(contentOf(set(4))).toHaveLength(1);
    expect(contentOf(set(1 | 4))).toEqual([]);
    const element = (key: number, expiration: number): readonly [number, Uint8Array] => [
      1,
      attributes([
        [1, number(key)],
        [5, number(expiration)],
      ]),
    ];
    const elements = (...list: readonly (readonly [number, Uint8Array])[]): NetlinkData =>
      message(MSG.NEWSETELEM, [
        [1, text('sectunnel')],
        [2, text('remote4')],
        [3, attributes(list)],
      ]);
    const [first, second] = contentOf(elements(element(1, 5), element(2, 5)));
    expect(contentOf(elements(element(2, 6), element(1, 6)))).toEqual([second, first]);
    expect(first).not.toBe(second);
    const foreign = rule('out', []);
    expect(contentOf({ ...foreign, body: Uint8Array.of(2, ...foreign.body.subarray(1)) })).toEqual([]);
    expect(contentOf(message(MSG.NEWTABLE, [[1, text('sectunnel2')]]))).toEqual([]);
  });

  it('is asked for by table, chain and set', () => {
    expect(toHex(rulesRequest('t', 'c').finish(1).subarray(16))).toBe('010000000600010074000000060002006300' + '0000');
    expect(toHex(elementsRequest('t', 's').finish(1).subarray(4, 6))).toBe('0d0a');
  });
});

describe('commits of nftables', () => {
  const generation = (id: number, by = 'nft'): NetlinkData =>
    message(
      NEWGEN,
      [
        [1, number(id)],
        [2, number(4711)],
        [3, text(by)],
      ],
      0,
    );
  const touch = (chain: string): NetlinkData => ({ ...rule(chain, []), type: MSG.DELRULE });
  const other = (): NetlinkData =>
    message(MSG.NEWCHAIN, [
      [1, text('docker')],
      [3, text('output')],
    ]);

  const log = (...messages: readonly NetlinkData[]): CommitLog => {
    const commits = new CommitLog('sectunnel');
    for (const one of messages) commits.add(one);
    return commits;
  };

  it('tell which objects of the table were changed after a generation, and by which program', () => {
    const commits = log(
      other(),
      generation(5),
      touch('in'),
      other(),
      touch('out'),
      generation(6, 'evil\n'),
      generation(7),
    );
    expect(commits.touchedAfter(6)).toBeUndefined();
    expect(commits.touchedAfter(5)).toEqual({
      names: new Set(['chain in', 'chain out']),
      by: ['evil?, process 4711'],
    });
    commits.settled(6);
    expect(commits.touchedAfter(4)).toBeUndefined();
  });

  it('tell whether one alone changed it, when all of them are known', () => {
    const commits = log(
      other(),
      generation(5),
      touch('in'),
      generation(6),
      other(),
      generation(7),
      touch('in'),
      generation(8),
    );
    expect(commits.isAll(1, 4, 7)).toBe(true);
    expect(commits.isAll(1, 5, 6)).toBe(true);
    expect([commits.isAll(1, 4, 8), commits.isAll(1, 6, 7), commits.isAll(1, 3, 7)]).toEqual([false, false, false]);
  });

  it('go on at the end of their numbers', () => {
    expect([isAfter(0, 0xffff_ffff), isAfter(0xffff_ffff, 0), isAfter(5, 5)]).toEqual([true, false, false]);
    const commits = log(touch('in'), generation(0));
    expect(commits.touchedAfter(0xffff_fffe)?.names).toEqual(new Set(['chain in']));
    expect(log(generation(0xffff_ffff), touch('in'), generation(0)).isAll(1, 0xffff_fffe, 0)).toBe(true);
  });

  it('that were lost, or are too many to remember, may have changed anything', () => {
    const lost = log(touch('in'));
    lost.lost();
    expect(lost.touchedAfter(0)).toEqual({ names: undefined, by: [] });
    lost.forgetLost();
    expect(lost.touchedAfter(0)).toBeUndefined();
    const others = Array.from({ length: 300 }, (_, i) => generation(i + 2));
    expect(log(touch('in'), generation(1), ...others).touchedAfter(0)).toEqual({ names: undefined, by: [] });
    expect(log(generation(1), ...others).touchedAfter(0)).toBeUndefined();
  });
});

describe("other programs' rules", () => {
  const IP = 2;
  const IP6 = 10;
  /** `iifname "virbr9" ip saddr 10.1.0.0/24 counter jump guest`. */
  const body = message(
    MSG.NEWRULE,
    [
      [1, text('filter')],
      [2, text('FORWARD')],
      [
        4,
        attributes([
          expression('meta', attributes([[2, number(6)]])),
          expression('cmp', attributes([[3, attributes([[1, text('virbr9')]])]])),
          expression('cmp', attributes([[3, attributes([[1, Uint8Array.of(10, 1, 0)]])]])),
          expression('counter', number(5)),
          expression(
            'immediate',
            attributes([
              [
                2,
                attributes([
                  [
                    2,
                    attributes([
                      [1, number(1)],
                      [2, text('guest')],
                    ]),
                  ],
                ]),
              ],
            ]),
          ),
        ]),
      ],
    ],
    IP,
  ).body;

  it('are read as what they compare with and where they lead', () => {
    expect(parseRule(body)).toEqual({ constants: ['76697262723900', '0a0100'], jump: 'guest' });
    expect(parseRule(rule('out', [expression('immediate', Uint8Array.of())]).body)).toEqual({
      constants: [],
      jump: undefined,
    });
    expect(toHex(foreignRulesRequest(6, 'filter', 'FORWARD').finish(1)).slice(32, 40)).toBe('0a000000');
  });

  it('tell of their table when they change; those of ours are none', () => {
    expect(parseForeignTable(MSG.DELRULE, body)).toBe('filter');
    expect(parseForeignTable(MSG.NEWCHAIN, message(MSG.NEWCHAIN, [[1, text('nat')]], IP6).body)).toBe('nat');
    expect(parseForeignTable(MSG.NEWRULE, rule('out', []).body)).toBeUndefined();
    expect(parseForeignTable(NEWGEN, message(NEWGEN, [[1, text('filter')]], IP).body)).toBeUndefined();
  });
});
