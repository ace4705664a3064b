/** What other programs take of fence, rules and routes is put back and told; the kernel is in memory. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { formatAddress, parseAddress, prefixRange } from '../../src/base/address.ts';
import { DampedLog } from '../../src/daemon/damped-log.ts';
import { MemoryFence } from '../../src/hostnet/fence/memory.ts';
import { MemoryHostNetwork } from '../../src/hostnet/routes/memory.ts';
import {
  type InstalledRoute,
  type InstalledRule,
  type InterfaceAddress,
  OWN_PROTOCOL,
  type Prefix,
} from '../../src/hostnet/routes/routes.ts';
import type { PolicyBox, RoutingPlan } from '../../src/hostnet/steering/plan.ts';
import { PolicyRouting } from '../../src/hostnet/steering/policy-routing.ts';
import { tunnelFence } from '../../src/hostnet/steering/tunnel-fence.ts';
import { type KernelReport, KernelWatch } from '../../src/hostnet/watch/watch.ts';
import { claimsOf } from '../../src/policy/precedence.ts';

const prefix = (text: string): Prefix => {
  const [address, length] = text.split('/');
  return { address: parseAddress(address!)!, prefixLength: Number(length) };
};

const box: PolicyBox = {
  action: 'protect',
  level: 'require',
  child: 'c',
  ...{ local: prefixRange(parseAddress('10.1.0.0')!, 24), remote: prefixRange(parseAddress('10.2.0.0')!, 24) },
};

const plan: RoutingPlan = {
  tunnel: 'net',
  claims: claimsOf([]),
  redundancy: undefined,
  table: 7700,
  own: { peer: parseAddress('192.0.2.2'), ports: [500, 4500], peerPorts: [500, 4500] },
  outbound: [box],
  inbound: [box],
  host: undefined,
};

class Host {
  readonly network = new MemoryHostNetwork();
  readonly routing = new PolicyRouting(this.network);
  readonly fence = new MemoryFence();
  readonly reports: KernelReport[] = [];
  readonly device: number;
  readonly watch = new KernelWatch({
    fence: this.fence,
    routing: this.routing,
    network: this.network,
    netns: undefined,
    report: (report) => void this.reports.push(report),
  });

  constructor() {
    const lan = this.network.addLink('lan0', 1500);
    this.network.addAddress({ linkIndex: lan, address: parseAddress('10.1.0.1')!, prefixLength: 24 });
    this.device = this.network.addLink('stun', 1400);
    this.network.setLink(this.device, { up: true });
    this.routing.prepare(plan, 'stun');
    this.routing.open('net', this.device);
    this.watch.open();
  }

  async raise(): Promise<void> {
    await this.fence.set('tunnel:net', tunnelFence(plan, 'stun'));
  }

  get texts(): string[] {
    return this.reports.map(({ level, text }) => `${level}: ${text}`);
  }

  /** All of ours that stands. */
  get standing(): unknown[] {
    const rules = this.network.rules().filter(({ protocol }) => protocol === OWN_PROTOCOL);
    const key = (item: unknown): string =>
      JSON.stringify(item, (_, value) => (typeof value === 'bigint' ? `${value}` : value));
    return [...rules, ...this.network.routes({ protocol: OWN_PROTOCOL })].map(key).sort();
  }
}

const own = ({ protocol }: InstalledRule | InstalledRoute): boolean => protocol === OWN_PROTOCOL;

