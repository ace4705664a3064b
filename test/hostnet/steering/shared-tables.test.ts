/** Tunnels that share a routing table, and those that cannot. */
import { describe, expect, it } from 'vitest';
import type { PolicyBox, RoutingPlan } from '../../../src/hostnet/steering/plan.ts';
import { PolicyRouting } from '../../../src/hostnet/steering/policy-routing.ts';
import { TableNumbers } from '../../../src/hostnet/steering/table-numbers.ts';
import { address, box, GUEST, Host, LAN, OTHER } from './tunnel-host.ts';

const spoke = (host: Host, n: number): RoutingPlan =>
  host.plan(`s${n}`, [box('10.1.0.0/24', `10.${64 + (n >> 8)}.${n & 0xff}.0/24`)]);

describe('tunnels that differ in their destinations alone', () => {
  it('share a table, whose rules are as many for 300 as for nine', () => {
    const host = new Host();
    const before = host.state;
    for (let n = 0; n < 9; n++) host.start(spoke(host, n));
    const { length } = host.network.rules();
    for (let n = 9; n < 300; n++) host.start(spoke(host, n));
    expect(host.network.rules().length).toBe(length);
    expect(new Set(Array.from({ length: 300 }, (_, n) => host.routing.tableOf(`s${n}`))).size).toBe(1);
    for (const n of [0, 17, 299]) {
      const there = `10.${64 + (n >> 8)}.${n & 0xff}.9`;
      expect(host.way(there)).toBe(`s${n}`);
      expect(host.network.routeTo({ destination: address(there) })?.source).toEqual(LAN);
      // What the policy is not for goes as it did.
      expect(host.way(there, { source: OTHER, inputLinkIndex: host.lan })).toBe('eth0');
    }
    host.stop('s17');
    expect([host.way('10.64.17.9'), host.way('10.64.18.9')]).toEqual(['eth0', 's18']);
    for (let n = 0; n < 300; n++) if (n !== 17) host.stop(`s${n}`);
    expect(host.state).toEqual(before);
  });

  it('refuse what is for those that a daemon before had, and that have not come back yet', async () => {
    const host = new Host();
    const plans = [0, 1, 2].map((n) => spoke(host, n));
    for (const plan of plans) host.start(plan);
    for (const n of [0, 1, 2]) host.network.deleteLink(host.network.link(`s${n}`)!.index);
    const next = new PolicyRouting(host.network, host.order);
    next.reconcile(plans);
    next.prepare(plans[0]!, 's0');
    expect((await next.mend()).found).toEqual([]);
    expect(['10.64.0.9', '10.64.1.9', '10.64.2.9'].map((there) => host.way(there))).toEqual(['none', 'none', 'none']);
  });

  it('leave the rules of others when the last goes', () => {
    const host = new Host();
    const before = host.state;
    const other = host.plan('udp', [box('10.1.0.0/24', '10.99.0.0/24', { protocol: 17 })]);
    host.start(other);
    const alone = host.state;
    for (let n = 0; n < 12; n++) host.start(spoke(host, n));
    expect(host.network.rules().filter(({ priority }) => priority >= 32_762 && priority < 32_766)).toHaveLength(4);
    for (let n = 0; n < 12; n++) host.stop(`s${n}`);
    expect(host.state).toEqual(alone);
    host.stop('udp');
    expect(host.state).toEqual(before);
  });

  it('have no way while there is no device', async () => {
    const host = new Host();
    for (const n of [0, 1]) host.start(spoke(host, n));
    host.network.deleteLink(host.network.link('s0')!.index);
    expect([host.way('10.64.0.9'), host.way('10.64.1.9')]).toEqual(['none', 's1']);
    expect((await host.routing.mend()).found).toEqual([]);
  });

  it('refuse the host’s own packets while it has no address for them, however many they are', () => {
    for (const count of [2, 100]) {
      const host = new Host();
      host.network.deleteAddress({ linkIndex: host.lan, address: LAN, prefixLength: 24 });
      for (let n = 0; n < count; n++) host.start(spoke(host, n));
      const last = `10.64.${count - 1}.9`;
      // Where they are many, the policy in the device refuses them.
      expect(host.way(last, {})).toBe(count === 2 ? 'none' : `s${count - 1}`);
      expect(host.way(last)).toBe(`s${count - 1}`);
      expect(host.routing.lacks('s0')[0]).toMatch(/no address in 10\.1\.0\.0\/24/);
    }
  });

  it('are put right where another program deletes rules or routes, each named', async () => {
    const host = new Host();
    for (const n of [0, 1, 2]) host.start(spoke(host, n));
    const before = host.state;
    host.network.take({ rule: ({ priority }) => priority >= 7_000 && priority < 32_000 });
    host.network.take({
      route: ({ table, destination }) => table !== 254 && destination.address.value === 0x0a40_0100n,
    });
    expect(host.way('10.64.1.9')).toBe('eth0');
    const { found } = await host.routing.mend();
    expect(found.filter((text) => text.includes('10.64.1.0/24')).length).toBe(2);
    expect(host.state).toEqual(before);
  });

  it('are not put back where they are taken away while all are compared', async () => {
    const host = new Host();
    const before = host.state;
    for (const n of [0, 1]) host.start(spoke(host, n));
    host.start(host.plan('own', [box('10.1.0.0/24', '10.90.0.0/24', { protocol: 17 })]));
    const mended = host.routing.mend();
    for (const tunnel of ['s0', 's1', 'own']) host.stop(tunnel);
    await mended;
    expect(host.state).toEqual(before);
  });

  it.each(['deleteRoutes', 'deleteRule'] as const)(
    'are removed by the next call where the system refuses %s',
    (call) => {
      for (const count of [1, 2]) {
        const host = new Host();
        for (let n = 1; n < count; n++) host.start(spoke(host, n));
        const before = host.state;
        for (const plan of [spoke(host, 0), host.plan('own', [box('10.1.0.0/24', '10.90.0.0/24', { protocol: 17 })])]) {
          host.start(plan);
          const working = host.network[call].bind(host.network);
          host.network[call] = (): never => {
            throw new Error('no buffers');
          };
          expect(() => host.routing.release(plan.tunnel)).toThrow('no buffers');
          Object.assign(host.network, { [call]: working });
          host.stop(plan.tunnel);
          expect(host.state).toEqual(before);
        }
      }
    },
  );

  it('follow a change of their documents, into the table and out of it', () => {
    const host = new Host();
    for (const n of [0, 1]) host.start(spoke(host, n));
    host.start(host.plan('s1', [box('10.1.0.0/24', '10.80.0.0/24')]));
    expect([host.way('10.64.1.9'), host.way('10.80.0.9'), host.way('10.64.0.9')]).toEqual(['eth0', 's1', 's0']);
    host.start(host.plan('s1', [box('10.1.0.0/24', '10.81.0.0/24', { protocol: 17 })]));
    expect([host.way('10.80.0.9'), host.way('10.81.0.9')]).toEqual(['eth0', 'eth0']);
    expect(host.way('10.81.0.9', { source: GUEST, inputLinkIndex: host.lan, ipProtocol: 17 })).toBe('s1');
    host.start(spoke(host, 1));
    expect([host.way('10.81.0.9'), host.way('10.64.1.9')]).toEqual(['eth0', 's1']);
    expect(host.routing.tableOf('s1')).toBe(host.routing.tableOf('s0'));
  });
});

