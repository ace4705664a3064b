import { describe, expect, it } from 'vitest';
import { compilePolicy, type PolicyEntry } from '../../src/policy/database.ts';
import { type Flow, PORT_HIDDEN } from '../../src/policy/flow.ts';
import { FragmentTracker } from '../../src/policy/fragments.ts';
import { flowOf, type PacketFields, ports, sel } from './helpers.ts';

const V4: PacketFields = { src: '10.1.0.1', dst: '10.2.0.1', protocol: 17, payload: ports(5000, 53), id: 77 };
const V6: PacketFields = { src: 'fd00::1', dst: 'fd00::2', protocol: 17, payload: ports(5000, 53), id: 0x80000001 };

const first = (fields: PacketFields): Flow => flowOf({ ...fields, more: true });
const later = (fields: PacketFields): Flow => flowOf({ ...fields, offset: 8 });

function seen(flow: Flow): (number | boolean)[] {
  return [flow.firstSeen, flow.protocol, flow.srcPort, flow.dstPort];
}

describe('FragmentTracker', () => {
  it.each([V4, V6])('gives later fragments what their first had (%#)', (fields) => {
    const tracker = new FragmentTracker();
    expect(tracker.resolve(first(fields), 0)).toBe(true);
    for (const offset of [8, 16, 1480]) {
      const flow = flowOf({ ...fields, offset, more: offset < 1480 });
      expect(tracker.resolve(flow, 10)).toBe(true);
      expect(seen(flow)).toEqual([true, 17, 5000, 53]);
    }
  });

  it('leaves whole packets alone', () => {
    const flow = flowOf(V4);
    expect(new FragmentTracker().resolve(flow, 0)).toBe(true);
    expect(seen(flow)).toEqual([false, 17, 5000, 53]);
  });

  it('leaves a fragment that comes before its first without ports', () => {
    const tracker = new FragmentTracker();
    const early = later(V4);
    expect(tracker.resolve(early, 0)).toBe(false);
    expect(seen(early)).toEqual([false, 17, PORT_HIDDEN, PORT_HIDDEN]);
    tracker.resolve(first(V4), 1);
    expect(tracker.resolve(later(V4), 2)).toBe(true);
  });

  it.each([
    ['source', { src: '10.1.0.2' }],
    ['destination', { dst: '10.2.0.2' }],
    ['identification', { id: 78 }],
    ['protocol', { protocol: 6 }],
  ])('takes a fragment with another %s for another datagram', (_what, change) => {
    const tracker = new FragmentTracker();
    tracker.resolve(first(V4), 0);
    expect(tracker.resolve(later({ ...V4, ...change }), 1)).toBe(false);
  });

  it('does not look at the next header of a later IPv6 fragment, only of the first', () => {
    const tracker = new FragmentTracker();
    tracker.resolve(first(V6), 0);
    const lies = later({ ...V6, protocol: 6 });
    expect(tracker.resolve(lies, 1)).toBe(true);
    expect(seen(lies)).toEqual([true, 17, 5000, 53]);
  });

  it('keeps the families apart', () => {
    const tracker = new FragmentTracker();
    tracker.resolve(first({ ...V6, src: 'a01:1::', dst: 'a02:1::', id: 77 }), 0);
    expect(tracker.resolve(later(V4), 1)).toBe(false);
  });

  it('takes a protocol without ports as it is', () => {
    const tracker = new FragmentTracker();
    tracker.resolve(first({ ...V4, protocol: 47 }), 0);
    const flow = later({ ...V4, protocol: 47 });
    expect(tracker.resolve(flow, 1)).toBe(true);
    expect(seen(flow)).toEqual([true, 47, PORT_HIDDEN, PORT_HIDDEN]);
  });

  it('forgets after its lifetime, to the millisecond, and is renewed by a new first', () => {
    const tracker = new FragmentTracker({ lifetime: 100 });
    tracker.resolve(first(V4), 1000);
    expect(tracker.resolve(later(V4), 1099)).toBe(true);
    expect(tracker.resolve(later(V4), 1100)).toBe(false);
    tracker.resolve(first(V4), 2000);
    tracker.resolve(first(V4), 2090);
    expect(tracker.resolve(later(V4), 2150)).toBe(true);
    expect(tracker.evicted).toBe(0);
  });

  it('follows the newest first when an identification is used again', () => {
    const tracker = new FragmentTracker();
    tracker.resolve(first(V4), 0);
    tracker.resolve(first({ ...V4, payload: ports(1, 2) }), 1);
    const flow = later(V4);
    tracker.resolve(flow, 2);
    expect([flow.srcPort, flow.dstPort]).toEqual([1, 2]);
  });

  it('stays within its capacity and gives up the oldest', () => {
    const tracker = new FragmentTracker({ capacity: 4 });
    for (let id = 1; id <= 5; id++) tracker.resolve(first({ ...V4, id }), id);
    expect(tracker.evicted).toBe(1);
    const known = [1, 2, 3, 4, 5].filter((id) => tracker.resolve(later({ ...V4, id }), 10));
    expect(known).toEqual([2, 3, 4, 5]);
  });

  it('holds about its capacity of datagrams before it gives any up, whatever the seed', () => {
    for (const seed of [0, 0x12345678, 0xdeadbeef]) {
      const tracker = new FragmentTracker({ capacity: 1024, seed });
      for (let id = 0; id < 512; id++) tracker.resolve(first({ ...V4, id }), id);
      expect(tracker.evicted).toBeLessThan(60);
    }
  });

  it('forgets all when cleared', () => {
    const tracker = new FragmentTracker();
    tracker.resolve(first(V4), 0);
    tracker.clear();
    expect(tracker.resolve(later(V4), 1)).toBe(false);
  });

  it('lets the whole datagram take the way of its ports', () => {
    const entry = (remote: string, action: 'protect' | 'bypass'): PolicyEntry => ({
      name: action,
      direction: 'out',
      action,
      priority: 0,
      level: 'require',
      selectors: { local: [sel('0.0.0.0/0')], remote: [sel(remote)] },
    });
    const policy = compilePolicy([entry('0.0.0.0/0 udp 53', 'protect'), entry('0.0.0.0/0', 'bypass')], 'out');
    const tracker = new FragmentTracker();
    const decide = (flow: Flow): number => {
      tracker.resolve(flow, 0);
      return policy.lookup(flow);
    };
    const other = { ...V4, id: 78, payload: ports(5000, 54) };
    expect([first(V4), later(V4)].map(decide)).toEqual([0, 0]);
    expect([first(other), later(other)].map(decide)).toEqual([1, 1]);
  });
});
