import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { UsageError } from '../../bench/row.ts';
import { usable } from '../../bench/system.ts';
import { cpuTimes, proportionalMemory, residentMemory, threadSeconds } from '../../bench/tunnel/usage.ts';
import { allWaits, Prober } from '../../bench/tunnels/prober.ts';
import { waitUntilUp } from '../../bench/tunnels/run.ts';
import { innerAddress, network, SIDES, shapeNamed, tunnelsOf } from '../../bench/tunnels/shape.ts';
import { decodeMessage, Vici } from '../../bench/tunnels/vici.ts';
import { temporaryFolder } from '../support/folder.ts';

describe('what many tunnels join', () => {
  /** First address and number of addresses. */
  function rangeOf(prefix: string): { readonly first: number; readonly size: number } {
    const [address, length] = prefix.split('/');
    return { first: toNumber(address!), size: 2 ** (32 - Number(length)) };
  }

  function toNumber(address: string): number {
    return address.split('.').reduce((value, octet) => value * 256 + Number(octet), 0);
  }

  it.each([
    ['hub', 'left', 1],
    ['hub', 'right', 20_000],
    ['pairs', 'left', 20_000],
    ['pairs', 'right', 20_000],
  ] as const)('shape %s has at the %s side so many networks of 20,000 tunnels: %i', (name, side, count) => {
    const shape = shapeNamed(name);
    const networks = new Set(Array.from({ length: 20_000 }, (_, tunnel) => network(shape, side, tunnel)));
    expect(networks.size).toBe(count);
    const ranges = [...networks].map(rangeOf).sort((a, b) => a.first - b.first);
    const wrong = ranges.filter(({ first, size }, at) => {
      const next = ranges[at + 1];
      return first % size !== 0 || (next !== undefined && next.first < first + size);
    });
    expect(wrong).toEqual([]);
  });

  it('gives each gateway an address in each of its networks', () => {
    for (const shape of [shapeNamed('hub'), shapeNamed('pairs')]) {
      for (const side of SIDES) {
        for (const tunnel of [0, 1, 77, 5_000]) {
          const { first, size } = rangeOf(network(shape, side, tunnel));
          const host = toNumber(innerAddress(shape, side, tunnel)) - first;
          expect(host).toBeGreaterThan(0);
          expect(host).toBeLessThan(size);
        }
      }
    }
  });

  it('names each tunnel, and its ends, once', () => {
    const tunnels = tunnelsOf(shapeNamed('hub'), 3_000);
    expect(new Set(tunnels.map(({ name }) => name)).size).toBe(3_000);
    expect(new Set(tunnels.flatMap(({ left, right }) => [left.id.value, right.id.value])).size).toBe(6_000);
  });

  it('refuses another shape, and names those that there are', () => {
    expect(() => shapeNamed('star')).toThrow(UsageError);
    expect(() => shapeNamed('star')).toThrow('--shape star: expected one of: hub, pairs');
  });
});

describe('the systems that are measured', () => {
  const systems = [
    { name: 'a', obstacles: [] },
    { name: 'b', obstacles: ['no b here'] },
  ];

  it('are those that were asked for, without those that cannot be measured, of which is told', () => {
    const failures: string[] = [];
    expect(usable(systems, [], failures).map(({ name }) => name)).toEqual(['a']);
    expect(failures).toEqual(['b was left out: no b here']);
    expect(usable(systems, ['a'], failures)).toHaveLength(1);
    expect(failures).toHaveLength(1);
    expect(() => usable(systems, ['c'], failures)).toThrow('unknown system c; expected: a, b');
  });
});

describe('the prober', () => {
  const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

  it('asks in turn, and tells the slowest answer to each question and what went on', async () => {
    let asked = 0;
    const prober = new Prober([
      { name: 'quick', ask: () => Promise.resolve(asked++) },
      { name: 'slow', ask: () => pause(120) },
    ]);
    prober.during = 'work';
    await pause(300);
    const { worst, most, slowest } = await prober.end();
    expect(asked).toBeGreaterThan(1);
    expect(worst).toBeGreaterThan(110);
    expect(most).toBeGreaterThan(110);
    expect(slowest.map(({ question }) => question)).toEqual(['quick', 'slow']);
    expect(slowest[1]).toMatchObject({ during: 'work', took: worst });
    const before = asked;
    await pause(60);
    expect(asked).toBe(before);
  });

  it('tells at its end that a question failed', async () => {
    const prober = new Prober([{ name: 'wrong', ask: () => Promise.reject(new Error('no answer')) }]);
    await pause(5);
    await expect(prober.end()).rejects.toThrow('no answer');
  });

  it('does not wait for an answer for ever', async () => {
    const prober = new Prober([{ name: 'silent', ask: () => new Promise(() => undefined) }]);
    await expect(prober.end(50)).rejects.toThrow('no answer to silent within 0.0500 s');
  });

  it('counts for a late answer all the questions that would have been late', () => {
    expect(allWaits(5)).toEqual([5]);
    expect(allWaits(50)).toEqual([50, 30, 10]);
    expect(allWaits(20_000)).toHaveLength(1_000);
  });
});