describe('a table of its own', () => {
  it.each<[string, Partial<RoutingPlan>, Partial<PolicyBox>]>([
    ['that its document names', { table: 77 }, {}],
    ['for what is not told by addresses alone', {}, { protocol: 17 }],
    ['for what may pass in the clear', {}, { level: 'use' }],
    ['in a redundancy group', { redundancy: { group: 'g', preference: 1 } }, {}],
    [
      'where its peer is among what it protects',
      { own: { peer: address('10.64.1.9'), ports: [500], peerPorts: [500] } },
      {},
    ],
  ])('has a tunnel %s', (_, change, boxChange) => {
    const host = new Host();
    host.start(spoke(host, 0));
    host.start(host.plan('own', [box('10.1.0.0/24', '10.64.1.0/24', boxChange)], change));
    expect(host.routing.tableOf('own')).not.toBe(host.routing.tableOf('s0'));
  });

  it('has a tunnel of which a bridge’s guests use the table, at once', () => {
    const host = new Host();
    for (const n of [0, 1]) host.start(spoke(host, n));
    const undo = host.routing.routeBridge('virbr0', [], { tunnel: 's0', table: undefined });
    expect(host.routing.tableOf('s0')).not.toBe(host.routing.tableOf('s1'));
    expect([host.way('10.64.0.9'), host.way('10.64.1.9')]).toEqual(['s0', 's1']);
    undo();
  });

  it('has a tunnel whose policy meets that of another one, in the order of the two', () => {
    const host = new Host();
    host.start(host.plan('wide', [box('10.1.0.0/24', '10.64.0.0/10')]));
    host.start(spoke(host, 0));
    host.start(host.plan('deep', [box('10.1.0.0/24', '10.64.0.16/28')]));
    expect(['10.64.0.17', '10.64.0.9', '10.64.9.9'].map((to) => host.way(to))).toEqual(['deep', 's0', 'wide']);
    host.stop('deep');
    expect(host.way('10.64.0.17')).toBe('s0');
    host.start(host.plan('deep', [box('10.1.0.0/24', '10.64.0.16/28')]));
    host.start(host.plan('wide', [box('10.1.0.0/24', '10.64.0.0/10')]));
    expect(['10.64.0.17', '10.64.0.9', '10.64.9.9'].map((to) => host.way(to))).toEqual(['deep', 's0', 'wide']);
  });
});

