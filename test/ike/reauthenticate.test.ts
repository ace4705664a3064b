/** Reauthentication (RFC 7296 §2.8.3): a new IKE SA with all CHILD SAs of the old one, which goes only then. */
import { describe, expect, it } from 'vitest';
import type { TunnelConfig } from '../../src/engine/config.ts';
import type { ConnectionConfig } from '../../src/ike/config.ts';
import { type EnginePair, enginePair, opposite, type Peer, packet, protect, tunnel } from '../support/engine-net.ts';
import { child, connection, net as network } from '../support/ike-pair.ts';

const THIRDS = [2, 3, 4];
const pairOf = (third: number) => ({ local: [network('10.1.0.0/24')], remote: [network(`10.${third}.0.0/24`)] });

function config(change: Partial<ConnectionConfig> = {}, thirds = THIRDS): TunnelConfig {
  const children = thirds.map((third) => child(`c${third}`, { selectors: pairOf(third) }));
  return tunnel({
    connections: [connection({ children, ...change })],
    policy: thirds.map((third) => protect({ name: `c${third}`, child: `c${third}`, selectors: pairOf(third) })),
    start: 'initiate',
  });
}

function scene(a = config(), b = opposite(config())): EnginePair {
  const test = enginePair({ a, b });
  test.net.run(3_000);
  return test;
}

/** Those that are up, by id. */
const ikeSas = ({ engine }: Peer): number[] =>
  engine.ike.status().flatMap(({ id, state }) => (state === 'established' ? [id] : []));
const spis = (peer: Peer): number[] => [...peer.tunnel().children.values()].map(({ summary }) => summary.spiIn);

function reauthenticate({ net }: EnginePair, peer: Peer): (string | undefined)[] {
  const problems: (string | undefined)[] = [];
  net.act(peer, ({ ike }, now) => {
    for (const id of ikeSas(peer)) problems.push(ike.reauthenticate(now, id));
  });
  return problems;
}

describe('an IKE SA that is authenticated anew', () => {
  //   a                                             b
  //   │── IKE_SA_INIT: SA, KE, Ni ─────────────────▶│   the old IKE SA and its CHILD SAs stay
  //   │◀───────────────────────────── SA, KE, Nr ───│
  //   │── IKE_AUTH: IDi, AUTH, SA, TSi, TSr ───────▶│   no INITIAL_CONTACT
  //   │◀─────────────── IDr, AUTH, SA, TSi, TSr ────│
  //   │── CREATE_CHILD_SA: SA, Ni, TSi, TSr ───────▶│   for each other CHILD SA
  //   │◀──────────────────── SA, Nr, TSi, TSr ──────│
  //   │── DELETE, on the old one ──────────────────▶│
  //   │◀───────────────────────────────── response ─│
  it.each([10, 900])('takes over all CHILD SAs, and no packet is lost, with %i ms each way', (delay) => {
    const test = scene();
    const { net, a, b } = test;
    net.delay = () => delay;
    const before = { ids: ikeSas(a), spis: spis(a) };
    expect(reauthenticate(test, a)).toEqual([undefined]);
    // Asked twice, it is done once.
    expect(reauthenticate(test, a)).toEqual([undefined]);
    let sent = 0;
    for (let step = 0; step < 300; step++) {
      for (const third of THIRDS) net.send(a, [packet('10.1.0.1', `10.${third}.0.1`, `${sent++}`)]);
      for (const third of THIRDS) net.send(b, [packet(`10.${third}.0.1`, '10.1.0.1', `${sent++}`)]);
      net.run(50);
    }
    net.run(30_000);
    const [mine, theirs] = [ikeSas(a), ikeSas(b)];
    expect([mine.length, theirs.length, mine[0] === before.ids[0]]).toEqual([1, 1, false]);
    expect(a.texts().length + b.texts().length).toBe(sent);
    expect([a.drops(), b.drops(), a.of('failed'), b.of('failed')]).toEqual([{}, {}, [], []]);
    for (const peer of [a, b])
      expect([...peer.tunnel().children.values()].map(({ summary }) => summary.name).sort()).toEqual([
        'c2',
        'c3',
        'c4',
      ]);
    for (const spi of spis(a)) expect(before.spis).not.toContain(spi);
    // The old one goes when all are there, never before: it was not taken for one from before a restart.
    for (const peer of [a, b]) expect(peer.of('ike-down').map(({ reason }) => reason)).not.toContain('peer-restarted');
    expect(a.of('ike-down')).toMatchObject([{ ikeSaId: before.ids[0], reason: 'redundant' }]);
    const last = a.events.findLastIndex(({ type }) => type === 'child-up');
    expect(a.events.findIndex(({ type }) => type === 'ike-down')).toBeGreaterThan(last);
  });

  it('may be done by both ends at once', () => {
    const test = scene();
    const { net, a, b } = test;
    for (const peer of [a, b]) expect(reauthenticate(test, peer)).toEqual([undefined]);
    let sent = 0;
    for (let step = 0; step < 200; step++) {
      for (const third of THIRDS) net.send(a, [packet('10.1.0.1', `10.${third}.0.1`, `${sent++}`)]);
      net.run(50);
    }
    net.run(30_000);
    expect([ikeSas(a).length, ikeSas(b).length]).toEqual([1, 1]);
    expect(b.texts()).toHaveLength(sent);
    expect([a.tunnel().complete, b.tunnel().complete]).toEqual([true, true]);
  });

  it.each<[what: string, spoil: (test: EnginePair) => void, reason: string]>([
    [
      'does not answer',
      ({ net }) => {
        net.filter = () => false;
      },
      'timeout',
    ],
    [
      'is not who it was',
      ({ b }) => {
        b.secret = 'another';
      },
      'AUTHENTICATION_FAILED',
    ],
  ])('leaves the old one where the peer %s', (_, spoil, reason) => {
    const test = scene();
    const before = [ikeSas(test.a), spis(test.a)];
    spoil(test);
    reauthenticate(test, test.a);
    test.net.run(120_000);
    expect([ikeSas(test.a), spis(test.a)]).toEqual(before);
    expect(test.a.of('failed')[0]).toMatchObject({ child: undefined, reason });
  });

  //   a                                             b
  //   │── CREATE_CHILD_SA for c3, on the new one ──▶│
  //   │◀──────────────────────── TS_UNACCEPTABLE ───│
  //   │── DELETE, on the new one ──────────────────▶│
  it('leaves the old one, and goes itself, where the peer refuses one of its CHILD SAs', () => {
    const test = scene();
    const before = [ikeSas(test.a), spis(test.a)];
    // It keeps the SA that it has, and makes no other for c3.
    const less = opposite(config({}, [2, 4]));
    test.b.engine.ike.replaceConnection(less.connections[0]!);
    reauthenticate(test, test.a);
    test.net.run(20_000);
    expect([ikeSas(test.a), spis(test.a)]).toEqual(before);
    expect(test.a.of('ike-down')).toMatchObject([{ detail: expect.stringContaining('refuses CHILD SAs on it') }]);
    expect(ikeSas(test.b)).toHaveLength(1);
  });

  it.each<[what: string, config: TunnelConfig, why: RegExp]>([
    [
      'where the peer is',
      opposite(config({ local: { ...connection().local, address: undefined } })),
      /it has to begin/,
    ],
  ])('is not begun by an end that does not know %s', (_, b, why) => {
    const test = scene(config(), b);
    expect(reauthenticate(test, test.b)).toEqual([expect.stringMatching(why)]);
  });
});
