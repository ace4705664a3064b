import { describe, expect, it } from 'vitest';
import { addMarker, classify, stripMarker } from '../../src/engine/demux.ts';
import { enginePair, packet } from '../support/engine-net.ts';
import { at } from '../support/ike-pair.ts';

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);

describe('a datagram', () => {
  it.each([
    ['without bytes', bytes(), 'empty', 'empty'],
    ['of one byte 255', bytes(0xff), 'ike', 'keepalive'],
    ['of two bytes 255', bytes(0xff, 0xff), 'ike', 'esp'],
    ['with a marker', bytes(0, 0, 0, 0, 1), 'ike', 'ike'],
    ['of nothing but a marker', bytes(0, 0, 0, 0), 'ike', 'ike'],
    ['with a marker cut short', bytes(0, 0, 0), 'ike', 'esp'],
    ['with an SPI', bytes(0, 0, 1, 0, 0, 0, 0, 1), 'ike', 'esp'],
  ])('%s', (_, data, on500, elsewhere) => {
    expect(classify(500, data)).toBe(on500);
    expect(classify(4500, data)).toBe(elsewhere);
    expect(classify(10_500, data)).toBe(elsewhere);
  });

  it('has a marker on every port but 500', () => {
    const message = bytes(1, 2, 3);
    expect(addMarker(500, message)).toEqual(message);
    expect(stripMarker(500, message)).toEqual(message);
    for (const port of [4500, 10_500]) {
      const datagram = addMarker(port, message);
      expect(datagram).toEqual(bytes(0, 0, 0, 0, 1, 2, 3));
      expect(classify(port, datagram)).toBe('ike');
      expect(stripMarker(port, datagram)).toEqual(message);
    }
  });
});

describe('an engine', () => {
  const to4500 = { local: at('192.0.2.1', 4500), remote: at('192.0.2.2', 4500) };
  const path = { local: to4500.remote, remote: to4500.local };

  it('counts what is neither IKE nor ESP', () => {
    const { b } = enginePair();
    const { engine } = b;
    expect(engine.receive(0, path, bytes())).toBe(false);
    expect(engine.receive(0, path, bytes(0xff))).toBe(false);
    expect(engine.receive(0, path, bytes(0xff))).toBe(false);
    expect(engine.counters).toMatchObject({ keepalives: 2, empty: 1, oversized: 0, overflow: 0 });
    expect(engine.hasGathered).toBe(false);
  });

  it('takes the largest datagram of UDP, and counts what is larger still', () => {
    const { net, b } = enginePair();
    expect(b.engine.receive(net.now, path, new Uint8Array(65_527).fill(1))).toBe(false);
    expect(b.engine.counters.oversized).toBe(0);
    expect(b.engine.receive(net.now, path, new Uint8Array(70_000).fill(1))).toBe(false);
    expect(b.engine.counters.oversized).toBe(1);
    net.flush(b);
    expect(b.engine.inboundDrops()).toEqual({ 'unknown-spi': 1 });
  });

  it('counts garbage by reason and reports nothing', () => {
    const { net, b } = enginePair();
    const { random } = net;
    for (let i = 0; i < 500; i++) {
      net.deliver(b, [{ path: to4500, data: random.bytes(random.below(100)) }]);
      net.deliver(b, [{ path: to4500, data: addMarker(4500, random.bytes(random.below(100))) }]);
    }
    const { 'unknown-spi': unknown, 'too-short': short, ...others } = b.engine.inboundDrops();
    expect(others).toEqual({});
    expect(unknown! + short!).toBeGreaterThan(450);
    expect(b.events).toEqual([]);
    expect(b.engine.ike.counters().bug).toBe(0);
    expect(b.engine.nextTimeout()).toBeUndefined();
  });

  it('asks for a flush when its batch is full, and counts what comes all the same', () => {
    const { net, a, b } = enginePair();
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'first')]);
    net.run();
    net.filter = () => false;
    const texts = Array.from({ length: 70 }, (_, i) => `p${i}`);
    const from = net.sent.length;
    net.send(
      a,
      texts.map((text) => packet('10.1.0.1', '10.2.0.1', text)),
    );
    const esp = net.sent.slice(from);
    const answers = esp.map(({ data }) => b.engine.receive(net.now, path, data));
    expect(answers.indexOf(true)).toBe(63);
    expect(answers.slice(63)).toEqual(new Array(7).fill(true));
    expect(b.engine.counters.overflow).toBe(6);
    net.flush(b);
    expect(b.texts()).toEqual(['first', ...texts.slice(0, 64)]);
    expect(b.engine.receive(net.now, path, esp[64]!.data)).toBe(false);
    net.flush(b);
    expect(b.texts().at(-1)).toBe('p64');
  });
});