describe('what an earlier daemon left of a shared table', () => {
  it('stays of the tunnels that are to run again, and goes of the others', () => {
    const first = new Host();
    const before = first.state;
    for (const n of [0, 1, 2]) first.start(spoke(first, n));
    for (const n of [0, 1, 2]) first.network.deleteLink(first.network.link(`s${n}`)!.index);
    const next = new Host(first.network, first.lan);
    next.routing.reconcile([spoke(next, 0), spoke(next, 1)]);
    expect(['10.64.0.9', '10.64.1.9', '10.64.2.9'].map((to) => next.way(to))).toEqual(['none', 'none', 'eth0']);
    next.start(spoke(next, 0));
    expect(['10.64.0.9', '10.64.1.9'].map((to) => next.way(to))).toEqual(['s0', 'none']);
    // One that is given up before it was started.
    next.routing.release('s1', spoke(next, 1));
    expect(['10.64.0.9', '10.64.1.9'].map((to) => next.way(to))).toEqual(['s0', 'eth0']);
    next.stop('s0');
    expect(next.state).toEqual(before);
  });

  it.each([
    ['had a table to itself and now shares one', true],
    ['shared a table and now has one to itself', false],
  ])('goes of a tunnel that %s', (_, wasApart) => {
    const apart = (host: Host): (() => void) =>
      host.routing.routeBridge('virbr0', [], { tunnel: 's0', table: undefined });
    const first = new Host();
    const before = first.state;
    const undo = wasApart ? apart(first) : undefined;
    for (const n of [0, 1]) first.start(spoke(first, n));
    undo?.();
    for (const n of [0, 1]) first.network.deleteLink(first.network.link(`s${n}`)!.index);
    const next = new Host(first.network, first.lan);
    next.routing.reconcile([spoke(next, 0), spoke(next, 1)]);
    const end = wasApart ? undefined : apart(next);
    next.start(spoke(next, 1));
    expect(['10.64.0.9', '10.64.1.9'].map((to) => next.way(to))).toEqual(['none', 's1']);
    next.start(spoke(next, 0));
    expect(['10.64.0.9', '10.64.1.9'].map((to) => next.way(to))).toEqual(['s0', 's1']);
    end?.();
    for (const n of [0, 1]) next.stop(`s${n}`);
    expect(next.state).toEqual(before);
  });
});

