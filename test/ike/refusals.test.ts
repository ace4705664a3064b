/** Set-ups that are refused, by either side, at every step (RFC 7296 §2.21.1, §2.21.2). */
import { describe, expect, it } from 'vitest';
import { identityFromText } from '../../src/base/identity.ts';
import { parseEspProposalString, parseIkeProposalString } from '../../src/crypto/proposal-text.ts';
import type { ConnectionConfig } from '../../src/ike/config.ts';
import { expectClosed, expectNothing, expectSame } from '../support/ike-expect.ts';
import { at, child, connection, type Host, mirrored, net, Pair } from '../support/ike-pair.ts';

const ike = (...texts: string[]): ConnectionConfig['proposals'] => texts.map(parseIkeProposalString);

/** All attempts and their timers over. */
function rest(pair: Pair): void {
  pair.run(200_000);
}

describe.each(['a', 'b'] as const)('a set-up that %s begins', (side) => {
  function pairOf(mine: ConnectionConfig, theirs: ConnectionConfig): { pair: Pair; host: Host; peer: Host } {
    const pair = new Pair(side === 'a' ? { a: mine, b: mirrored(theirs) } : { a: theirs, b: mirrored(mine) });
    return { pair, host: pair[side], peer: pair.peer(pair[side]) };
  }

  //   host                                 peer
  //   │── SA, KE, Ni ───────────────────────▶│
  //   │◀───────────────── NO_PROPOSAL_CHOSEN │
  it('ends with NO_PROPOSAL_CHOSEN, once for its owner, and leaves nothing', () => {
    const { pair, host, peer } = pairOf(
      connection({ proposals: ike('aes256-sha256-modp2048') }),
      connection({ proposals: ike('aes256-sha256-ecp384') }),
    );
    pair.up(host);
    rest(pair);
    expectNothing(pair);
    expect(host.of('failed')).toMatchObject([{ reason: 'NO_PROPOSAL_CHOSEN', initiator: true }]);
    // Any host may have refused: it is asked three times, and remembers nothing of them.
    const refused = { reason: 'NO_PROPOSAL_CHOSEN', initiator: false };
    expect(peer.of('failed')).toMatchObject([refused, refused, refused]);
  });

  //   host                                 peer
  //   │── IKE_AUTH: IDi, AUTH, … ───────────▶│
  //   │◀────────────── AUTHENTICATION_FAILED │
  it('ends with AUTHENTICATION_FAILED where the secrets differ, once on both sides, and leaves nothing', () => {
    const { pair, host, peer } = pairOf(connection(), connection());
    peer.secret = 'another';
    pair.up(host);
    rest(pair);
    expectNothing(pair);
    for (const each of [host, peer]) {
      expect(each.of('failed')).toMatchObject([{ reason: 'AUTHENTICATION_FAILED', initiator: each === host }]);
      expect(each.of('ike-up')).toEqual([]);
    }
  });

  //   host                                 peer
  //   │── IKE_AUTH: IDi, AUTH, SA, TS ──────▶│
  //   │◀── IDr, AUTH, N(TS_UNACCEPTABLE) ────│   the IKE SA is up all the same
  //   │── CREATE_CHILD_SA: SA, Ni, TS ──────▶│
  //   │◀──────────────────── TS_UNACCEPTABLE │
  it('keeps the IKE SA where the child is refused with TS_UNACCEPTABLE, also later', () => {
    const other = { local: [net('10.9.0.0/24')], remote: [net('10.8.0.0/24')] };
    const { pair, host, peer } = pairOf(connection(), connection({ children: [child('c', { selectors: other })] }));
    pair.up(host);
    pair.up(host);
    expectSame(pair, 0);
    for (const each of [host, peer]) {
      const failed = each.of('failed').map(({ reason, initiator }) => `${reason} ${initiator}`);
      expect(failed).toEqual(new Array(2).fill(`TS_UNACCEPTABLE ${each === host}`));
      expect(each.of('ike-up')).toHaveLength(1);
    }
    expectClosed(pair);
  });

  //   host                                 peer
  //   │── IKE_SA_INIT, version 3.0 ─────────▶│
  //   │◀── INVALID_MAJOR_VERSION, 2.0 ───────│   any host may have said so: the attempt goes on
  //   │── IKE_SA_INIT, retransmitted ───────▶│
  it('survives INVALID_MAJOR_VERSION for a request that was changed on the way', () => {
    const { pair, host, peer } = pairOf(connection(), connection());
    let first = true;
    pair.filter = ({ data }) => {
      if (first) data[17] = 0x30;
      first = false;
      return 'deliver';
    };
    pair.up(host);
    expect(peer.endpoint.counters()['major-version']).toBe(1);
    expect(host.endpoint.counters()['unauthenticated-notify']).toBe(1);
    pair.run(5_000);
    expectSame(pair, 1);
    expect(host.of('failed')).toEqual([]);
    expectClosed(pair);
  });
});

