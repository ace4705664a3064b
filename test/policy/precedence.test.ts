/** Which of two tunnels is asked first for what the policies of both are for. */
import { describe, expect, it } from 'vitest';
import { type AddressRange, parseAddress, prefixRange } from '../../src/base/address.ts';
import type { PolicyAction, PolicyEntry } from '../../src/policy/database.ts';
import { claimsOf, meetings, precedenceOf } from '../../src/policy/precedence.ts';
import { protocolByName } from '../../src/policy/protocols.ts';
import { makeSelector } from '../../src/policy/selector.ts';

function range(text: string): AddressRange {
  const [address, length] = text.split('/');
  return prefixRange(parseAddress(address!)!, Number(length));
}

interface Words {
  readonly local?: string;
  readonly priority?: number;
  readonly action?: PolicyAction;
  readonly protocol?: string;
  readonly port?: number;
}

function entry(
  remote: string,
  { local = '10.1.0.0/24', priority = 0, action = 'protect', protocol, port }: Words = {},
): PolicyEntry {
  const number = protocol === undefined ? 0 : protocolByName(protocol)!;
  const ports = port === undefined ? undefined : { startPort: port, endPort: port };
  return {
    name: remote,
    direction: 'out',
    action,
    priority,
    level: 'require',
    selectors: { local: [makeSelector(range(local), number)], remote: [makeSelector(range(remote), number, ports)] },
  };
}

function order(one: readonly PolicyEntry[], other: readonly PolicyEntry[]): string {
  const found = meetings(claimsOf(one), claimsOf(other))!;
  const back = precedenceOf(meetings(claimsOf(other), claimsOf(one))!);
  const there = precedenceOf(found);
  const mirrored = { before: 'after', after: 'before', undecided: 'undecided', both: 'both' } as const;
  expect(back).toBe(mirrored[there]);
  if (found.length === 0) return 'apart';
  return found.some(({ same }) => same) ? 'same' : there;
}

describe('of two tunnels', () => {
  it.each<readonly [string, readonly PolicyEntry[], readonly PolicyEntry[], string]>([
    ['have nothing in common', [entry('10.2.0.0/24')], [entry('10.3.0.0/24')], 'apart'],
    ['are of different families', [entry('0.0.0.0/0')], [entry('::/0', { local: '::/0' })], 'apart'],
    ['have other local addresses', [entry('10.2.0.0/24')], [entry('10.2.0.0/24', { local: '10.9.0.0/24' })], 'apart'],
    [
      'have other protocols',
      [entry('10.2.0.0/24', { protocol: 'udp' })],
      [entry('10.2.0.0/24', { protocol: 'tcp' })],
      'apart',
    ],
    ['the more specific goes first', [entry('10.2.0.0/24')], [entry('0.0.0.0/0')], 'before'],
    [
      'one protocol is more specific than all',
      [entry('10.2.0.0/24', { protocol: 'udp' })],
      [entry('10.2.0.0/24')],
      'before',
    ],
    [
      'a port is more specific',
      [entry('10.2.0.0/24', { protocol: 'udp', port: 53 })],
      [entry('10.2.0.0/24', { protocol: 'udp' })],
      'before',
    ],
    ['a priority goes before size', [entry('10.2.0.0/24')], [entry('0.0.0.0/0', { priority: 1 })], 'after'],
    ['equal ones are told', [entry('10.2.0.0/24')], [entry('10.2.0.0/24')], 'same'],
    [
      'equal ones of another priority are ordered',
      [entry('10.2.0.0/24', { priority: 7 })],
      [entry('10.2.0.0/24')],
      'before',
    ],
    [
      'those that cross are undecided',
      [entry('10.2.0.0/16', { local: '10.1.0.0/24' })],
      [entry('10.2.0.0/24', { local: '10.1.0.0/16' })],
      'undecided',
    ],
    [
      'some go before and some behind',
      [entry('10.2.0.0/24'), entry('0.0.0.0/0')],
      [entry('10.3.0.0/24'), entry('10.0.0.0/8')],
      'both',
    ],
    [
      'what passes in the clear claims nothing',
      [entry('10.2.0.0/24', { action: 'bypass' })],
      [entry('10.2.0.0/24')],
      'apart',
    ],
    ['what is discarded is claimed', [entry('0.0.0.0/0', { action: 'discard' })], [entry('10.2.0.0/24')], 'after'],
  ])('%s', (_, one, other, wanted) => {
    expect(order(one, other)).toBe(wanted);
  });

  it('gives no result for too many pairs, instead of taking long', () => {
    const many = Array.from({ length: 1_001 }, (_, at) => entry(`10.2.${at >> 8}.${at & 0xff}/32`));
    expect(meetings(claimsOf(many), claimsOf(many))).toBeUndefined();
    expect(meetings(claimsOf(many), claimsOf([entry('10.3.0.0/24')]))).toEqual([]);
  });
});
