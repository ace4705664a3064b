/** IKE_AUTH without a CHILD SA (RFC 6023): the IKE SA comes up alone, its CHILD SAs by CREATE_CHILD_SA. */
import { describe, expect, it } from 'vitest';
import type { ConnectionConfig } from '../../src/ike/config.ts';
import { NotifyType } from '../../src/ike/wire/iana.ts';
import { decodeMessage, encodePlain } from '../../src/ike/wire/message.ts';
import { findNotify } from '../../src/ike/wire/payload.ts';
import { expectClosed, expectNothing, expectSame } from '../support/ike-expect.ts';
import { connection, type Host, mirrored, Pair } from '../support/ike-pair.ts';

const sides = ['a', 'b'] as const;
const NONE = connection({ children: [] });

/** A pair of which `side` has no child to ask for. */
function pairOf(side: 'a' | 'b'): { pair: Pair; host: Host; peer: Host; whole: ConnectionConfig } {
  const whole = side === 'a' ? connection() : mirrored(connection());
  const pair = side === 'a' ? new Pair({ a: NONE, b: mirrored(connection()) }) : new Pair({ b: mirrored(NONE) });
  return { pair, host: pair[side], peer: pair.peer(pair[side]), whole };
}

describe.each(sides)('IKE_AUTH of %s without a child', (side) => {
  //   host                                 peer
  //   │── IKE_SA_INIT ──────────────────────▶│
  //   │◀────── CHILDLESS_IKEV2_SUPPORTED ... │
  //   │── IKE_AUTH: IDi, AUTH ──────────────▶│   no SA, TSi, TSr
  //   │◀────────────── IKE_AUTH: IDr, AUTH ──│
  //   │── CREATE_CHILD_SA: SA, Ni, TS ──────▶│   later, by either side
  it.each(['host', 'peer'] as const)('brings up the IKE SA alone; the first child is made by the %s later', (who) => {
    const { pair, host, peer, whole } = pairOf(side);
    pair.up(host);
    expectSame(pair, 0);
    expect(pair.sent).toHaveLength(4);
    host.endpoint.replaceConnection(whole);
    pair.run(60_000);
    // It is not made by itself: the owner asks for it.
    expectSame(pair, 0);
    pair.up(who === 'host' ? host : peer);
    expectSame(pair, 1);
    expect(pair.sent).toHaveLength(6);
    for (const each of [host, peer]) {
      expect([...each.of('ike-up'), ...each.of('child-up')]).toHaveLength(2);
      expect(each.of('failed')).toEqual([]);
    }
    expectClosed(pair);
  });

  //   host                                 peer
  //   │── IKE_SA_INIT ──────────────────────▶│
  //   │◀───────────────────────── SA, KE, Nr │   without CHILDLESS_IKEV2_SUPPORTED
  it('is not tried with a responder that does not announce it', () => {
    const { pair, host, peer } = pairOf(side);
    pair.filter = (datagram) => {
      if (datagram.from === peer) {
        const { header, payloads } = decodeMessage(datagram.data);
        const kept = payloads.filter((p) => p.type !== 'notify' || p.notify !== NotifyType.CHILDLESS_IKEV2_SUPPORTED);
        datagram.data = encodePlain(header, kept);
      }
      return 'deliver';
    };
    pair.up(host);
    expect(pair.sent).toHaveLength(2);
    expect(host.of('failed')).toHaveLength(1);
    expect(host.of('failed')[0]!.detail).toContain('has no child');
    pair.run(200_000);
    expectNothing(pair);
  });

  it('is announced by the responder', () => {
    const { pair, host } = pairOf(side);
    pair.up(host);
    const { payloads } = decodeMessage(pair.sent[1]!.data);
    expect(findNotify(payloads, NotifyType.CHILDLESS_IKEV2_SUPPORTED)).toBeDefined();
  });
});
