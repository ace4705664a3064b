/** Another configuration for a tunnel that runs: what still fits stays up, and carries packets all the while. */
import { expect, it } from 'vitest';
import { parseEspProposalString, parseIkeProposalString } from '../../src/crypto/proposal-text.ts';
import type { TunnelConfig } from '../../src/engine/config.ts';
import type { ConnectionConfig } from '../../src/ike/config.ts';
import { type EnginePair, enginePair, opposite, type Peer, packet, protect, tunnel } from '../support/engine-net.ts';
import { child, connection, net as network } from '../support/ike-pair.ts';

interface Words {
  /** By child, the third number of the peer's network. */
  readonly children?: Readonly<Record<string, number>>;
  readonly connection?: Partial<ConnectionConfig>;
  readonly tunnel?: Partial<TunnelConfig>;
  readonly esp?: string;
}

const pairOf = (third: number) => ({
  local: [network('10.1.0.0/24')],
  remote: [network(`10.${third}.0.0/24`)],
});

function config({ children = { one: 2, two: 3 }, esp = 'aes128gcm16', ...words }: Words = {}): TunnelConfig {
  const proposals = [parseEspProposalString(esp)];
  return tunnel({
    connections: [
      connection({
        children: Object.entries(children).map(([name, third]) => child(name, { selectors: pairOf(third), proposals })),
        ...words.connection,
      }),
    ],
    policy: Object.entries(children).flatMap(([name, third]) =>
      (['out', 'in'] as const).map((direction) => protect({ name, child: name, selectors: pairOf(third), direction })),
    ),
    start: 'initiate',
    ...words.tunnel,
  });
}

function scene(words: Words = {}): EnginePair {
  const test = enginePair({ a: config(words), b: opposite(config(words)) });
  test.net.run(3_000);
  return test;
}

function change({ net, a, b }: EnginePair, words: Words, closed: 'all' | string[] = []): void {
  const set = closed === 'all' ? closed : new Set(closed);
  // The responder first, so that what this end asks for is there.
  net.act(b, (engine, now) => engine.changeTunnel(now, opposite(config(words)), set));
  net.act(a, (engine, now) => engine.changeTunnel(now, config(words), set));
  net.run(3_000);
}

/** By child, the SPIs of its SA at one end; and the IKE SAs. */
function sas(peer: Peer): Record<string, unknown> {
  const children = [...peer.tunnel().children.values()].map(({ summary: { name, spiIn, spiOut } }) => [
    name,
    [spiIn, spiOut],
  ]);
  const ike = peer.engine.ike.status().flatMap(({ id, state }) => (state === 'established' ? [id] : []));
  return { ...Object.fromEntries(children), ike };
}

/** Which of the peer's networks a packet gets to. */
function reached({ net, a, b }: EnginePair, ...thirds: number[]): number[] {
  return thirds.filter((third) => {
    const before = b.texts().length;
    net.send(a, [packet('10.1.0.1', `10.${third}.0.1`, 'here')]);
    net.run(100);
    return b.texts().length > before;
  });
}

it.each<[what: string, words: Words]>([
  ['nothing', {}],
  ['lifetimes and DPD', { connection: { lifetime: { soft: 1e6, hard: 2e6, jitter: 0 }, dpd: { interval: 5_000 } } }],
  ['how it is started', { tunnel: { start: 'trap', dpdAction: 'restart' } }],
  ['proposals that the next rekeying uses', { esp: 'aes256gcm16' }],
])('keeps all SAs where %s changed, and the packets that pass', (_, words) => {
  const test = scene();
  const before = [sas(test.a), sas(test.b)];
  change(test, words);
  expect([sas(test.a), sas(test.b)]).toEqual(before);
  expect(reached(test, 2, 3)).toEqual([2, 3]);
  expect(test.a.of('child-down')).toEqual([]);
});

it('replaces the SAs of a child that is for other packets, and leaves the others', () => {
  const test = scene();
  const before = sas(test.a);
  change(test, { children: { one: 2, two: 4 } }, ['two']);
  const after = sas(test.a);
  expect([after.one, after.ike]).toEqual([before.one, before.ike]);
  expect(after.two).not.toEqual(before.two);
  expect(reached(test, 2, 3, 4)).toEqual([2, 4]);
  expect(test.a.tunnel().complete).toBe(true);
});

