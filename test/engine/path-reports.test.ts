/** What routers report about packets that were too large, held against what was sent. */
import { describe, expect, it } from 'vitest';
import { formatAddress } from '../../src/base/address.ts';
import type { PathReport } from '../../src/base/path-report.ts';
import { type EnginePair, enginePair, opposite, packet, tunnel } from '../support/engine-net.ts';

const PACKETS = 5;

/** A tunnel that has carried five packets, on a path of 1,500 bytes. */
function upPair(): EnginePair {
  const config = tunnel();
  const pair = enginePair({ a: config, b: opposite(config) });
  pair.net.send(pair.a, [packet('10.1.0.1', '10.2.0.1', 'up')]);
  pair.net.run();
  for (let n = 1; n < PACKETS; n++) pair.net.send(pair.a, [packet('10.1.0.1', '10.2.0.1', 'more')]);
  pair.a.engine.setPathMtu(pair.a.child().path, 1500);
  return pair;
}

/** A report about the last packet of A, but for `change`; `bytes` of it are quoted. */
function reported(
  { a }: EnginePair,
  mtu: number,
  { spi = 0, sequence = PACKETS, bytes = 8, port = 0 } = {},
): { mtu: number } | undefined {
  const { path, summary } = a.child();
  const quote = new Uint8Array(8);
  const view = new DataView(quote.buffer);
  view.setUint32(0, (summary.spiOut ^ spi) >>> 0);
  view.setUint32(4, sequence);
  const remote = { ...path.remote, port: path.remote.port + port };
  const report: PathReport = { remote, mtu, quote: quote.subarray(0, bytes) };
  return a.engine.judgePathReport(report);
}

const ignored = ({ a }: EnginePair): number => a.engine.counters['path-report-ignored'];

describe('a report about a packet that was too large', () => {
  it('is believed when it quotes an SPI and a number that were sent, and names the path', () => {
    const pair = upPair();
    expect(reported(pair, 1400)).toEqual({ path: pair.a.child().path, mtu: 1400 });
    expect(formatAddress(pair.a.child().path.remote.address)).toBe('192.0.2.2');
    expect(reported(pair, 1400, { sequence: 1 })?.mtu).toBe(1400);
    expect(ignored(pair)).toBe(0);
  });

  it.each([
    ['an SPI that is not ours', { spi: 1 }],
    ['a number that has not been sent yet', { sequence: PACKETS + 1 }],
    ['the number 0, which no packet has', { sequence: 0 }],
    ['a number as if from before the first', { sequence: 0xffff_ffff }],
    ['another port of the peer', { port: 1 }],
    ['an SPI that is not ours, and no more than that', { spi: 1, bytes: 4 }],
  ])('is ignored and counted with %s', (_what, change) => {
    const pair = upPair();
    expect(reported(pair, 1400, change)).toBeUndefined();
    expect(ignored(pair)).toBe(1);
  });

  it('is ignored with a number that was sent long ago', () => {
    const pair = upPair();
    const { sequence } = pair.a.child().sent;
    sequence[1] = 0x1_0005;
    expect(reported(pair, 1400, { sequence: 5 })).toBeUndefined();
    expect(reported(pair, 1400, { sequence: 6 })?.mtu).toBe(1400);
    // The low half has been round: the numbers before it are those of the round before.
    sequence.set([1, 3]);
    expect(reported(pair, 1400, { sequence: 0xffff_fff0 })?.mtu).toBe(1400);
    expect(reported(pair, 1400, { sequence: 4 })).toBeUndefined();
  });

  it('is never accepted below the minimum of IPv4', () => {
    expect(reported(upPair(), 68)?.mtu).toBe(576);
    expect(reported(upPair(), 577)?.mtu).toBe(577);
  });

  it('is believed down to 1,280 when the quote ends before the SPI, or the router does not say the size', () => {
    expect(reported(upPair(), 600, { bytes: 0 })?.mtu).toBe(1280);
    expect(reported(upPair(), 600, { bytes: 3 })?.mtu).toBe(1280);
    expect(reported(upPair(), 0)?.mtu).toBe(1280);
    expect(reported(upPair(), 1400, { bytes: 0 })?.mtu).toBe(1400);
  });

  it('is ignored when it says nothing new', () => {
    const pair = upPair();
    expect(reported(pair, 1500)).toBeUndefined();
    pair.a.engine.setPathMtu(pair.a.child().path, 1300);
    expect(reported(pair, 1300)).toBeUndefined();
    expect(reported(pair, 1299)?.mtu).toBe(1299);
    expect(ignored(pair)).toBe(2);
  });
});
