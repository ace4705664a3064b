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
  for (let next = engine.pollAnswer(); next !== undefined; next = engine.pollAnswer()) {
    const flow = new Flow();
    readFlow(next.packet, 0, next.packet.length, flow);
    told.push(`${flow.srcPort >> 8}.${flow.srcPort & 0xff} ${formatFlow(flow).split(' ').slice(1, 4).join(' ')}`);
  }
  return told;
}

const selectorsOf = (peer: Peer): string[] =>
  [...peer.tunnel().children.values()].map(({ summary }) => formatSelectorPair(summary.selectors)).sort();

describe('who cannot be carried', () => {
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

  it('is told that the host is not reached when it has waited in vain, at a bounded rate', () => {
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

  it('is told in IPv6 what IPv6 has for it', () => {
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
      'the peer has narrowed c: 10.1.0.0/24 === 10.2.0.0/24 was wanted, 10.1.0.0/24 === 10.2.0.0/25 is agreed on; ' +
        'packets of remote 10.2.0.128/25 are dropped (narrowed-by-peer)',
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
    expect(a.tunnel().children.size).toBe(2);
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
