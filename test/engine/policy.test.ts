import { describe, expect, it } from 'vitest';
import type { TunnelConfig } from '../../src/engine/config.ts';
import { Flow, readFlow } from '../../src/policy/flow.ts';
import { formatFlow } from '../../src/policy/flow-values.ts';
import type { PacketFlags } from '../../src/policy/populate.ts';
import { formatSelectorPair, type SelectorPair } from '../../src/policy/selector.ts';
import { icmp, packet as ipPacket, sel } from '../policy/helpers.ts';
import { type EnginePair, enginePair, opposite, type Peer, packet, protect, tunnel } from '../support/engine-net.ts';
import { child, connection } from '../support/ike-pair.ts';

const pair = (local: string[], remote: string[]): SelectorPair => ({ local: local.map(sel), remote: remote.map(sel) });

/** A tunnel with one child for such packets, of both directions. */
function policed(selectors: SelectorPair, change: Partial<TunnelConfig> = {}, pfp?: PacketFlags): TunnelConfig {
  const entry = protect({ selectors, pfp });
  return tunnel({
    connections: [connection({ children: [child('c', { selectors, pfp })] })],
    policy: [entry, { ...entry, direction: 'in' }],
    ...change,
  });
}

/** What the device of a tunnel was told, as `ICMP type.code to whom`. */
function answers({ engine }: Peer): string[] {
  const told: string[] = [];
  for (let next = engine.pollDeviceWrite(); next !== undefined; next = engine.pollDeviceWrite()) {
    const flow = new Flow();
    readFlow(next.packet, 0, next.packet.length, flow);
    told.push(`${flow.srcPort >> 8}.${flow.srcPort & 0xff} ${formatFlow(flow).split(' ').slice(1, 4).join(' ')}`);
  }
  return told;
}

const selectorsOf = (peer: Peer): string[] =>
  [...peer.tunnel().children.values()].map(({ summary }) => formatSelectorPair(summary.selectors)).sort();

describe('the sender of a packet that cannot be carried', () => {
  it('is told at once when the policy forbids it (RFC 4301 §5.1.1)', () => {
    const config = tunnel({
      policy: [
        protect(),
        protect({
          name: 'never',
          action: 'discard',
          priority: 1,
          child: undefined,
          selectors: pair(['10.1.0.8'], ['10.2.0.8']),
        }),
      ],
    });
    const { net, a } = enginePair({ a: config });
    net.send(a, [packet('10.1.0.8', '10.2.0.8', 'never'), packet('10.3.0.1', '10.2.0.1', 'nothing')]);
    expect(answers(a)).toEqual(['3.13 10.2.0.8 > 10.1.0.8', '3.13 10.2.0.1 > 10.3.0.1']);
    expect(a.drops()).toEqual({ 'no-policy': 1, 'discarded-by-policy': 1 });
  });

  it('is told that the host is unreachable when the wait was in vain, at a bounded rate', () => {
    const { net, a } = enginePair({ a: tunnel({ hold: { packets: 200, bytes: 100_000, time: 10_000 } }) });
    net.filter = () => false;
    net.send(
      a,
      Array.from({ length: 120 }, (_, i) => packet(`10.1.0.${i}`, '10.2.0.1', 'x')),
    );
    net.run(9_999);
    expect(answers(a)).toEqual([]);
    net.run(1);
    const told = answers(a);
    expect(told).toHaveLength(50);
    expect(told[1]).toBe('3.1 10.2.0.1 > 10.1.0.1');
    expect(a.drops()).toEqual({ 'no-sa': 120 });
  });

  it('is told that it is prohibited as soon as the peer has refused, and need not wait until the next attempt', () => {
    const config = policed(pair(['10.1.0.0/24'], ['10.2.0.0/24']));
    const b = opposite(policed(pair(['10.1.0.0/24'], ['10.9.0.0/24'])));
    const { net, a } = enginePair({ a: config, b });
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'first')]);
    net.run(200);
    expect(a.of('failed').map(({ reason }) => reason)).toEqual(['TS_UNACCEPTABLE']);
    expect(answers(a)).toEqual(['3.13 10.2.0.1 > 10.1.0.1']);
    net.send(a, [packet('10.1.0.2', '10.2.0.1', 'second')]);
    expect(answers(a)).toEqual(['3.13 10.2.0.1 > 10.1.0.2']);
    expect(a.tunnel().held).toBe(0);
    // After the wait the next packet asks again.
    net.run(5_000);
    net.send(a, [packet('10.1.0.3', '10.2.0.1', 'third')]);
    expect(a.tunnel().held).toBe(1);
    net.run(500);
    expect(a.of('failed')).toHaveLength(2);
    expect(a.drops()).toEqual({ 'no-sa': 3 });
  });

  it('gets the ICMPv6 error over IPv6', () => {
    const config = policed(pair(['fd00:1::/64'], ['fd00:2::/64']), { start: 'respond' });
    const { net, a } = enginePair({ a: config, b: opposite(config) });
    const from = (src: string): Uint8Array => ipPacket({ src, dst: 'fd00:2::1', protocol: 17 });
    net.send(a, [
      from('fd00:1::1'),
      from('fd00:3::1'),
      ipPacket({ src: 'fe80::1', dst: 'ff02::2', protocol: 58, payload: icmp(133, 0) }),
    ]);
    expect(answers(a)).toEqual(['1.3 fd00:2::1 > fd00:1::1', '1.1 fd00:2::1 > fd00:3::1']);
  });
});

