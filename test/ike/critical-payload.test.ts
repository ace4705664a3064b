/** An unknown critical payload in each message, of either side: the message is rejected as a whole (RFC 7296 §2.5). */
import { describe, expect, it } from 'vitest';
import { ExchangeType, exchangeName } from '../../src/ike/wire/iana.ts';
import { decodeHeader, decodeMessage, encodePlain } from '../../src/ike/wire/message.ts';
import type { Payload } from '../../src/ike/wire/payload.ts';
import { expectClosed, expectNothing, expectSame } from '../support/ike-expect.ts';
import { Pair } from '../support/ike-pair.ts';
import { type Sealed, sealing } from '../support/ike-tamper.ts';

const { CREATE_CHILD_SA, IKE_AUTH, IKE_SA_INIT } = ExchangeType;
const TYPE = 200;
const CRITICAL: Payload = { type: 'unknown', payloadType: TYPE, critical: true, data: new Uint8Array(3) };

/** A pair of which one side changes the first payload in SK, in one exchange, to one that the other does not know. */
function strangePair(side: 'a' | 'b', exchange: number, response: boolean): { pair: Pair; mend: () => void } {
  let broken = true;
  const crypto = sealing((sealed: Sealed) => {
    if (!broken || sealed.exchange !== exchange || sealed.response !== response) return;
    sealed.skHeader[0] = TYPE;
    sealed.content[1] = 0x80;
  });
  const pair = new Pair(side === 'a' ? { aOptions: { crypto } } : { bOptions: { crypto } });
  const mend = (): void => {
    broken = false;
  };
  return { pair, mend };
}

describe.each(['a', 'b'] as const)('an unknown critical payload that %s sends', (side) => {
  //   host                                 peer
  //   │── IKE_SA_INIT, payload 200! ────────▶│
  //   │◀─── UNSUPPORTED_CRITICAL_PAYLOAD(200)│   it keeps nothing. Any host may have said so: host asks some times more
  it.each([
    ['a request', false],
    ['a response', true],
  ])(`in %s of ${exchangeName(IKE_SA_INIT)} ends the attempt in time, once, and leaves nothing`, (_what, response) => {
    const pair = new Pair();
    const host = pair[side];
    pair.filter = (datagram) => {
      const { exchange, response: answers } = decodeHeader(datagram.data);
      if (datagram.from === host && exchange === IKE_SA_INIT && answers === response) {
        const { header, payloads } = decodeMessage(datagram.data);
        datagram.data = encodePlain(header, [...payloads, CRITICAL]);
      }
      return 'deliver';
    };
    const initiator = response ? pair.peer(host) : host;
    pair.up(initiator);
    pair.run(200_000);
    expect(initiator.of('failed')).toHaveLength(1);
    expectNothing(pair);
    pair.filter = () => 'deliver';
    pair.up(initiator);
    expectSame(pair, 1);
    expectClosed(pair);
  });

  //   host                                 peer
  //   │── IKE_AUTH: payload 200! … ─────────▶│
  //   │◀─── UNSUPPORTED_CRITICAL_PAYLOAD(200)│   the IKE SA does not come up
  //
  //   peer                                 host
  //   │── IKE_AUTH ─────────────────────────▶│   is up here
  //   │◀──────────── IKE_AUTH: payload 200! …│
  //   │── DELETE of the IKE SA ─────────────▶│   which would be up for ever, else (RFC 7296 §2.21.2)
  it.each([
    ['a request', false],
    ['a response', true],
  ])(`in %s of ${exchangeName(IKE_AUTH)} ends the attempt, once, and leaves nothing`, (_what, response) => {
    const { pair, mend } = strangePair(side, IKE_AUTH, response);
    const initiator = response ? pair.peer(pair[side]) : pair[side];
    pair.up(initiator);
    pair.run(200_000);
    const reason = response ? 'peer-misbehaved' : 'UNSUPPORTED_CRITICAL_PAYLOAD';
    expect(initiator.of('failed')).toMatchObject([{ reason, initiator: true }]);
    expect(initiator.of('ike-up')).toEqual([]);
    expectNothing(pair);
    mend();
    pair.up(initiator);
    expectSame(pair, 1);
    expectClosed(pair);
  });

  //   host                                 peer
  //   │── CREATE_CHILD_SA: payload 200! … ──▶│
  //   │◀─── UNSUPPORTED_CRITICAL_PAYLOAD(200)│   nothing has changed on either side
  it(`in a request of ${exchangeName(CREATE_CHILD_SA)} is refused, and all stays as it is`, () => {
    const { pair, mend } = strangePair(side, CREATE_CHILD_SA, false);
    const host = pair[side];
    pair.up();
    const before = host.child.id;
    pair.act(host, (endpoint, now) => endpoint.rekeyChild(now, before));
    pair.run();
    expectSame(pair, 1);
    expect(host.child.id).toBe(before);
    expect(host.of('failed')).toMatchObject([{ reason: 'UNSUPPORTED_CRITICAL_PAYLOAD' }]);
    // It is tried again.
    mend();
    pair.run(31_000);
    expectSame(pair, 1);
    expect(host.child.replaces).toBe(before);
    expectClosed(pair);
  });

  //   peer                                 host
  //   │── CREATE_CHILD_SA ──────────────────▶│   has made the new SA
  //   │◀──────── CREATE_CHILD_SA: payload 200│   what it has, there is no telling
  //   │── DELETE of the IKE SA ─────────────▶│
  it(`in a response of ${exchangeName(CREATE_CHILD_SA)} ends the IKE SA on both sides, once`, () => {
    const { pair, mend } = strangePair(side, CREATE_CHILD_SA, true);
    const peer = pair.peer(pair[side]);
    pair.up();
    pair.act(peer, (endpoint, now) => endpoint.rekeyChild(now, peer.child.id));
    pair.run(61_000);
    for (const each of [pair.a, pair.b]) expect(each.of('ike-down')).toHaveLength(1);
    expectNothing(pair);
    mend();
    pair.up();
    expectSame(pair, 1);
    expectClosed(pair);
  });
});
