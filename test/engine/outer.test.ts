/** What the outer header says, and how large packets and how many of them seem to be: DSCP, ECN, padding, dummies. */
import { describe, expect, it } from 'vitest';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import type { TunnelConfig } from '../../src/engine/config.ts';
import { Engine } from '../../src/engine/engine.ts';
import { espLength } from '../../src/esp/packet.ts';
import { SaCounter } from '../../src/esp/usage.ts';
import { ExchangeType, NotifyType } from '../../src/ike/wire/iana.ts';
import { type Datagram, type EnginePair, enginePair, opposite, packet, tunnel } from '../support/engine-net.ts';
import { Random } from '../support/ike-pair.ts';
import { type Sealed, sealing } from '../support/ike-tamper.ts';

/** A UDP packet from a's network to b's with this DSCP × 4 + ECN. Its header checksum is not looked at here. */
function marked(trafficClass: number, text = 'x'): Uint8Array {
  const data = packet('10.1.0.1', '10.2.0.1', text);
  data[1] = trafficClass;
  return data;
}

const isEsp = ({ path, data }: Datagram): boolean => path.remote.port !== 500 && data.length > 4 && data[0] !== 0;

/** What a has sent as ESP since the last call. */
function espOf({ net, a }: EnginePair): Datagram[] {
  return net.sent.splice(0).filter((datagram) => datagram.from === a && isEsp(datagram));
}

/** Both ends up, and nothing of that in `sent`. */
function up(config: TunnelConfig, other = opposite(config)): EnginePair {
  const pair = enginePair({ a: { ...config, start: 'initiate' }, b: other });
  pair.net.run();
  expect(pair.a.child().summary.name).toBe('c');
  pair.net.sent.length = 0;
  return pair;
}

describe('DSCP and ECN', () => {
  it('leave as they came, also on packets that waited for their SA', () => {
    const pair = enginePair();
    const classes = [0xb8, 0x02, 0x01, 0x2b, 0];
    pair.net.send(
      pair.a,
      classes.map((value) => marked(value)),
    );
    pair.net.run();
    expect(espOf(pair).map(({ trafficClass }) => trafficClass)).toEqual(classes);
    pair.net.send(pair.a, [marked(0x8a), marked(0x28)]);
    expect(espOf(pair).map(({ trafficClass }) => trafficClass)).toEqual([0x8a, 0x28]);
  });

  it('IKE leaves without', () => {
    const pair = enginePair();
    pair.net.send(pair.a, [marked(0xff)]);
    pair.net.run();
    const ike = pair.net.sent.filter((datagram) => !isEsp(datagram));
    expect(ike.length).toBeGreaterThan(3);
    for (const { trafficClass } of ike) expect(trafficClass).toBe(0);
  });

  it('DSCP is fixed where that is configured, ECN not', () => {
    const pair = up(tunnel({ dscp: 46 }));
    pair.net.send(pair.a, [marked(0x02), marked(0x88), marked(0x29)]);
    expect(espOf(pair).map(({ trafficClass }) => trafficClass)).toEqual([0xba, 0xb8, 0xb9]);
  });

  it('congestion that is marked on the way is marked inside, and drops what does not know ECN', () => {
    const pair = up(tunnel());
    pair.net.filter = (datagram) => {
      datagram.trafficClass |= 3;
      return true;
    };
    pair.net.send(pair.a, [marked(0x2a, 'knows')]);
    pair.net.run();
    expect(pair.b.texts()).toEqual(['knows']);
    expect(pair.b.lastPacket![1]).toBe(0x2b);
    pair.net.send(pair.a, [marked(0x28, 'does not')]);
    pair.net.run();
    expect(pair.b.texts()).toEqual(['knows']);
    expect(pair.b.drops()).toEqual({ congestion: 1 });
    const { counters } = pair.b.child().received;
    expect([counters[SaCounter.ecnMarked], counters[SaCounter.ecnUnexpected]]).toEqual([1, 1]);
  });

  it.each([-1, 64, 1.5, Number.NaN])('DSCP %d is refused', (dscp) => {
    const engine = new Engine({ crypto: nodeProvider, random: new Random(1).bytes });
    expect(() => engine.addTunnel(tunnel({ dscp }))).toThrow(`tunnel t: a DSCP from 0 to 63 is required, not ${dscp}`);
  });
});

const GCM = { ivLength: 8, icvLength: 16, blockSize: 1 };