describe('a kernel that is watched', () => {
  let host: Host;

  beforeEach(async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    host = new Host();
    await host.raise();
  });
  afterEach(async () => {
    await host.watch.close();
    vi.useRealTimers();
  });

  /** Lets what was begun at once come to its end, and so many milliseconds pass. */
  const pass = async (ms = 0): Promise<void> => {
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
    await vi.advanceTimersByTimeAsync(ms);
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
  };

  it('has its fence restored at once, and is reported once, with the program', async () => {
    host.fence.tamper('tunnel:net', undefined, 'nft, process 4711');
    await pass();
    expect(host.fence.parts.has('tunnel:net')).toBe(true);
    expect(host.texts).toEqual([
      'warn: another program (nft, process 4711) changed the fence: tunnel:net was changed. All of it was put back within 0 ms',
    ]);
    expect(host.reports[0]!.kind).toBe('fence ');
  });

  it.each([
    ['all rules', { rule: own }, /^warn: another program changed rules and routes: .*rule 7000: from 10\.1\.0\.0\/24/],
    ['a rule', { rule: (rule: InstalledRule) => own(rule) && rule.from?.prefixLength === 24 }, /rule 7000/],
    ['all routes', { route: own }, /route 10\.2\.0\.0\/24 in table 7700: missing/],
    ['what leads nowhere', { route: ({ type }: InstalledRoute) => type === 'unreachable' }, /unreachable 10\.2\.0\.0/],
  ])('has %s put back at once', async (_, taken, told) => {
    const before = host.standing;
    host.network.take(taken);
    expect(host.standing).not.toEqual(before);
    await pass();
    expect(host.standing).toEqual(before);
    expect(host.texts).toEqual([expect.stringMatching(told)]);
  });

  it('has rules of bridges put back too', async () => {
    const undo = host.routing.routeBridge('virbr9', [prefix('10.1.0.0/24')], { tunnel: 'net', table: 7700 });
    await host.watch.look('everything');
    const before = host.standing;
    host.network.take({ rule: ({ priority }) => priority < 7000 });
    expect(host.standing).not.toEqual(before);
    await pass(50);
    expect(host.standing).toEqual(before);
    undo();
    await pass();
    expect(host.network.rules().filter(({ priority }) => priority < 7000)).toEqual([]);
  });

  it('keeps rules and routes of others that come first, and shows them meanwhile', async () => {
    const before = host.standing;
    const elsewhere = { family: 4, priority: 100, action: { type: 'table', table: 52 }, protocol: 4 } as const;
    const far: InstalledRoute = {
      type: 'unicast',
      destination: prefix('10.2.0.0/16'),
      table: 52,
      metric: 0,
      protocol: 4,
    };
    host.network.put({ route: far });
    host.network.put({ rule: { ...elsewhere, to: prefix('10.3.0.0/16') } });
    host.network.put({ rule: { ...elsewhere, mark: 0x80 } });
    host.network.put({ rule: { ...elsewhere, action: { type: 'table', table: 53 } } });
    await pass(50);
    expect(host.watch.degraded('net')).toEqual([]);
    const rule: InstalledRule = elsewhere;
    host.network.put({ rule });
    await pass(50);
    const text = expect.stringMatching(
      /^another program's rule comes first.*: 100: from all lookup 52; give it a priority above 7000/,
    );
    expect(host.watch.degraded('net')).toEqual([text]);
    await host.watch.look('everything');
    expect(host.reports).toMatchObject([{ level: 'warn', netns: undefined, tunnel: 'net', text }]);
    expect(host.standing).toEqual(before);
    host.network.take({ rule: (other) => other === rule });
    await pass(50);
    expect(host.watch.degraded('net')).toEqual([]);
    expect(host.texts[1]).toMatch(/^info: resolved: another program's rule/);

    const [open] = host.network.routes({ table: 7700 }).filter(({ type }) => type === 'unicast');
    host.network.put({ route: { ...open!, linkIndex: 1, protocol: 4 } });
    await pass(50);
    expect(host.watch.degraded('net')).toEqual([
      expect.stringContaining("another program's route stands there"),
      expect.stringContaining(
        "(protocol 4) is in the tunnel's own table; remove it: ip route del 10.2.0.0/24 table 7700",
      ),
    ]);
  });

  it('says that its device is down, and has the routes back when it is not', async () => {
    const before = host.standing;
    host.network.setLink(host.device, { up: false });
    host.network.take({ route: (route) => route.type === 'unicast' && own(route) });
    await pass(50);
    expect(host.watch.degraded('net')).toEqual([
      'the device stun is down, so no packet is routed into it: ip link set stun up',
    ]);
    host.network.setLink(host.device, { up: true });
    await pass(50);
    expect([host.watch.degraded('net'), host.standing]).toEqual([[], before]);
  });

  const lan = (text: string, change: Partial<InterfaceAddress> = {}): InterfaceAddress => ({
    linkIndex: 1,
    address: parseAddress(text)!,
    prefixLength: 24,
    ...change,
  });
  const sourceOf = (): string => {
    const source = host.network.routeTo({ destination: parseAddress('10.2.0.9')! })?.source;
    return source === undefined ? 'refused' : formatAddress(source);
  };

  it('is looked at when an address that packets may be sent from goes or comes, and at no other', async () => {
    for (const gone of [true, false]) {
      expect(host.routing.heard({ kind: 'address', gone, address: lan('10.1.0.2') })).toBe(true);
      expect(host.routing.heard({ kind: 'address', gone, address: lan('10.9.0.1') })).toBe(false);
    }
  });

  it('refuses what has no source while the host has no address for it, and says so until it has one', async () => {
    const before = host.standing;
    host.network.deleteAddress(lan('10.1.0.1'));
    await pass();
    expect(sourceOf()).toBe('refused');
    // What is forwarded is carried.
    expect(host.network.routeTo({ destination: parseAddress('10.2.0.9')!, source: parseAddress('10.1.0.7')! })).toEqual(
      expect.objectContaining({ linkIndex: host.device }),
    );
    const text = expect.stringMatching(
      /^this host has no address in 10\.1\.0\.0\/24: its own packets to 10\.2\.0\.0\/24/,
    );
    const lost = expect.stringMatching(
      /^packets out of the tunnel for 10\.1\.0\.0\/24 are refused, as it has no route any more/,
    );
    expect(host.watch.degraded('net')).toEqual([text, lost]);
    await host.watch.look('everything');
    expect(host.reports.filter(({ level }) => level === 'warn')).toMatchObject([
      { tunnel: 'net', text },
      { tunnel: 'net', text: lost },
    ]);
    host.network.addAddress(lan('10.1.0.1'));
    await pass(50);
    expect([host.standing, host.watch.degraded('net'), sourceOf()]).toEqual([before, [], '10.1.0.1']);
    expect(host.texts.at(-2)).toMatch(/^info: resolved: this host has no address/);
    expect(host.texts.at(-1)).toMatch(/^info: resolved: packets out of the tunnel/);
    // Nobody is blamed for what came of it.
    expect(host.texts.join()).not.toContain('another program');
  });

  it('uses another address as the source when the previous one is changed', async () => {
    host.network.addAddress(lan('10.1.0.99'));
    await pass(50);
    expect([sourceOf(), host.reports]).toEqual(['10.1.0.1', []]);
    host.network.deleteAddress(lan('10.1.0.1'));
    await pass(50);
    expect([sourceOf(), host.watch.degraded('net')]).toEqual(['10.1.0.99', []]);
    expect(host.texts).toEqual([
      'info: the addresses of this host changed: its own packets without a source are now sent from 10.1.0.99, before from 10.1.0.1',
    ]);
  });

  it('uses no address that may be a duplicate, and a deprecated one last', async () => {
    host.network.addAddress(lan('10.1.0.50'));
    host.network.addAddress(lan('10.1.0.40', { state: 'deprecated' }));
    host.network.addAddress(lan('10.1.0.30', { state: 'tentative' }));
    for (const [gone, left] of [
      ['10.1.0.1', '10.1.0.50'],
      ['10.1.0.50', '10.1.0.40'],
      ['10.1.0.40', 'refused'],
    ] as const) {
      host.network.deleteAddress(lan(gone));
      await pass(50);
      expect(sourceOf()).toBe(left);
    }
  });

  it('is degraded from the start where the address is not there yet', async () => {
    host.network.deleteAddress(lan('10.1.0.1'));
    host.routing.release('net');
    host.watch.forget('net');
    expect(host.watch.degraded('net')).toEqual([]);
    host.routing.prepare(plan, 'stun');
    host.watch.putUp('net');
    expect(host.watch.degraded('net')).toHaveLength(1);
    host.routing.open('net', host.device);
    await pass();
    expect([sourceOf(), host.texts.at(-1)]).toEqual(['refused', expect.stringMatching(/^warn: this host has no/)]);
  });

  it('does not count what is our own', async () => {
    const looked = vi.spyOn(host.routing, 'mend');
    host.routing.setUp('net', new Set(['c']));
    host.routing.release('net');
    await pass(1_000);
    expect([looked.mock.calls.length, host.reports]).toEqual([0, []]);
  });

  it('is restored for ever against a program that does not cease, with pauses', async () => {
    const mended = vi.spyOn(host.fence, 'mend');
    for (let time = 0; time < 10_000; time += 5) {
      host.fence.tamper('tunnel:net');
      await pass(5);
    }
    // Four at once, with doubling pauses up to a second then.
    expect(mended.mock.calls.length).toBeGreaterThan(15);
    expect(mended.mock.calls.length).toBeLessThan(25);
    await pass(1_000);
    expect(host.fence.parts.has('tunnel:net')).toBe(true);
    // The first after a while is at once again.
    await pass(11_000);
    host.fence.tamper('tunnel:net');
    await pass();
    expect(host.fence.parts.has('tunnel:net')).toBe(true);
  });

  it('is degraded while it cannot be restored, which is reported once and retried', async () => {
    host.fence.refusal = new Error('no permission today');
    host.fence.tamper('tunnel:net');
    await pass();
    const problem =
      'the fence could not be restored after a change by another program; sectunnel tries again: no permission today';
    expect(host.watch.degraded('net')).toEqual([problem]);
    await pass(20_000);
    expect(host.texts).toEqual([`error: ${problem}`]);
    host.fence.refusal = undefined;
    await pass(6_000);
    expect(host.watch.degraded('net')).toEqual([]);
    expect(host.texts.slice(1)).toEqual([
      'info: the fence is as it should be again',
      expect.stringContaining('changed the fence'),
    ]);
  });

  it('that cannot be listened to is said once, and is compared all the same', async () => {
    const deaf = new Host();
    const { fence, routing, reports } = deaf;
    const refuse = (): never => {
      throw new Error('no such group');
    };
    const watch = new KernelWatch({
      fence: Object.assign(fence, { watch: refuse }),
      routing,
      network: { watch: refuse },
      netns: 'blue',
      report: (report) => void reports.push(report),
    });
    watch.open();
    expect(deaf.reports.map(({ level, netns }) => `${level} ${netns}`)).toEqual(['warn blue', 'warn blue']);
    expect(deaf.texts[0]).toContain('are found only every half minute: no such group');
    deaf.network.watch(() => undefined);
    deaf.network.take({ rule: own });
    await watch.look('everything');
    expect(deaf.texts[2]).toMatch(/^warn: another program changed rules and routes: .* put back$/);
    await deaf.watch.close();
  });
});

describe('what happens over and over', () => {
  it('is written at once, then counted', () => {
    vi.useFakeTimers();
    const lines: string[] = [];
    const log = new DampedLog();
    const add = (kind: string, text: string): void => log.add(kind, text, (line) => lines.push(line));
    for (const text of ['first', 'second', 'third']) add('a', text);
    add('b', 'other');
    expect(lines).toEqual(['first', 'other']);
    vi.advanceTimersByTime(60_000);
    expect(lines.slice(2)).toEqual(['third (2 times in the last minute)']);
    add('a', 'fourth');
    log.close();
    expect(lines.slice(3)).toEqual(['fourth (once in the last minute)']);
    vi.useRealTimers();
  });
});