describe('what the peer has narrowed away', () => {
  it('is dropped by a reason of its own, its sender told, and the log told once', () => {
    const { net, a, b } = enginePair({
      a: policed(pair(['10.1.0.0/24'], ['10.2.0.0/24'])),
      b: opposite(policed(pair(['10.1.0.0/24'], ['10.2.0.0/25']))),
    });
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'inside'), packet('10.1.0.1', '10.2.0.200', 'outside')]);
    net.run();
    expect(b.texts()).toEqual(['inside']);
    expect(a.drops()).toEqual({ 'narrowed-by-peer': 1 });
    expect(answers(a)).toEqual(['3.13 10.2.0.200 > 10.1.0.1']);
    const news = (): string[] => a.of('note').flatMap(({ level, text }) => (level === 'warn' ? [text] : []));
    expect(news()).toEqual([
      'the peer has narrowed c: 10.1.0.0/24 === 10.2.0.0/24 was requested, 10.1.0.0/24 === 10.2.0.0/25 is agreed on; ' +
        'packets of remote 10.2.0.128/25 call for another CHILD SA',
    ]);
    net.act(a, ({ ike }, now) => ike.rekeyChild(now, a.child().summary.id));
    net.run();
    expect(a.of('child-up')).toHaveLength(2);
    net.send(a, [packet('10.1.0.1', '10.2.0.200', 'outside')]);
    net.run(20_000);
    expect(a.drops()).toEqual({ 'narrowed-by-peer': 2 });
    expect(news()).toHaveLength(1);
    expect(b.of('note')).toEqual([]);
  });

  it('is not what a peer has not asked for: that calls for an SA of its own', () => {
    const config = policed(pair(['10.1.0.0/24'], ['10.2.0.0/24']));
    const { net, a, b } = enginePair({
      a: config,
      b: opposite(policed(pair(['10.1.0.0/24'], ['10.2.0.0/24'])), {
        ...opposite(policed(pair(['10.1.0.0/25'], ['10.2.0.0/25']))),
        start: 'trap',
      }),
    });
    net.send(b, [packet('10.2.0.1', '10.1.0.1', 'call')]);
    net.run();
    expect(selectorsOf(a)).toEqual(['10.1.0.0/25 === 10.2.0.0/25']);
    net.send(a, [packet('10.1.0.1', '10.2.0.2', 'inside'), packet('10.1.0.200', '10.2.0.1', 'outside')]);
    net.run();
    expect(b.texts()).toEqual(['inside']);
    // Now it has been asked for, and the peer has said no.
    expect(a.drops()).toEqual({ 'narrowed-by-peer': 1 });
    net.run(60_000);
    // What the peer has given already was not asked for again.
    expect(selectorsOf(a)).toEqual(['10.1.0.0/25 === 10.2.0.0/25']);
  });
});

