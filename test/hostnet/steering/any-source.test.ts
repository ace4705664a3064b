/** What of the host's own packets is dropped for its destination, whatever the source. */
import { describe, expect, it } from 'vitest';
import { formatRange } from '../../../src/base/address.ts';
import type { FenceEntry } from '../../../src/hostnet/fence/fence.ts';
import { anySourceEntries } from '../../../src/hostnet/steering/any-source.ts';
import type { PolicyBox } from '../../../src/hostnet/steering/plan.ts';
import { range } from '../../policy/helpers.ts';

function box(local: string, remote: string, change: Partial<PolicyBox> = {}): PolicyBox {
  return { action: 'protect', level: 'require', child: 'c', local: range(local), remote: range(remote), ...change };
}

function text({ action, local, remote, protocol, remotePorts }: FenceEntry): string {
  const upper = protocol === undefined ? '' : ` ${protocol}${remotePorts === undefined ? '' : `:${remotePorts.start}`}`;
  return `${action} ${formatRange(local)} > ${formatRange(remote)}${upper}`;
}

const entries = (...outbound: readonly PolicyBox[]): string[] => anySourceEntries(outbound, () => false).map(text);

describe('the host’s own packets from a source that the policy does not know', () => {
  it('are dropped to protected destinations, with the protocols and ports of the entries', () => {
    expect(entries(box('10.1.0.0/24', '10.2.0.0/24'), box('fd01::/64', 'fd02::/64'))).toEqual([
      'guard 0.0.0.0/0 > 10.2.0.0/24',
      'guard ::/0 > fd02::/64',
    ]);
    const dns = { protocol: 17, remotePorts: { start: 53, end: 53 } };
    expect(entries(box('10.1.0.0/24', '10.2.0.0/24', dns), box('10.1.0.0/24', '10.3.0.0/24', { protocol: 6 }))).toEqual(
      ['guard 0.0.0.0/0 > 10.2.0.0/24 17:53', 'guard 0.0.0.0/0 > 10.3.0.0/24 6'],
    );
  });

  it('pass where an entry is for their source, or lets pass all sources that are protected', () => {
    const exception = box('192.0.2.1/32', '10.2.0.0/24', { action: 'bypass' });
    const hole = box('10.1.0.0/24', '10.2.0.53/32', { action: 'bypass' });
    const guard = box('10.1.0.0/24', '10.2.0.0/24');
    expect(entries(guard, exception)).toEqual(['pass 192.0.2.1 > 10.2.0.0/24', 'guard 0.0.0.0/0 > 10.2.0.0/24']);
    expect(entries(hole, guard)).toEqual([
      'pass 10.1.0.0/24 > 10.2.0.53',
      'pass 0.0.0.0/0 > 10.2.0.53',
      'guard 0.0.0.0/0 > 10.2.0.0/24',
    ]);
    // Behind what protects, and from some of the sources alone, it says nothing of others.
    expect(entries(guard, hole)).toEqual(['pass 10.1.0.0/24 > 10.2.0.53', 'guard 0.0.0.0/0 > 10.2.0.0/24']);
    const printer = box('10.1.0.9/32', '10.2.0.53/32', { action: 'bypass' });
    expect(entries(printer, guard)).toEqual(['pass 10.1.0.9 > 10.2.0.53', 'guard 0.0.0.0/0 > 10.2.0.0/24']);
    const use = box('10.1.0.0/24', '10.2.0.53/32', { level: 'use' });
    expect(entries(use, guard)).toContain('pass 0.0.0.0/0 > 10.2.0.53');
    const other = box('10.8.0.0/24', '10.9.0.0/24');
    expect(entries(hole, guard, other)).toContain('pass 0.0.0.0/0 > 10.2.0.53');
  });

  it('are discarded no further than what is protected', () => {
    const discard = box('10.1.0.0/24', '10.2.0.0/23', { action: 'discard' });
    const hole = box('10.1.0.0/24', '10.2.0.0/25', { action: 'bypass' });
    expect(entries(discard)).toEqual([]);
    expect(entries(box('10.1.0.0/24', '10.2.0.0/24'), discard)).toEqual(['guard 0.0.0.0/0 > 10.2.0.0/24']);
    expect(entries(discard, hole, box('10.1.0.0/24', '10.2.0.0/24'))).toEqual([
      'pass 10.1.0.0/24 > 10.2.0.0/25',
      'discard 0.0.0.0/0 > 10.2.0.0/24',
      'pass 0.0.0.0/0 > 10.2.0.0/25',
      'guard 0.0.0.0/0 > 10.2.0.0/24',
    ]);
  });

  it('are not cut off from the Internet, whole or in parts', () => {
    for (const wide of [['0.0.0.0/0'], ['0.0.0.0/1', '128.0.0.0/1'], ['11.0.0.0/8', '12.0.0.0/6']]) {
      expect(entries(...wide.map((remote) => box('10.1.0.0/24', remote)))).toEqual([]);
    }
    expect(entries(box('fd01::/64', '::/0'), box('fd01::/64', '2000::/3'))).toEqual([]);
    expect(entries(box('10.1.0.0/24', '10.2.0.0/24'), box('10.1.0.0/24', '0.0.0.0/0'))).toEqual([
      'guard 0.0.0.0/0 > 10.2.0.0/24',
    ]);
    expect(entries(box('10.1.0.0/24', '10.0.0.0/8'), box('fd01::/64', 'fc00::/7'))).toEqual([
      'guard 0.0.0.0/0 > 10.0.0.0/8',
      'guard ::/0 > fc00::/7',
    ]);
  });

  it('are none of the policy’s business where it is for guests, for any source, or protects if possible', () => {
    const guests = box('192.168.122.0/24', '10.2.0.0/24');
    expect(anySourceEntries([guests], () => true)).toEqual([]);
    expect(entries(box('0.0.0.0/0', '10.2.0.0/24'))).toEqual([]);
    expect(entries(box('10.1.0.0/24', '10.2.0.0/24', { level: 'use' }))).toEqual([]);
  });

  it('are decided by few entries where the policy has many', () => {
    const many = Array.from({ length: 10_000 }, (_, at) => box('10.1.0.0/24', `10.2.${at >> 8}.${at & 255}/32`));
    const began = performance.now();
    expect(entries(...many)).toEqual(['guard 0.0.0.0/0 > 10.2.0.0-10.2.39.15']);
    expect(performance.now() - began).toBeLessThan(1_000);
  });
});
