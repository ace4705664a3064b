import { describe, expect, it } from 'vitest';
import {
  CompiledPolicy,
  FRAGMENT_UNDECIDED,
  NO_ENTRY,
  orderPolicy,
  type PolicyEntry,
} from '../../src/policy/database.ts';
import type { Flow } from '../../src/policy/flow.ts';
import { SharedPolicy } from '../../src/policy/shared-policy.ts';
import { Draw } from './arbitraries.ts';
import { flowOf, ports, sel } from './helpers.ts';
import { toFlow } from './reference.ts';

function policy(remote: string, change: Partial<PolicyEntry> = {}): CompiledPolicy {
  const selectors = { local: [sel('10.1.0.0/24')], remote: remote.split(', ').map(sel) };
  const entry = { name: 'e', direction: 'out', action: 'protect', priority: 0, level: 'require' } as const;
  return new CompiledPolicy([{ ...entry, selectors, ...change }], 'out');
}

const to = (dst: string, port = 2000): Flow =>
  flowOf({ src: '10.1.0.7', dst, protocol: 17, payload: ports(1000, port) });

/** What the policies of all tunnels say, one after another. */
function slowly(policies: ReadonlyMap<number, CompiledPolicy>, flow: Flow): number {
  let [best, priority, fallback] = [NO_ENTRY, Number.NEGATIVE_INFINITY, NO_ENTRY];
  for (const [tunnel, { entries, ...own }] of [...policies].map(
    ([at, one]) => [at, { entries: one.entries, one }] as const,
  )) {
    const found = own.one.lookup(flow);
    if (found === NO_ENTRY) continue;
    const entry = found === FRAGMENT_UNDECIDED ? undefined : entries[found]!;
    if (entry === undefined || entry.action === 'bypass') fallback = fallback === NO_ENTRY ? tunnel : fallback;
    else if (entry.priority > priority) [best, priority] = [tunnel, entry.priority];
  }
  return best === NO_ENTRY ? fallback : best;
}

describe('the policy of a device', () => {
  it('gives a packet to the tunnel whose entry has the highest priority, of equals to the one that came first', () => {
    const shared = new SharedPolicy();
    shared.set(7, policy('10.2.0.0/16'));
    shared.set(3, policy('10.2.0.0/16'));
    shared.set(5, policy('10.2.3.0/24 udp 53', { priority: 1 }));
    expect([to('10.2.3.1', 53), to('10.2.3.1', 54), to('10.2.4.1', 53)].map((flow) => shared.lookup(flow))).toEqual([
      5, 7, 7,
    ]);
    expect(shared.lookup(to('10.3.0.1'))).toBe(NO_ENTRY);
    shared.delete(7);
    shared.delete(7);
    expect(shared.lookup(to('10.2.3.1', 54))).toBe(3);
    shared.set(3, policy('10.4.0.0/16'));
    expect([to('10.2.3.1', 54), to('10.4.3.1')].map((flow) => shared.lookup(flow))).toEqual([NO_ENTRY, 3]);
    expect(shared.size).toBe(2);
  });

  it('asks other tunnels where one lets a packet bypass', () => {
    const shared = new SharedPolicy();
    shared.set(1, policy('10.2.0.0/16', { action: 'bypass', priority: 9 }));
    expect(shared.lookup(to('10.2.0.1'))).toBe(1);
    shared.set(2, policy('10.2.0.0/24'));
    expect([to('10.2.0.1'), to('10.2.1.1')].map((flow) => shared.lookup(flow))).toEqual([2, 1]);
  });

  it('finds one of many ranges', () => {
    const many = Array.from({ length: 300 }, (_, at) => `10.${at >> 8}.${at & 255}.0/25`).join(', ');
    const shared = new SharedPolicy();
    shared.set(1, policy(many));
    shared.set(2, policy('10.0.7.128/25'));
    expect(['10.0.7.1', '10.0.7.129', '10.1.43.1', '10.1.44.1'].map((dst) => shared.lookup(to(dst)))).toEqual([
      1,
      2,
      1,
      NO_ENTRY,
    ]);
  });

  it('says what the policies of all tunnels say one after another, while tunnels come and go', () => {
    const draw = new Draw(11);
    const outcomes = new Map<string, number>();
    for (let round = 0; round < 300; round++) {
      const shared = new SharedPolicy();
      const policies = new Map<number, CompiledPolicy>();
      for (let step = 0; step < 30; step++) {
        const tunnel = draw.below(20);
        if (draw.below(4) === 0) {
          shared.delete(tunnel);
          policies.delete(tunnel);
        } else {
          const entries = Array.from({ length: 1 + draw.below(3) }, () => draw.entry());
          const own = new CompiledPolicy(orderPolicy(entries, 'out'), 'out');
          shared.set(tunnel, own);
          // As new: of equal priorities the older goes first.
          policies.delete(tunnel);
          policies.set(tunnel, own);
        }
        for (let i = 0; i < 5; i++) {
          const flow = toFlow(draw.packet());
          const [expected, found] = [slowly(policies, flow), shared.lookup(flow)];
          if (found !== expected) expect({ round, step, found }).toEqual({ round, step, found: expected });
          const outcome = expected === NO_ENTRY ? 'none' : 'one';
          outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
        }
      }
    }
    for (const outcome of ['none', 'one']) expect(outcomes.get(outcome)).toBeGreaterThan(5_000);
  });
});