describe('what comes out of an SA', () => {
  /** The receiver's policy has other entries before the one that protects. */
  function guarded(): EnginePair {
    const selectors = pair(['10.1.0.0/24'], ['10.2.0.0/24']);
    const config = policed(selectors);
    const other = opposite(config);
    const never = protect({
      name: 'no-telnet',
      direction: 'in',
      action: 'discard',
      priority: 9,
      child: undefined,
      selectors: pair(['10.2.0.0/24 udp 23'], ['10.1.0.0/24']),
    });
    return enginePair({ a: config, b: { ...other, policy: [never, ...other.policy] } });
  }

  it('must be what the policy has protected so, not only what the selectors hold (RFC 4301 §5.2)', () => {
    const { net, a, b } = guarded();
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'telnet', 23), packet('10.1.0.1', '10.2.0.1', 'ssh', 22)]);
    net.run();
    expect(b.texts()).toEqual(['ssh']);
    expect(b.drops()).toEqual({ 'policy-mismatch': 1 });
  });

  it('needs no second look where the selectors say it all', () => {
    const { net, a, b } = enginePair({ a: policed(pair(['10.1.0.0/24'], ['10.2.0.0/24'])) });
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'x')]);
    net.run();
    expect(b.texts()).toEqual(['x']);
    expect(b.drops()).toEqual({});
  });
});

const NONE: PacketFlags = {
  localAddress: false,
  remoteAddress: false,
  protocol: false,
  localPort: false,
  remotePort: false,
};