describe('waiting until all are up', () => {
  const limits = { all: 400, stall: 200 };

  it('ends when they are', async () => {
    let up = 0;
    expect(await waitUntilUp(() => up++, 8, limits)).toBeUndefined();
  });

  it('ends when no other comes up', async () => {
    const lacking = await waitUntilUp(() => 3, 8, limits);
    expect(lacking).toMatch(/^3 of 8 tunnels were up after 0\.\d+ s, and no other in the last 0\.200 s$/);
  });

  it('ends when it takes too long, though others still come up', async () => {
    let up = 0;
    const lacking = await waitUntilUp(() => up++, 1_000, limits);
    expect(lacking).toMatch(/^\d+ of 1000 tunnels were up after [\d.]+ s$/);
  });
});

describe("charon's control protocol", () => {
  const servers: Server[] = [];
  afterEach(() => {
    for (const server of servers.splice(0)) server.close();
  });

  const text = (value: string): number[] => [value.length, ...Buffer.from(value)];
  const pair = (key: string, value: string): number[] => [3, ...text(key), 0, value.length, ...Buffer.from(value)];
  const packet = (...content: number[]): Buffer => Buffer.from([0, 0, 0, content.length, ...content]);

  it('has messages of values, lists and sections', () => {
    const list = [4, ...text('versions'), 5, 0, 1, 0x32, 6];
    const message = [...pair('up', 'yes'), ...list, 1, ...text('site1'), ...pair('state', 'UP'), 1, ...text('c'), 2, 2];
    expect(decodeMessage(Buffer.from(message))).toEqual({ up: 'yes', site1: { state: 'UP', c: {} } });
    expect(() => decodeMessage(Buffer.from([1, ...text('site1')]))).toThrow('ends in a section');
    expect(() => decodeMessage(Buffer.from([9]))).toThrow('an element of type 9');
  });

  /** Answers each request with the next of `answers`. */
  async function charon(answers: readonly Buffer[]): Promise<{ readonly vici: Vici; readonly requests: Buffer[] }> {
    const path = join(temporaryFolder(), 'vici');
    const requests: Buffer[] = [];
    const server = createServer((socket) => {
      socket.on('data', (request: Buffer) => {
        const answer = answers[requests.push(request) - 1];
        if (answer === undefined) socket.destroy();
        // In pieces, as a stream may have them.
        else for (const byte of answer) socket.write(Buffer.from([byte]));
      });
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(path, resolve));
    return { vici: await Vici.connect(path), requests };
  }

  it('is asked, and reports events', async () => {
    const event = packet(7, ...text('list-sa'), 1, ...text('site1'), 2);
    const { vici, requests } = await charon([packet(5), Buffer.concat([event, packet(1, ...pair('success', 'yes'))])]);
    const events: unknown[] = [];
    await vici.listen('list-sa', (name, message) => events.push([name, message]));
    expect(await vici.request('list-sas', { ike: 'site1' })).toEqual({ success: 'yes' });
    expect(events).toEqual([['list-sa', { site1: {} }]]);
    expect(requests).toEqual([packet(3, ...text('list-sa')), packet(0, ...text('list-sas'), ...pair('ike', 'site1'))]);
    vici.close();
  });

  it('says that a command is not known, and that charon is gone', async () => {
    const { vici } = await charon([packet(2)]);
    await expect(vici.request('nonsense')).rejects.toThrow('charon does not know this');
    await expect(vici.request('stats')).rejects.toThrow('charon closed the connection');
    await expect(vici.request('stats')).rejects.toThrow('charon closed the connection');
    await expect(Vici.connect('/nonexistent/vici')).rejects.toThrow('ENOENT');
  });
});

describe('what a process uses', () => {
  it('is its processor time, in ticks and finer, and its memory', () => {
    const [ticks, fine] = [cpuTimes(process.pid).own, threadSeconds(process.pid)];
    for (const end = performance.now() + 200; performance.now() < end; );
    expect(cpuTimes(process.pid).own - ticks).toBeGreaterThan(0.02);
    expect(threadSeconds(process.pid) - fine).toBeGreaterThan(0.02);
    expect(proportionalMemory(process.pid)).toBeGreaterThan(10);
    expect(proportionalMemory(process.pid)).toBeLessThan(residentMemory(process.pid) * 1.1);
  });
});