describe('padding', () => {
  const lengths = (pair: EnginePair, texts: readonly string[]): number[] => {
    pair.net.send(
      pair.a,
      texts.map((text) => marked(0, text)),
    );
    pair.net.run();
    expect(pair.b.texts().slice(-texts.length)).toEqual(texts);
    return espOf(pair).map(({ data }) => data.length);
  };

  it('to a multiple, and packets arrive as they were', () => {
    const pair = up(tunnel({ tfc: { padding: 'multiple', size: 128, dummies: 0 } }));
    expect(lengths(pair, ['a', 'b'.repeat(100), 'c'.repeat(101)])).toEqual(
      [128, 128, 256].map((length) => espLength(length, GCM)),
    );
  });

  it('to the path MTU, as it changes', () => {
    const pair = up(tunnel({ tfc: { padding: 'mtu', dummies: 0 } }));
    const { path } = pair.a.child();
    for (const mtu of [1500, 1400, 1492]) {
      pair.net.act(pair.a, (engine) => engine.setPathMtu(path, mtu));
      const [one, two] = lengths(pair, ['a', 'b'.repeat(500)]);
      expect(one).toBe(two);
      // As large as ESP in UDP over IPv4 may be, but for the four bytes that ESP is a multiple of.
      expect(mtu - 28 - one!).toBeLessThan(4);
      expect(one).toBeLessThanOrEqual(mtu - 28);
    }
  });

  it('not for a peer that says it cannot take it', () => {
    // INITIAL_CONTACT becomes ESP_TFC_PADDING_NOT_SUPPORTED on its way out of a.
    const crypto = sealing(({ exchange, content }: Sealed) => {
      const at = Buffer.from(content).indexOf(Buffer.from([0, 0, 0x40, 0x00]));
      if (exchange === ExchangeType.IKE_AUTH && at >= 0) {
        content.set(
          [NotifyType.ESP_TFC_PADDING_NOT_SUPPORTED >>> 8, NotifyType.ESP_TFC_PADDING_NOT_SUPPORTED & 0xff],
          at + 2,
        );
      }
    });
    const config = tunnel({ start: 'initiate', tfc: { padding: 'fixed', size: 600, dummies: 0 } });
    const pair = enginePair({ a: config, options: { crypto } });
    pair.net.run();
    pair.net.sent.length = 0;
    const text = 'plain';
    pair.net.send(pair.b, [packet('10.2.0.1', '10.1.0.1', text)]);
    pair.net.send(pair.a, [marked(0, text)]);
    const sent = new Map(pair.net.sent.map(({ from, data }) => [from.name, data.length]));
    expect(sent.get('b')).toBe(espLength(28 + text.length, GCM));
    expect(sent.get('a')).toBe(espLength(600, GCM));
  });

  it('a configuration that makes no sense is refused', () => {
    const engine = new Engine({ crypto: nodeProvider, random: new Random(1).bytes });
    expect(() => engine.addTunnel(tunnel({ tfc: { padding: 'fixed', dummies: 0 } }))).toThrow(
      'tunnel t: padding to fixed',
    );
  });
});

describe('dummies', () => {
  const tfc = { padding: 'none', dummies: 10 } as const;

  it('are sent while nothing else is, and go no further than the peer', () => {
    const pair = up(tunnel({ tfc }));
    pair.net.run(20_000);
    const sent = espOf(pair);
    expect(sent.length).toBeGreaterThan(150);
    expect(sent.length).toBeLessThan(250);
    expect(new Set(sent.map(({ data }) => data.length)).size).toBeGreaterThan(50);
    expect(pair.b.texts()).toEqual([]);
    const { counters } = pair.b.child().received;
    expect(counters[SaCounter.dummies]).toBeGreaterThan(150);
    expect(counters[SaCounter.packets]).toBe(0);
    expect(pair.b.drops()).toEqual({ dummy: counters[SaCounter.dummies] });
    expect(pair.a.child().sent.counters[SaCounter.dummies]).toBeGreaterThan(150);
  });

  it('are hardly ever sent among packets', () => {
    const pair = up(tunnel({ tfc }));
    for (let i = 0; i < 500; i++) {
      pair.net.send(pair.a, [marked(0, `${i}`)]);
      pair.net.run(10);
    }
    // Some 50 would have been; in a gap shorter than that between two packets nobody knows of them.
    expect(pair.a.child().sent.counters[SaCounter.dummies]).toBeLessThan(15);
  });

  it('are not sent on an SA that is gone, and on the one that replaces it', () => {
    const pair = up(tunnel({ tfc }));
    const before = pair.a.child();
    pair.net.act(pair.a, (engine, now) => engine.ike.childSoftExpired(now, before.summary.spiIn));
    pair.net.run(1_000);
    const stopped = before.sent.counters[SaCounter.dummies]!;
    pair.net.run(5_000);
    expect(before.sent.counters[SaCounter.dummies]).toBe(stopped);
    expect(pair.a.child()).not.toBe(before);
    expect(pair.a.child().sent.counters[SaCounter.dummies]).toBeGreaterThan(20);
    pair.net.act(pair.a, (engine, now) => engine.down(now, 't'));
    pair.net.run(1_000);
    pair.net.sent.length = 0;
    pair.net.run(10_000);
    expect(espOf(pair)).toEqual([]);
  });

  it('cost no wake-ups where there are none', () => {
    const pair = up(tunnel());
    const before = pair.a.wakeUps;
    pair.net.run(5_000);
    expect(pair.a.wakeUps - before).toBeLessThan(3);
  });
});
