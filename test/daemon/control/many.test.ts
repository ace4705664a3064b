/** Queries about many tunnels, and changes of many: parts, progress, selection, and others that are served meanwhile. */
import { describe, expect, it } from 'vitest';
import type { Progress } from '../../../src/control/results.ts';
import { MemoryNetwork } from '../../../src/tun/udp/memory.ts';
import { RawClient } from '../../support/control.ts';
import { address, TestDaemon, tunnelDocument } from '../../support/daemon.ts';

const branch = (at: number): string =>
  tunnelDocument({
    name: `b${1000 + at}`,
    remote: '192.0.2.2',
    inner: ['10.1.0.0', `10.${2 + (at >> 8)}.${at & 255}.0`],
  });

async function withTunnels(count: number): Promise<TestDaemon> {
  const daemon = await TestDaemon.start(new MemoryNetwork().host([address('192.0.2.1')]));
  await daemon.giveSecret();
  const documents = Array.from({ length: count }, (_, at) => ({ xml: branch(at), source: `${at}.xml` }));
  expect(await daemon.client.call('define-each', { documents })).toEqual({ done: count, failed: 0 });
  return daemon;
}

describe('a long reply', () => {
  it('of list and status comes in parts, which a client puts together', async () => {
    const daemon = await withTunnels(160);
    const raw = await RawClient.open(`${daemon.runDir}/sectunneld.sock`);
    raw.ask(1, 'status');
    const lines = await raw.answered(4);
    expect(lines.map((line) => ('part' in line ? 'part' : 'result' in line ? 'result' : 'other'))).toEqual([
      ...['part', 'part', 'part'],
      'result',
    ]);
    const { tunnels } = await daemon.client.call('status', {});
    expect(tunnels.map(({ name }) => name)).toEqual(Array.from({ length: 160 }, (_, at) => `b${1000 + at}`));
    expect((await daemon.client.call('list', {})).tunnels).toHaveLength(160);
    // Few tunnels come in one line, as ever.
    raw.ask(2, 'status', { patterns: ['b100[0-3]'] });
    expect((await raw.answered(5))[4]).toMatchObject({ id: 2, result: { tunnels: [{ name: 'b1000' }, {}, {}, {}] } });
  });
});

describe('a selection', () => {
  it('is made by name, pattern, state and number, in the order that is asked for', async () => {
    const daemon = await withTunnels(12);
    for (const name of ['b1007', 'b1003']) await daemon.client.call('start', { name });
    const list = async (params: Parameters<typeof daemon.client.call<'list'>>[1]): Promise<string[]> =>
      (await daemon.client.call('list', params)).tunnels.map(({ name }) => name);
    expect(await list({ patterns: ['b101*', 'b1002'] })).toEqual(['b1002', 'b1010', 'b1011']);
    expect(await list({ state: 'waiting' })).toEqual(['b1003', 'b1007']);
    expect(await list({ active: true, sort: 'since' })).toEqual(['b1003', 'b1007']);
    expect(await list({ active: false, limit: 2 })).toEqual(['b1000', 'b1001']);
    expect((await list({ sort: 'state' })).slice(-2)).toEqual(['b1003', 'b1007']);
    expect(await list({ sort: 'traffic', limit: 1 })).toEqual(['b1000']);
    expect(await list({ patterns: ['none*'] })).toEqual([]);
    expect(await list({ autostart: true })).toEqual([]);
    const { uuid } = await daemon.client.call('info', { name: 'b1005' });
    expect(await list({ patterns: [uuid] })).toEqual(['b1005']);
    const { tunnels } = await daemon.client.call('status', { state: 'waiting', limit: 1 });
    expect(tunnels.map(({ name }) => name)).toEqual(['b1003']);
  });

  it.each([
    [
      { state: 'upp' },
      "unknown state 'upp'; expected one of: inactive, waiting to retry, waiting, connecting, partial, up",
    ],
    [{ sort: 'size' }, "unknown sort 'size'; expected one of: name, state, since, traffic"],
    [{ patterns: ['nobody'] }, "there is no tunnel 'nobody'"],
  ])('of %j is refused', async (params, message) => {
    const daemon = await withTunnels(1);
    await expect(daemon.client.call('list', params)).rejects.toThrow(message);
  });
});

describe('a change of many', () => {
  it('tells how far it is until all are done', async () => {
    const daemon = await withTunnels(40);
    const seen: Progress[] = [];
    const result = await daemon.client.call(
      'each',
      { verb: 'start', all: true },
      { onProgress: (progress) => seen.push(progress) },
    );
    expect(result).toEqual({ done: 40, failed: 0 });
    expect(seen.flatMap(({ outcomes }) => outcomes.map(({ name }) => name)).sort()).toEqual(
      Array.from({ length: 40 }, (_, at) => `b${1000 + at}`),
    );
    expect(seen.at(-1)).toMatchObject({ done: 40, failed: 0, remaining: 0 });
  });

  it.each([
    [{ verb: 'explode', all: true }, "'explode' cannot be done to several tunnels"],
    [{ verb: 'start' }, "'each' takes either names or all: true"],
    [{ verb: 'start', names: ['a'], all: true }, "'each' takes either names or all: true"],
  ])('of %j is refused', async (params, message) => {
    const daemon = await withTunnels(0);
    await expect(daemon.client.call('each', params)).rejects.toThrow(message);
  });

  it('keeps nobody else waiting', { timeout: 60_000 }, async () => {
    const daemon = await withTunnels(300);
    const begin = performance.now();
    const starting = daemon.client.call('each', { verb: 'start', all: true });
    let took: number | undefined;
    void starting.finally(() => {
      took = performance.now() - begin;
    });
    const raw = await RawClient.open(`${daemon.runDir}/sectunneld.sock`);
    const waits: number[] = [];
    for (let id = 1; took === undefined; id++) {
      const began = performance.now();
      raw.ask(id, 'info', { name: 'b1000' });
      await raw.answered(id);
      waits.push(performance.now() - began);
    }
    await starting;
    waits.sort((a, b) => a - b);
    // One more start at most, and one of another connection: a queue behind all of them would take as long as all of them.
    expect(waits[Math.floor(waits.length / 2)]).toBeLessThan(took! / 20);
    expect(waits.at(-1)).toBeLessThan(took! / 4);
    expect(waits.length).toBeGreaterThan(50);
  });
});