describe('an entry that is populated from packets', () => {
  const office = pair(['10.1.0.0/24'], ['10.2.0.0/24']);
  const perHost = { ...NONE, localAddress: true };

  it('has an SA for each value, negotiated once for its first packet, and loses none', () => {
    const { net, a, b } = enginePair({ a: policed(office, {}, perHost), b: opposite(policed(office)) });
    const first = [1, 2, 1, 3, 2].map((host, i) => packet(`10.1.0.${host}`, '10.2.0.1', `p${i}`));
    net.send(a, first);
    expect(a.tunnel().held).toBe(5);
    net.run();
    expect(b.texts().sort()).toEqual(['p0', 'p1', 'p2', 'p3', 'p4']);
    const each = ['10.1.0.1', '10.1.0.2', '10.1.0.3'].map((host) => `${host} === 10.2.0.0/24`);
    expect(selectorsOf(a)).toEqual(each);
    expect(a.of('ike-up')).toHaveLength(1);
    // Answers come on the SA of their flow, although the other side has one policy for all.
    net.send(b, [packet('10.2.0.9', '10.1.0.3', 'back')]);
    net.run();
    expect(a.texts()).toEqual(['back']);
    net.send(a, first);
    net.run();
    expect(selectorsOf(a)).toEqual(each);
    expect([a.drops(), b.drops()]).toEqual([{}, {}]);
    expect(a.of('note').filter(({ level }) => level === 'warn')).toEqual([]);
  });

  it('sends each flow on its own SA, and none on that of another', () => {
    const { net, a } = enginePair({ a: policed(office, {}, perHost) });
    for (let i = 0; i < 4; i++)
      net.send(
        a,
        [1, 2].map((host) => packet(`10.1.0.${host}`, '10.2.0.1', 'x')),
      );
    net.send(a, [packet('10.1.0.2', '10.2.0.7', 'x')]);
    net.run();
    const sent = [...a.tunnel().children.values()].map(({ summary, sent }) => [
      formatSelectorPair(summary.selectors),
      sent.counters[0],
    ]);
    expect(sent.sort()).toEqual([
      ['10.1.0.1 === 10.2.0.0/24', 4],
      ['10.1.0.2 === 10.2.0.0/24', 5],
    ]);
  });

  it('takes port and protocol from the packet', () => {
    const selectors = pair(
      ['10.1.0.0/24 tcp', '10.1.0.0/24 udp'],
      ['10.2.0.0/24 tcp 2000-2999', '10.2.0.0/24 udp 2000-2999'],
    );
    const flags = { ...NONE, protocol: true, remoteAddress: true, remotePort: true };
    const { net, a, b } = enginePair({ a: policed(selectors, {}, flags) });
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'low', 2000), packet('10.1.0.2', '10.2.0.1', 'high', 2999)]);
    net.run();
    expect(b.texts()).toEqual(['low', 'high']);
    expect(selectorsOf(a)).toEqual(['10.1.0.0/24 udp === 10.2.0.1 udp 2000', '10.1.0.0/24 udp === 10.2.0.1 udp 2999']);
  });

  it('keeps the selectors of an SA when it is replaced, by either side', () => {
    const { net, a, b } = enginePair({ a: policed(office, {}, perHost), b: opposite(policed(office)) });
    net.send(
      a,
      [1, 2].map((host) => packet(`10.1.0.${host}`, '10.2.0.1', 'x')),
    );
    net.run();
    for (const peer of [a, b]) {
      const [before] = [...peer.tunnel().children.values()];
      const selectors = formatSelectorPair(before!.summary.selectors);
      net.act(peer, ({ ike }, now) => ike.rekeyChild(now, before!.summary.id));
      net.run();
      const { child: after } = peer.of('child-up').at(-1)!;
      expect(after.replaces).toBe(before!.summary.id);
      expect(formatSelectorPair(after.selectors)).toBe(selectors);
      net.run(10_000);
    }
    expect(selectorsOf(a)).toEqual(['10.1.0.1 === 10.2.0.0/24', '10.1.0.2 === 10.2.0.0/24']);
    net.send(
      a,
      [1, 2].map((host) => packet(`10.1.0.${host}`, '10.2.0.1', `after ${host}`)),
    );
    net.run();
    expect(b.texts().slice(2)).toEqual(['after 1', 'after 2']);
    expect([a.drops(), b.drops()]).toEqual([{}, {}]);
  });

  it('replaces those in use in their time, and lets idle ones go', () => {
    const base = policed(office, {}, perHost);
    const lifetime = { soft: 60_000, hard: 80_000, jitter: 0 };
    const config = {
      ...base,
      connections: base.connections.map((c) => ({ ...c, children: c.children.map((one) => ({ ...one, lifetime })) })),
    };
    const { net, a, b } = enginePair({ a: config, b: opposite(policed(office)) });
    net.send(
      a,
      [1, 2].map((host) => packet(`10.1.0.${host}`, '10.2.0.1', 'x')),
    );
    for (let i = 0; i < 20; i++) {
      net.run(10_000);
      net.send(a, [packet('10.1.0.1', '10.2.0.1', 'x')]);
    }
    net.run();
    expect(selectorsOf(a)).toEqual(['10.1.0.1 === 10.2.0.0/24']);
    expect(selectorsOf(b)).toEqual(['10.2.0.0/24 === 10.1.0.1']);
    expect(a.of('child-down').map(({ reason }) => reason)).toContain('expired');
    expect(b.texts()).toHaveLength(22);
    net.send(a, [packet('10.1.0.2', '10.2.0.1', 'once more')]);
    net.run();
    expect(b.texts().at(-1)).toBe('once more');
  });

  it('is refused for one value without a word on the others', () => {
    const selectors = pair(['10.1.0.0/24'], ['10.2.0.0/25']);
    const { net, a, b } = enginePair({
      a: policed(office, {}, { ...NONE, remoteAddress: true }),
      b: opposite(policed(selectors)),
    });
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'allowed'), packet('10.1.0.1', '10.2.0.200', 'refused')]);
    net.run();
    expect(b.texts()).toEqual(['allowed']);
    expect(answers(a)).toEqual(['3.13 10.2.0.200 > 10.1.0.1']);
    net.sent.length = 0;
    net.send(a, [packet('10.1.0.1', '10.2.0.200', 'refused'), packet('10.1.0.1', '10.2.0.2', 'allowed too')]);
    net.run();
    expect(b.texts()).toEqual(['allowed', 'allowed too']);
    expect(answers(a)).toEqual(['3.13 10.2.0.200 > 10.1.0.1']);
    expect(a.of('failed')).toHaveLength(1);
  });

  it('has no more SAs than it may, however many flows there are', () => {
    const wide = pair(['10.1.0.0/16'], ['10.2.0.0/24']);
    const { net, a, b } = enginePair({
      a: policed(wide, { hold: { packets: 1_000, bytes: 1_000_000, time: 10_000 } }, perHost),
      b: opposite(policed(wide)),
    });
    const from = (i: number): Uint8Array => packet(`10.1.${i >> 8}.${i & 0xff}`, '10.2.0.1', 'x');
    for (let i = 0; i < 300; i += 20) {
      net.send(
        a,
        Array.from({ length: 20 }, (_, k) => from(i + k)),
      );
      net.run(1_000);
    }
    expect(a.tunnel().children.size).toBe(256);
    expect(b.texts()).toHaveLength(256);
    expect(a.drops()).toEqual({ 'no-sa': 44 });
  });

  it('takes what the peer asks for within, and needs no SA of its own for that', () => {
    const { net, a, b } = enginePair({
      a: policed(office, { start: 'trap' }, perHost),
      b: opposite(policed(office), { start: 'trap' }),
    });
    net.send(b, [packet('10.2.0.1', '10.1.0.1', 'call')]);
    net.run();
    expect(selectorsOf(a)).toEqual(['10.1.0.0/24 === 10.2.0.0/24']);
    net.send(a, [packet('10.1.0.7', '10.2.0.1', 'answer')]);
    net.run();
    expect(b.texts()).toEqual(['answer']);
    expect(a.tunnel().children.size).toBe(1);
  });

  it('comes with its packets, whatever the start of the tunnel says', () => {
    const { net, a, b } = enginePair({ a: policed(office, { start: 'initiate' }, perHost) });
    net.run(60_000);
    expect(net.sent).toEqual([]);
    expect(a.tunnel().complete).toBe(true);
    b.secret = 'another';
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'x')]);
    net.run(100);
    expect(a.of('failed').map(({ reason }) => reason)).toEqual(['AUTHENTICATION_FAILED']);
    expect(answers(a)).toEqual(['3.13 10.2.0.1 > 10.1.0.1']);
    b.secret = 'a secret';
    net.run(2_000);
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'again')]);
    net.run();
    expect(b.texts()).toEqual(['again']);
  });
});