describe('the numbers of tables', () => {
  it('are all different, for 60,000 names, and the same again for the same names', () => {
    const names = Array.from({ length: 60_000 }, (_, n) => `site-${n}`);
    const number = (numbers: TableNumbers): number[] =>
      names.map((tunnel) => numbers.own({ tunnel, table: undefined }));
    const first = number(new TableNumbers(() => false));
    expect(new Set(first).size).toBe(names.length);
    expect(number(new TableNumbers(() => false))).toEqual(first);
  });

  it('leave out those that documents name, and are free again', () => {
    const taken = new TableNumbers(() => false).own({ tunnel: 'net', table: undefined });
    const numbers = new TableNumbers((table) => table === taken);
    expect(numbers.own({ tunnel: 'net', table: undefined })).toBe(taken + 1);
    expect(numbers.own({ tunnel: 'other', table: 5 })).toBe(5);
    numbers.freeOwn('net');
    expect(numbers.own({ tunnel: 'net', table: undefined })).toBe(taken + 1);
  });
});

describe('tunnels on one device', () => {
  it.each([undefined, 100])('have one table, with the number that their documents name: %s', (table) => {
    const host = new Host();
    const before = host.state;
    for (let n = 0; n < 3; n++) host.start({ ...spoke(host, n), table }, 'hub');
    const { length } = host.network.rules();
    for (let n = 3; n < 40; n++) host.start({ ...spoke(host, n), table }, 'hub');
    expect(host.network.rules().length - length).toBeLessThan(5);
    const numbers = new Set(Array.from({ length: 40 }, (_, n) => host.routing.tableOf(`s${n}`)));
    expect([...numbers]).toEqual([table ?? expect.any(Number)]);
    expect([host.way('10.64.0.9'), host.way('10.64.39.9')]).toEqual(['hub', 'hub']);
    for (let n = 0; n < 39; n++) host.stop(`s${n}`);
    expect([host.way('10.64.0.9'), host.way('10.64.39.9')]).toEqual(['eth0', 'hub']);
    const link = host.network.link('hub')!;
    expect(host.routing.heard({ kind: 'link', link: { ...link, up: false }, gone: false })).toBe(true);
    host.stop('s39');
    expect(host.routing.heard({ kind: 'link', link: { ...link, up: false }, gone: false })).toBe(false);
    expect(host.state).toEqual(before);
  });

  it('name no table together with one on another device, nor with one of other local addresses', () => {
    const host = new Host();
    host.start({ ...spoke(host, 0), table: 100 }, 'hub');
    expect(() => host.start({ ...spoke(host, 1), table: 100 }, 'other')).toThrow('belongs to another tunnel, s0');
    const elsewhere = host.plan('e', [box('10.9.0.0/24', '10.64.7.0/24')], { table: 100 });
    expect(() => host.start(elsewhere, 'hub')).toThrow('destinations alone tell their packets apart');
    host.start({ ...spoke(host, 2), table: 100 }, 'hub');
    expect(host.way('10.64.2.9')).toBe('hub');
  });

  it('have no order among themselves: the policy of the device decides', () => {
    const host = new Host();
    host.start(host.plan('wide', [box('10.1.0.0/24', '10.64.0.0/16')]), 'hub');
    host.start(host.plan('narrow', [box('10.1.0.0/24', '10.64.3.0/24')]), 'hub');
    expect(host.order.devicesBeside('wide')).toEqual([]);
    expect([host.way('10.64.3.9'), host.way('10.64.4.9')]).toEqual(['hub', 'hub']);
    host.stop('narrow');
    expect([host.way('10.64.3.9'), host.way('10.64.4.9')]).toEqual(['hub', 'hub']);
  });
});