describe('refusals', () => {
  it('names both lists when there is no common proposal', () => {
    const pair = new Pair({ a: connection({ proposals: ike('aes256-sha256-modp2048') }), b: mirrored(connection()) });
    pair.up();
    rest(pair);
    expectNothing(pair);
    expect(pair.a.of('failed')).toHaveLength(1);
    expect(pair.a.of('failed')[0]).toMatchObject({ reason: 'NO_PROPOSAL_CHOSEN', initiator: true });
    expect(pair.a.of('failed')[0]!.detail).toContain('aes256-sha256-modp2048');
    const theirs = pair.b.of('failed')[0]!;
    expect(theirs).toMatchObject({ connection: 'net', reason: 'NO_PROPOSAL_CHOSEN', initiator: false });
    expect(theirs.detail).toContain('modp2048');
    expect(theirs.detail).toContain('x25519');
  });

  it('names both identities when the secrets differ', () => {
    const pair = new Pair();
    pair.b.secret = 'another';
    pair.up();
    rest(pair);
    expectNothing(pair);
    for (const host of [pair.a, pair.b]) {
      const [failed] = host.of('failed');
      expect(failed).toMatchObject({ reason: 'AUTHENTICATION_FAILED', initiator: host === pair.a });
      expect(failed!.detail).toMatch(/\ba\b.*\bb\b|\bb\b.*\ba\b/);
      expect(host.events.map((event) => event.type)).not.toContain('ike-up');
    }
    expect(pair.b.endpoint.counters()['authentication-failed']).toBe(1);
  });

  it('tells a responder whose identity is not the required one', () => {
    const someone = connection({ remote: { ...connection().remote, id: undefined } });
    const b = { ...mirrored(someone), local: { ...mirrored(someone).local, id: identityFromText('fqdn', 'z') } };
    const wanted = connection();
    const pair = new Pair({ a: wanted, b });
    // The responder takes IDr for a hint only: here it is changed to what the responder is.
    pair.filter = () => 'deliver';
    pair.a.endpoint.replaceConnection({ ...wanted, remote: { ...wanted.remote, id: identityFromText('fqdn', 'z') } });
    pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net'));
    pair.run();
    expectSame(pair, 1);
    expect(pair.a.ikeSa.remoteId).toEqual(identityFromText('fqdn', 'z'));
    pair.a.endpoint.replaceConnection(wanted);
    pair.act(pair.a, (endpoint, now) => endpoint.closeConnection(now, 'net'));
    rest(pair);
    pair.up();
    rest(pair);
    expect(pair.a.of('ike-up')).toHaveLength(1);
    expect(pair.a.of('failed').at(-1)).toMatchObject({ reason: 'AUTHENTICATION_FAILED' });
    expectNothing(pair);
  });

  it('reports that there is no secret', () => {
    const initiator = new Pair();
    initiator.a.secret = undefined;
    initiator.up();
    expect(initiator.a.of('failed')[0]).toMatchObject({ reason: 'no-secret' });
    rest(initiator);
    expectNothing(initiator);
    const responder = new Pair();
    responder.b.secret = undefined;
    responder.up();
    rest(responder);
    expect(responder.b.of('failed')[0]).toMatchObject({ reason: 'no-secret' });
    expect(responder.a.of('failed')[0]).toMatchObject({ reason: 'AUTHENTICATION_FAILED' });
    expectNothing(responder);
  });

  it('refuses an identity that is not configured', () => {
    const b = mirrored(connection({ local: { ...connection().local, id: identityFromText('fqdn', 'somebody.else') } }));
    const pair = new Pair({ b });
    pair.up();
    rest(pair);
    expect(pair.b.of('failed')[0]!.detail).toContain(
      'no connection matches these identities: connection net is for fqdn somebody.else',
    );
    expect(pair.b.of('need-secret')).toEqual([]);
    expectNothing(pair);
  });

  it('distinguishes identities with the same text', () => {
    const remote = (type: 'address' | 'fqdn'): Partial<ConnectionConfig> => ({
      remote: { ...connection().remote, id: identityFromText(type, '192.0.2.2') },
    });
    const pair = new Pair({ a: connection(remote('address')), b: mirrored(connection(remote('fqdn'))) });
    pair.up();
    rest(pair);
    expect(pair.b.of('failed')[0]!.detail).toBe(
      'the peer identifies itself as fqdn a and asks for address 192.0.2.2; ' +
        'no connection matches these identities: connection net is fqdn 192.0.2.2 here',
    );
    expectNothing(pair);
  });

  it('refuses a peer that no connection is for', () => {
    const b = mirrored(connection({ local: { ...connection().local, address: at('192.0.2.99', 1).address } }));
    const pair = new Pair({ b });
    pair.up();
    rest(pair);
    expect(pair.b.of('note')[0]!.text).toMatch(
      /no connection matches 192\.0\.2\.1:500 .*; there are net from \S+ to \S+$/,
    );
    expect(pair.a.of('failed')[0]).toMatchObject({ reason: 'NO_PROPOSAL_CHOSEN' });
    expectNothing(pair);
  });

  it.each([
    [
      'TS_UNACCEPTABLE',
      child('c', { selectors: { local: [net('10.9.0.0/24')], remote: [net('10.8.0.0/24')] } }),
      '10.9.0.0/24',
    ],
    ['NO_PROPOSAL_CHOSEN', child('c', { proposals: [parseEspProposalString('aes256-sha256')] }), 'aes256'],
  ] as const)('keeps the IKE SA when the child is refused with %s', (reason, theirs, named) => {
    const pair = new Pair({ b: mirrored(connection({ children: [theirs] })) });
    pair.up();
    expectSame(pair, 0);
    for (const host of [pair.a, pair.b]) expect(host.of('failed')[0]).toMatchObject({ reason });
    expect(pair.b.of('failed')[0]!.detail).toContain(named);
  });

  it('gives up without an answer', () => {
    const pair = new Pair();
    pair.filter = () => 'drop';
    pair.up();
    rest(pair);
    expect(pair.a.of('failed')).toHaveLength(1);
    expect(pair.a.of('failed')[0]).toMatchObject({ reason: 'timeout', connection: 'net' });
    expect(pair.sent).toHaveLength(8);
    expectNothing(pair);
  });
});