describe('entries that share an SA', () => {
  it('send on it what is theirs, and no more comes out of it than is theirs', () => {
    const one = pair(['10.1.0.0/24'], ['10.2.0.0/24']);
    const two = pair(['10.3.0.0/24'], ['10.4.0.0/24']);
    const union = pair(['10.1.0.0/24', '10.3.0.0/24'], ['10.2.0.0/24', '10.4.0.0/24']);
    const both = (entry: ReturnType<typeof protect>) => [entry, { ...entry, direction: 'in' as const }];
    const config = tunnel({
      connections: [connection({ children: [child('c', { selectors: union })] })],
      policy: [...both(protect({ selectors: one })), ...both(protect({ name: 'two', selectors: two }))],
    });
    // The peer sends all that the SA holds.
    const careless = opposite(policed(union));
    const { net, a, b } = enginePair({ a: config, b: careless });
    net.send(a, [
      packet('10.1.0.1', '10.2.0.1', 'one'),
      packet('10.3.0.1', '10.4.0.1', 'two'),
      packet('10.1.0.1', '10.4.0.1', 'neither'),
    ]);
    net.run();
    expect(b.texts()).toEqual(['one', 'two']);
    expect(a.drops()).toEqual({ 'no-policy': 1 });
    expect(a.tunnel().children.size).toBe(1);
    net.send(b, [packet('10.2.0.1', '10.1.0.1', 'one'), packet('10.4.0.1', '10.1.0.1', 'neither')]);
    net.run();
    expect(a.texts()).toEqual(['one']);
    expect(a.drops()).toEqual({ 'no-policy': 1, 'policy-mismatch': 1 });
  });
});
