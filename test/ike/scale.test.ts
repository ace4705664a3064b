/** Thousands of peers from anywhere at one responder: what each of them costs must not grow with their number. */
import { describe, expect, it } from 'vitest';
import { identityFromText } from '../../src/base/identity.ts';
import { utf8 } from '../../src/base/text.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import { IkeEndpoint } from '../../src/ike/endpoint.ts';
import { at, child, connection, mirrored, net, Random } from '../support/ike-pair.ts';

const PEERS = 500;

describe('many peers', () => {
  it('each with an identity, a secret and a network of its own, from unknown addresses', () => {
    const options = { crypto: nodeProvider, random: new Random(3).bytes };
    const responder = new IkeEndpoint({ ...options, limits: { cookieThreshold: 10_000, maxHalfOpen: 10_000 } });
    const initiator = new IkeEndpoint(options);
    for (let i = 0; i < PEERS; i++) {
      const selectors = { local: [net(`10.${100 + (i >> 8)}.${i & 255}.0/24`)], remote: [net('10.2.0.0/24')] };
      const base = connection({ name: `net${i}`, dpd: { interval: 30_000 }, children: [child('c', { selectors })] });
      const config = { ...base, local: { ...base.local, id: identityFromText('fqdn', `peer${i}`) } };
      initiator.addConnection(config);
      const other = mirrored(config);
      responder.addConnection({ ...other, remote: { ...other.remote, address: undefined } });
    }
    let now = 0;
    const names = new Set<string>();
    const pump = (): void => {
      for (let busy = true; busy; ) {
        busy = false;
        for (const [from, to] of [
          [initiator, responder],
          [responder, initiator],
        ] as const) {
          for (let event = from.pollEvent(); event !== undefined; event = from.pollEvent()) {
            if (event.type === 'need-secret') from.answerSecret(now, event.requestId, utf8(event.connection));
            if (event.type === 'child-up' && from === responder) names.add(event.child.connection);
          }
          for (let out = from.pollTransmit(); out !== undefined; out = from.pollTransmit()) {
            busy = true;
            to.handleDatagram(now, { local: out.path.remote, remote: out.path.local }, out.data);
            to.nextTimeout();
          }
        }
      }
    };
    for (let i = 0; i < PEERS; i++) {
      now += 10;
      initiator.initiate(now, `net${i}`, { local: at(`198.51.${100 + (i >> 8)}.${i & 255}`, 500) });
      pump();
    }
    expect(names.size).toBe(PEERS);
    expect(responder.status().filter((sa) => sa.state === 'established')).toHaveLength(PEERS);
    // A minute of liveness checks.
    for (const until = now + 60_000; now < until; ) {
      const next = Math.min(initiator.nextTimeout() ?? until, responder.nextTimeout() ?? until);
      now = Math.max(now, Math.min(next, until));
      for (const endpoint of [initiator, responder]) endpoint.handleTimeout(now);
      pump();
    }
    expect(responder.status().filter((sa) => sa.state === 'established')).toHaveLength(PEERS);
    expect(responder.counters().retransmissions).toBe(0);
    for (let i = 0; i < PEERS; i++) initiator.closeConnection(now, `net${i}`);
    pump();
    now += 20_000;
    for (const endpoint of [initiator, responder]) endpoint.handleTimeout(now);
    expect(responder.status()).toEqual([]);
    expect(responder.nextTimeout()).toBeUndefined();
    expect(initiator.nextTimeout()).toBeUndefined();
  });
});