it('brings up a child that is new, and closes one that is gone', () => {
  const test = scene();
  const before = sas(test.a);
  change(test, { children: { one: 2, two: 3, three: 4 } });
  expect(sas(test.a)).toEqual({ ...before, three: expect.anything() });
  expect(reached(test, 2, 3, 4)).toEqual([2, 3, 4]);
  change(test, { children: { three: 4 } }, ['one', 'two']);
  expect(Object.keys(sas(test.b)).sort()).toEqual(['ike', 'three']);
  expect(reached(test, 2, 3, 4)).toEqual([4]);
  expect(test.a.tunnel().complete).toBe(true);
});

it('has the new policy decide about the packets of SAs that stay, at both ends', () => {
  const test = scene();
  const before = sas(test.a);
  const discard = protect({ name: 'first', action: 'discard', priority: 9, child: undefined, selectors: pairOf(2) });
  const strict = { ...config(), policy: [discard, ...config().policy] };
  test.net.act(test.a, (engine, now) => engine.changeTunnel(now, strict, new Set()));
  expect(reached(test, 2, 3)).toEqual([3]);
  change(test, {});
  expect(reached(test, 2, 3)).toEqual([2, 3]);
  const inward = { ...discard, direction: 'in' } as const;
  const guarded = { ...config(), policy: [inward, ...config().policy] };
  test.net.act(test.b, (engine, now) => engine.changeTunnel(now, opposite(guarded), new Set()));
  expect(reached(test, 2, 3)).toEqual([3]);
  expect(sas(test.a)).toEqual(before);
});

it('sends on the newest of the SAs for the same packets, as before', () => {
  const test = scene();
  const [first] = test.a.tunnel().children.values();
  // The old one stays until the peer has confirmed that it is deleted.
  test.net.filter = ({ from }) =>
    from === test.a || !test.a.of('child-up').some(({ child }) => child.replaces !== undefined);
  test.net.act(test.a, ({ ike }, now) => ike.rekeyChild(now, first!.summary.id));
  test.net.run(100);
  const sending = (): (string | number)[] => {
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'which')]);
    const { data } = net.sent.at(-1)!;
    return [...data.subarray(0, 4)];
  };
  const { net, a } = test;
  const before = sending();
  test.net.act(a, (engine, now) => engine.changeTunnel(now, config(), new Set()));
  expect(a.tunnel().sasOf('one')).toBe(2);
  expect(sending()).toEqual(before);
});

it('lets packets that wait for an SA go on waiting, if the new policy protects them', () => {
  const words: Words = { tunnel: { start: 'trap' } };
  const test = enginePair({ a: config(words), b: opposite(config(words)) });
  const { net, a, b } = test;
  net.filter = () => false;
  for (const third of [2, 3]) net.send(a, [packet('10.1.0.1', `10.${third}.0.1`, `to ${third}`)]);
  net.run(100);
  const narrower: Words = { ...words, children: { other: 4, two: 3 } };
  net.act(a, (engine, now) => engine.changeTunnel(now, config(narrower), new Set()));
  expect(a.tunnel().held).toBe(1);
  net.filter = () => true;
  net.run(5_000);
  expect(b.texts()).toEqual(['to 3']);
  expect(a.drops()).toEqual({ 'no-policy': 1 });
});

it('makes all anew where that is asked for, with the new proposals', () => {
  const test = scene();
  const before = sas(test.a);
  const proposals = [parseIkeProposalString('aes256gcm16-prfsha384-ecp384')];
  change(test, { connection: { proposals } }, 'all');
  const after = sas(test.a);
  for (const key of ['one', 'two', 'ike']) expect(after[key]).not.toEqual(before[key]);
  expect(test.a.engine.ike.status().map(({ suite }) => suite)).toEqual([expect.stringContaining('ecp384')]);
  expect(reached(test, 2, 3)).toEqual([2, 3]);
});

it.each<[what: string, broken: TunnelConfig]>([
  ['a policy that names no child', { ...config(), policy: [protect({ child: 'nobody' })] }],
  ['a connection without proposals', config({ connection: { proposals: [] } })],
  ['a connection that it has not', config({ connection: { name: 'other' } })],
])('changes nothing for %s', (_, broken) => {
  const test = scene();
  const before = sas(test.a);
  expect(() => test.a.engine.changeTunnel(test.net.now, broken, 'all')).toThrow(RangeError);
  expect(test.a.tunnel().config.connections[0]!.name).toBe('net');
  test.net.run(1_000);
  expect(sas(test.a)).toEqual(before);
  expect(reached(test, 2, 3)).toEqual([2, 3]);
});
