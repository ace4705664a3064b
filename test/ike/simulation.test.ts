/**
 * Two endpoints over a network that loses, doubles, delays and reorders, doing everything at random times. Whatever
 * happens, once the network is well again both sides hold the same SAs, nothing leaks, and every event came once.
 */
import { describe, expect, it } from 'vitest';
import { parseEspProposalString } from '../../src/crypto/proposal-text.ts';
import { expectNothing, expectSame } from '../support/ike-expect.ts';
import { A, AUTHORITY, B, FakePki, signing, turned } from '../support/ike-fake-pki.ts';
import { child, connection, type Host, mirrored, net, Pair } from '../support/ike-pair.ts';

interface Weather {
  /** How often a side loses its memory, of the times that it does something. */
  readonly restarts?: number;
  readonly loss: number;
  readonly twice: number;
  readonly jitter: number;
}

/** How many times more seeds than usual: SECTUNNEL_SEEDS=20 for a night's run. */
const TIMES = Number(process.env.SECTUNNEL_SEEDS ?? 1);

const LIFETIME = { soft: 30_000, hard: 60_000, jitter: 10_000 };

function tunnel(names: readonly string[]): ReturnType<typeof connection> {
  const children = names.map((name, i) =>
    child(name, {
      selectors: { local: [net(`10.1.${i}.0/24`)], remote: [net(`10.2.${i}.0/24`)] },
      proposals: [parseEspProposalString(i % 2 === 0 ? 'aes128gcm16' : 'aes128gcm16-x25519')],
      lifetime: LIFETIME,
    }),
  );
  return connection({ children, lifetime: { soft: 45_000, hard: 120_000, jitter: 15_000 }, dpd: { interval: 15_000 } });
}

const TUNNEL = tunnel(['c', 'd']);

function simulate(seed: number, { loss, twice, jitter }: Weather): Pair {
  const pair = new Pair({ seed, a: TUNNEL });
  const { random } = pair;
  pair.delay = () => 5 + random.below(jitter);
  pair.filter = () => (random.next() < loss ? 'drop' : 'deliver');
  pair.copies = () => (random.next() < twice ? 2 : 1);
  return pair;
}

/** One thing that an owner may do at any time. */
function act(pair: Pair, host: Host): void {
  const { random } = pair;
  const children = [...host.children.values()];
  const some = children[random.below(children.length)];
  const ikeSa = [...host.ikeSas][0];
  pair.act(host, (endpoint, now) => {
    const choice = random.below(12);
    if (choice < 4) endpoint.initiate(now, 'net');
    else if (choice < 6 && some !== undefined) endpoint.rekeyChild(now, some.id);
    else if (choice < 8 && ikeSa !== undefined) endpoint.rekeyIkeSa(now, ikeSa);
    else if (choice === 8 && some !== undefined) endpoint.closeChild(now, some.id);
    else if (choice === 9 && some !== undefined) endpoint.childSoftExpired(now, some.spiIn);
    else if (choice === 10 && some !== undefined) endpoint.childReceived(now, some.spiIn);
    else if (choice === 11 && random.below(4) === 0) endpoint.closeConnection(now, 'net');
  });
}

function check(pair: Pair, seed: number): void {
  const names = (host: Host): string[] => [...host.children.values()].map((sa) => sa.config.name).sort();
  expect(names(pair.a), `seed ${seed}`).toEqual(names(pair.b));
  expectSame(pair, pair.a.children.size, pair.a.ikeSas.size);
  expect(pair.a.ikeSas.size).toBeLessThanOrEqual(1);
}

/** The network is well; rekeying by lifetime stops, so that there is a state of rest to compare. */
function calm(pair: Pair): void {
  pair.delay = () => 10;
  pair.filter = () => 'deliver';
  pair.copies = () => 1;
  pair.run(200_000);
  // In the midst of a rekeying there may be two of something: wait for a quiet moment.
  for (let i = 0; i < 100 && !quiet(pair); i++) pair.run(1_000);
}

function quiet(pair: Pair): boolean {
  return [pair.a, pair.b].every((host) =>
    host.endpoint
      .status()
      .every((sa) => sa.state === 'established' && sa.children.every((entry) => entry.state === 'installed')),
  );
}

describe('simulation', () => {
  it.each([
    ['a calm network', { loss: 0, twice: 0, jitter: 10 }, 8],
    ['reordering', { loss: 0, twice: 0.2, jitter: 400 }, 12],
    ['loss', { loss: 0.2, twice: 0.1, jitter: 100 }, 12],
    ['heavy loss', { loss: 0.5, twice: 0.3, jitter: 2_000 }, 12],
    ['restarts', { loss: 0.1, twice: 0.1, jitter: 300, restarts: 0.15 }, 12],
  ] as [string, Weather, number][])('%s', (_name, weather, seeds) => {
    for (let seed = 1; seed <= seeds * TIMES; seed++) {
      const pair = simulate(seed, weather);
      pair.up();
      for (let step = 0; step < 25; step++) {
        const host = pair.random.below(2) === 0 ? pair.a : pair.b;
        if (pair.random.next() < (weather.restarts ?? 0)) host.restart(host === pair.a ? TUNNEL : mirrored(TUNNEL));
        else act(pair, host);
        pair.run(pair.random.below(4) === 0 ? 20_000 : pair.random.below(1_500));
      }
      calm(pair);
      check(pair, seed);
      // Everything can still be brought up, and all of it goes away again.
      pair.up();
      calm(pair);
      check(pair, seed);
      expect(pair.a.children.size, `seed ${seed}`).toBe(2);
      pair.act(pair.a, (endpoint, now) => endpoint.closeConnection(now, 'net'));
      pair.run(200_000);
      expectNothing(pair);
    }
  });

  it.each([1_280, 576])(
    'a set-up with certificates, in fragments of %i bytes, when a tenth is lost',
    (fragmentSize) => {
      for (let seed = 1; seed <= 20 * TIMES; seed++) {
        const config = signing('signature', 'signature', { fragmentSize });
        const pair = new Pair({ seed, a: config, b: turned(config) });
        for (const [host, id] of [[pair.a, A] as const, [pair.b, B] as const]) {
          const pki = new FakePki(AUTHORITY, id);
          // With two authorities between, as long as those with RSA are.
          pki.certificates = [...pki.certificates, new Uint8Array(1_500), new Uint8Array(1_500)];
          host.pki = pki;
        }
        pair.delay = () => 5 + pair.random.below(50);
        pair.filter = () => (pair.random.next() < 0.1 ? 'drop' : 'deliver');
        pair.up();
        pair.run(74_000);
        expect([...pair.a.of('failed'), ...pair.b.of('failed')], `seed ${seed}`).toEqual([]);
        expectSame(pair, 1);
      }
    },
  );

  it('a set-up over a bad network comes up or fails cleanly', () => {
    let came = 0;
    for (let seed = 1; seed <= 40; seed++) {
      const pair = simulate(seed, { loss: 0.6, twice: 0.3, jitter: 3_000 });
      pair.up();
      pair.run(100_000);
      calm(pair);
      if (pair.a.ikeSas.size === 1) came++;
      else expect(pair.a.of('failed').length + pair.a.of('ike-down').length).toBeGreaterThan(0);
      check(pair, seed);
    }
    expect(came).toBeGreaterThan(4);
    expect(came).toBeLessThan(40);
  });
});
