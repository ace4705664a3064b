/**
 * Groups of CHILD SAs ("PFS"): IKE_AUTH hides whether the two sides agree about them (RFC 7296 §1.2), the first rekeying
 * shows it. Default against the defaults of others, and a disagreement, past two lifetimes.
 */
import { describe, expect, it } from 'vitest';
import { defaultEspProposals, defaultIkeProposals } from '../../src/crypto/algorithms.ts';
import type { EspProposal } from '../../src/crypto/proposal.ts';
import { parseEspProposalString } from '../../src/crypto/proposal-text.ts';
import type { TunnelConfig } from '../../src/engine/config.ts';
import { type EnginePair, enginePair, opposite, packet, tunnel } from '../support/engine-net.ts';
import { child, connection } from '../support/ike-pair.ts';

const HOUR = 3_600_000;
/** An hour, as by default, with a lifetime of the IKE SA that is longer than these tests. */
const LIFETIME = { soft: HOUR - 300_000, hard: HOUR, jitter: 60_000 };

/** Of a peer that leaves it to the other to rekey first. */
const LATER = { ...LIFETIME, soft: HOUR - 180_000 };

function ours(
  proposals: readonly EspProposal[],
  change: Partial<TunnelConfig> = {},
  childLifetime = LIFETIME,
): TunnelConfig {
  const children = [child('c', { proposals, lifetime: childLifetime })];
  const lifetime = { soft: 24 * HOUR, hard: 25 * HOUR, jitter: 0 };
  return tunnel({ connections: [connection({ proposals: defaultIkeProposals, children, lifetime })], ...change });
}

/** Sends a packet every ten seconds for two lifetimes and more; returns how many did not arrive. */
function losses({ net, a, b }: EnginePair): number {
  const before = b.texts().length;
  const count = Math.floor((2.5 * HOUR) / 10_000);
  for (let i = 0; i < count; i++) {
    net.send(a, [packet('10.1.0.1', '10.2.0.1', `${i}`)]);
    net.run(10_000);
  }
  return count - (b.texts().length - before);
}

/** As others have it by default. */
const PEERS: Record<string, readonly EspProposal[]> = {
  'of our own': defaultEspProposals,
  'without a group, as strongSwan': ['aes128-aes256-sha256', 'aes128gcm16-aes256gcm16'].map(parseEspProposalString),
  'with a group, as libreswan (pfs=yes)': [
    'aes256gcm16-aes128gcm16-modp2048-modp3072-ecp256-x25519',
    'aes256-aes128-sha512-sha256-modp2048-modp3072-ecp256-x25519',
  ].map(parseEspProposalString),
};

describe('default proposals against those of a peer', () => {
  describe.each(Object.entries(PEERS))('%s', (_name, theirs) => {
    it.each(['a', 'b'] as const)('lose nothing over two lifetimes, begun by %s, on one IKE SA', (caller) => {
      const mine = ours(defaultEspProposals);
      const other = opposite(ours(theirs));
      const test = enginePair(
        caller === 'a'
          ? { a: { ...mine, start: 'initiate' }, b: other }
          : { a: { ...mine, start: 'respond' }, b: { ...other, start: 'initiate' } },
      );
      test.net.run();
      expect(losses(test)).toBe(0);
      expect(test.a.of('ike-up')).toHaveLength(1);
      expect(test.a.of('child-up').length).toBeGreaterThanOrEqual(3);
      expect([...test.a.of('failed'), ...test.b.of('failed')]).toEqual([]);
    });
  });
});

describe('a peer that disagrees about the group', () => {
  const WITH = [parseEspProposalString('aes128gcm16-x25519')];
  const WITHOUT = [parseEspProposalString('aes128gcm16')];

  it.each([
    ['wants one', WITHOUT, WITH, /without a group: where it wants one \("PFS"\), name it here/],
    ['wants none', WITH, WITHOUT, /with a group \(x25519\): where it wants none/],
  ] as const)(
    '(%s) gets a new IKE SA before the CHILD SA is over, and the refusal says why',
    (_, mine, theirs, why) => {
      const test = enginePair({ a: ours(mine, { start: 'initiate' }), b: opposite(ours(theirs, {}, LATER)) });
      test.net.run();
      expect(losses(test)).toBe(0);
      const { a, b } = test;
      expect(a.of('failed')[0]).toMatchObject({ reason: 'NO_PROPOSAL_CHOSEN', detail: expect.stringMatching(why) });
      // One for each lifetime, the old one gone when the new one has its CHILD SA.
      expect(a.of('ike-up').length).toBeGreaterThanOrEqual(3);
      expect(a.of('ike-up').length).toBeLessThanOrEqual(4);
      expect(a.engine.ike.status()).toHaveLength(1);
      expect(b.engine.ike.status()).toHaveLength(1);
      expect(a.tunnel().children.size).toBe(1);
      // Whichever side found that it cannot replace it, that side closed it.
      expect(a.of('ike-down').every(({ reason }) => reason === 'redundant' || reason === 'deleted-by-peer')).toBe(true);
      expect(a.of('failed').length).toBeLessThanOrEqual(12);
    },
  );

  it('is called on a new IKE SA when the CHILD SA is gone, and the packet follows', () => {
    const test = enginePair({ a: ours(WITHOUT), b: opposite(ours(WITH)) });
    const { net, a, b } = test;
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'first')]);
    net.run();
    net.act(b, ({ ike }, now) => ike.closeChild(now, b.child().summary.id));
    net.run();
    expect(a.tunnel().children.size).toBe(0);
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'second')]);
    net.run(5_000);
    expect(b.texts()).toEqual(['first', 'second']);
    expect(a.engine.ike.status()).toHaveLength(1);
    expect(a.of('note').map(({ text }) => text)).toContain(
      'the peer refuses CHILD SA c on this IKE SA: a new IKE SA is negotiated to replace it',
    );
  });

  it('and refuses the CHILD SA on the new IKE SA too keeps the old one, and is not asked over and over', () => {
    const config = ours(WITH, { start: 'initiate' });
    const test = enginePair({ a: config, b: opposite(ours(WITH)) });
    const { net, a, b } = test;
    net.run();
    const [theirs] = opposite(ours([parseEspProposalString('chacha20poly1305-x25519')])).connections;
    b.engine.ike.replaceConnection(theirs!);
    const old = a.engine.ike.status()[0]!.id;
    net.run(HOUR - 60_000);
    expect(a.engine.ike.status().map(({ id }) => id)).toEqual([old]);
    expect(a.tunnel().children.size).toBe(1);
    // Ten refusals a side, and one attempt in five minutes.
    expect(a.of('ike-up').length).toBeGreaterThanOrEqual(2);
    expect(a.of('ike-up').length).toBeLessThanOrEqual(4);
  });
});
