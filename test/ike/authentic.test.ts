/**
 * Peers that hold the keys and send anything at all: contents of SK are changed at random just before they are sealed,
 * in every exchange and from both sides. Whatever comes of it is an answer, a refusal or the end of that IKE SA:
 * never a mistake of ours, never a leak, never harm to another peer.
 */
import { describe, expect, it } from 'vitest';
import { parseEspProposalString } from '../../src/crypto/proposal-text.ts';
import { expectNothing } from '../support/ike-expect.ts';
import { child, connection, type Host, net, Pair, Random } from '../support/ike-pair.ts';
import { type Sealed, sealing } from '../support/ike-tamper.ts';

/** How many times more mutations than usual: SECTUNNEL_SEEDS=100 for a night's run. */
const TIMES = Number(process.env.SECTUNNEL_SEEDS ?? 1);
const SEEDS = 15;

const TUNNEL = connection({
  children: ['c', 'd'].map((name, i) =>
    child(name, {
      selectors: { local: [net(`10.1.${i}.0/24`)], remote: [net(`10.2.${i}.0/24`)] },
      proposals: [parseEspProposalString(i === 0 ? 'aes128gcm16' : 'aes128gcm16-x25519')],
    }),
  ),
  dpd: { interval: 20_000 },
});

/** Values that lengths, counts and types go wrong at. */
const EDGES = [0, 1, 2, 3, 4, 7, 8, 0x20, 0x29, 0x2a, 0x2c, 0x2d, 0x7f, 0x80, 0xff];

function mutate(random: Random, { content, skHeader }: Sealed): void {
  for (let n = 1 + random.below(3); n > 0; n--) {
    const at = random.below(content.length);
    switch (random.below(7)) {
      case 0:
        content[at] = content[at]! ^ (1 << random.below(8));
        break;
      case 1:
        content[at] = EDGES[random.below(EDGES.length)]!;
        break;
      case 2:
        content[at] = random.below(256);
        break;
      case 3:
        skHeader[0] = EDGES[random.below(EDGES.length)]!;
        break;
      case 4:
        content.copyWithin(at, random.below(content.length), random.below(content.length));
        break;
      case 5:
        // Another type for a payload of the chain.
        content[0] = 33 + random.below(16);
        break;
      default:
        // Of the pad length, and so of where the contents end.
        content[content.length - 1] = random.below(content.length + 3);
    }
  }
}

class Tampered {
  readonly pair: Pair;
  readonly random: Random;
  mutations = 0;
  /** In a hundred. */
  rate = 0;

  constructor(seed: number, who: 'a' | 'b' | 'both') {
    this.random = new Random(seed);
    const crypto = sealing((sealed) => {
      if (sealed.content.length < 2 || this.random.below(100) >= this.rate) return;
      this.mutations++;
      mutate(this.random, sealed);
    });
    this.pair = new Pair({
      seed,
      a: TUNNEL,
      ...(who !== 'b' && { aOptions: { crypto } }),
      ...(who !== 'a' && { bOptions: { crypto } }),
    });
  }

  act(host: Host): void {
    const { pair, random } = this;
    const children = [...host.children.values()];
    const some = children[random.below(children.length)];
    const ikeSa = [...host.ikeSas][0];
    pair.act(host, (endpoint, now) => {
      const choice = random.below(9);
      if (choice < 3 || ikeSa === undefined) endpoint.initiate(now, 'net');
      else if (choice < 5 && some !== undefined) endpoint.rekeyChild(now, some.id);
      else if (choice < 7) endpoint.rekeyIkeSa(now, ikeSa);
      else if (some !== undefined) endpoint.closeChild(now, some.id);
    });
  }

  check(seed: number): void {
    for (const { endpoint } of [this.pair.a, this.pair.b]) expect(endpoint.counters().bug, `seed ${seed}`).toBe(0);
  }
}

describe('authentic messages with anything in them', () => {
  it.each(['a', 'b', 'both'] as const)('from %s: answered or refused, and all is well again afterwards', (who) => {
    let mutations = 0;
    for (let seed = 1; seed <= SEEDS * TIMES; seed++) {
      const tampered = new Tampered(seed, who);
      const { pair, random } = tampered;
      // Some runs spoil the set-up, most what comes after it.
      tampered.rate = random.below(3) === 0 ? 30 : 0;
      pair.up();
      tampered.rate = 30 + random.below(60);
      for (let step = 0; step < 40; step++) {
        tampered.act(random.below(2) === 0 ? pair.a : pair.b);
        pair.run(random.below(8) === 0 ? 21_000 : 100);
      }
      mutations += tampered.mutations;
      tampered.check(seed);
      tampered.rate = 0;
      pair.run(300_000);
      pair.up();
      pair.run(5_000);
      tampered.check(seed);
      expect(pair.a.children.size, `seed ${seed}`).toBeGreaterThanOrEqual(2);
      for (const host of [pair.a, pair.b]) pair.act(host, (endpoint, now) => endpoint.closeConnection(now, 'net'));
      pair.run(300_000);
      expectNothing(pair);
    }
    expect(mutations).toBeGreaterThan(SEEDS * TIMES * 5);
  });
});
