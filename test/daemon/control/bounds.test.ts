/** What clients of the control socket may hold of the daemon: places, memory and time. */
import { describe, expect, it } from 'vitest';
import { DaemonClient } from '../../../src/control/client.ts';
import { MAX_REPLY, type Reply } from '../../../src/control/protocol.ts';
import type { TunnelEvent } from '../../../src/control/results.ts';
import type { Dispatch } from '../../../src/daemon/control/server.ts';
import { RawClient, type Served, serve } from '../../support/control.ts';
import { eventually } from '../../support/daemon.ts';

const EVENT: TunnelEvent = { time: '', tunnel: 'a', event: 'started', detail: '' };
const MIB = 1024 * 1024;

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Answers `list` with `bytes` bytes, subscribes with `event`, and never answers `start`. */
function answering(bytes: number): Dispatch {
  return (verb, _params, connection) => {
    if (verb === 'start') return new Promise(() => undefined);
    if (verb === 'event') connection.subscribe(undefined);
    return Promise.resolve({ text: 'x'.repeat(bytes) });
  };
}

function isAnswer(answer: Reply): boolean {
  return 'result' in answer;
}

/** A command as `sectunnel` gives it. */
async function command({ runDir }: Served): Promise<unknown> {
  const client = await DaemonClient.connect(runDir);
  const result = await client.call('list', {});
  client.close();
  return result;
}

describe('places', () => {
  it('of idle connections are given to new ones, the oldest first', async () => {
    const served = await serve(answering(1), { limits: { connections: 4 } });
    const silent = await RawClient.open(served.path);
    const half = await RawClient.open(served.path);
    half.send('{"id":1,');
    const idle = [await RawClient.open(served.path), await RawClient.open(served.path)];
    for (const client of idle) {
      client.ask(1);
      await client.answered(1);
    }
    expect(await command(served)).toEqual({ text: 'x' });
    expect(await silent.farewell()).toBe('the connection was closed to make room for another: at most 4 are allowed');
    await Promise.all([command(served), command(served), command(served), command(served)]);
    expect(await half.farewell()).toMatch(/to make room/);
    expect(served.lines.filter(({ text }) => /to make room/.test(text)).length).toBeLessThanOrEqual(5);
  });

  it('are kept by subscribers that read, and by those whose request is carried out or waits for its turn', async () => {
    const served = await serve(answering(1), {
      limits: { connections: 4 },
      laneOf: (verb) => (verb === 'start' ? 'host' : 'memory'),
    });
    const subscriber = await RawClient.open(served.path);
    subscriber.ask(1, 'event');
    await subscriber.answered(1);
    const working = [await RawClient.open(served.path), await RawClient.open(served.path)];
    for (const client of working) client.ask(1, 'start');
    for (let i = 0; i < 20; i++) expect(await command(served)).toEqual({ text: 'x' });
    served.server.publish(EVENT);
    expect(await subscriber.answered(2)).toMatchObject([{ id: 1 }, { event: EVENT }]);
    expect(working.map(({ closed }) => closed)).toEqual([false, false]);
    // All four are in use: the fifth is told so.
    const last = await RawClient.open(served.path);
    last.ask(1, 'start');
    await pause(20);
    const refused = await DaemonClient.connect(served.runDir);
    await expect(refused.call('list', {})).rejects.toThrow(/all of the 4 connections wait for a reply/);
  });

  it('of subscribers are bounded', async () => {
    const served = await serve(answering(1), { limits: { subscribers: 2 } });
    const clients = await Promise.all([1, 2, 3].map(() => RawClient.open(served.path)));
    for (const [i, client] of clients.entries()) {
      client.ask(1, 'event');
      // Once more: it is one already.
      if (i === 0) client.ask(2, 'event');
      await client.answered(1);
    }
    expect(clients[0]!.answers.every(isAnswer)).toBe(true);
    expect(clients[2]!.answers).toMatchObject([{ error: { code: 'busy', message: /2 connections already/ } }]);
  });
});

describe('time', () => {
  const limits = { requestTime: 150, replyTime: 300, idleTime: 400 };

  it.each([
    ['nothing', () => undefined],
    ['half a line', (client: RawClient) => client.send('{"id":1,"verb"')],
    [
      'a byte now and then',
      (client: RawClient) => {
        const timer = setInterval(() => (client.closed ? clearInterval(timer) : client.send(' ')), 20);
      },
    ],
  ])('of a client that sends %s ends', async (_, misbehave) => {
    const { path } = await serve(answering(1), { limits });
    const begin = performance.now();
    const client = await RawClient.open(path);
    misbehave(client);
    expect(await client.farewell()).toBe('the connection was closed: no complete request came within 0.15 s');
    expect(performance.now() - begin).toBeGreaterThanOrEqual(150);
  });

  it('of a client that asks nothing more ends later, and half a line more is half a line', async () => {
    const { path } = await serve(answering(1), { limits });
    const [idle, half] = [await RawClient.open(path), await RawClient.open(path)];
    for (const client of [idle, half]) {
      client.ask(1);
      await client.answered(1);
    }
    half.send('{');
    expect(await half.farewell()).toMatch(/no complete request/);
    expect(idle.closed).toBe(false);
    expect(await idle.farewell()).toBe('the connection was closed: no request came within 0.4 s');
  });

  it('of subscribers and of those who wait for an answer does not end', async () => {
    const { server, path } = await serve(answering(1), { limits });
    const [subscriber, working] = [await RawClient.open(path), await RawClient.open(path)];
    subscriber.ask(1, 'event');
    working.ask(1, 'start');
    await subscriber.answered(1);
    await pause(600);
    server.publish(EVENT);
    expect(await subscriber.answered(2)).toHaveLength(2);
    expect(working.closed).toBe(false);
  });

  it('of one that does not read its answer ends, and so does that of a subscriber that does not read', async () => {
    const { server, path } = await serve(answering(2 * MIB), { limits });
    const client = await RawClient.open(path);
    client.ask(1);
    const subscriber = await RawClient.open(path);
    subscriber.ask(1, 'event');
    await eventually('the answer', () => subscriber.read().answers.length === 1);
    subscriber.socket.pause();
    const large = { ...EVENT, detail: 'x'.repeat(MIB / 2) };
    for (let i = 0; i < 3; i++) server.publish(large);
    await pause(700);
    expect((await client.answered(1)).length + (await subscriber.answered(5)).length).toBeLessThan(1 + 4);
  });
});

describe('memory', () => {
  it('of one that asks and does not read is one answer, however much it asks', async () => {
    let asked = 0;
    const { path } = await serve((...request) => {
      asked++;
      return answering(MIB)(...request);
    });
    const client = await RawClient.open(path);
    for (let id = 1; id <= 2000; id++) client.ask(id);
    await eventually('the first answer', () => asked > 0);
    await pause(100);
    expect(asked).toBe(1);
    // And nothing was lost.
    expect((await client.answered(20)).slice(0, 20).map((answer) => 'id' in answer && answer.id)).toEqual(
      Array.from({ length: 20 }, (_, i) => i + 1),
    );
  });

  it('of all together is bounded, with a hundred clients that do not read and a hundred that send half a line', async () => {
    const limits = { connections: 200, memory: 24 * MIB };
    const served = await serve(answering(2 * MIB), { limits });
    const before = process.memoryUsage().arrayBuffers;
    let most = 0;
    const watch = setInterval(() => {
      most = Math.max(most, process.memoryUsage().arrayBuffers - before);
    }, 1);
    // Of the clients in this process: each sends from the same memory.
    const half = Buffer.alloc(3 * MIB, 0x61);
    for (let i = 0; i < 100; i++) {
      (await RawClient.open(served.path)).ask(1);
      (await RawClient.open(served.path)).send(half);
      if (i % 10 === 0) expect(await command(served)).toMatchObject({ text: /^x+$/ });
    }
    await pause(100);
    clearInterval(watch);
    // With what is garbage already, and what the clients in this process hold. Without the bound: 800 MiB.
    expect(most).toBeLessThan(8 * limits.memory);
    expect(served.lines.map(({ text }) => text)).toContainEqual(expect.stringMatching(/hold \d+ bytes, 25165824 are/));
  });

  it('of a subscriber that does not read is bounded, and the others miss nothing', async () => {
    const { server, path } = await serve(answering(1));
    const [slow, quick] = [await RawClient.open(path), await RawClient.open(path)];
    for (const client of [slow, quick]) {
      client.ask(1, 'event');
      await client.answered(1);
    }
    slow.socket.pause();
    const event = { ...EVENT, detail: 'x'.repeat(10_000) };
    for (let i = 0; i < 1000; i++) {
      server.publish(event);
      if (i % 50 === 0) await quick.answered(i + 2);
    }
    expect(await quick.answered(1001)).toHaveLength(1001);
    expect(await slow.farewell()).toBeUndefined();
    expect(slow.answers.length).toBeLessThan(500);
  });

  it('of a large answer to a slow reader is read in the end', async () => {
    const tunnels = Array.from({ length: 10_000 }, (_, i) => ({
      name: `tunnel${i}`,
      uuid: 'u'.repeat(36),
      active: true,
    }));
    const { path } = await serve(() => Promise.resolve({ tunnels }));
    const client = await RawClient.open(path);
    client.ask(1);
    client.read();
    client.socket.on('data', () => {
      client.socket.pause();
      setTimeout(() => client.socket.resume(), 3);
    });
    expect(await client.answered(1)).toEqual([{ id: 1, result: { tunnels } }]);
  });

  it('of an answer that is too large is not spent on sending it', async () => {
    const served = await serve(answering(MAX_REPLY));
    await expect(command(served)).rejects.toThrow(/the reply has 167\d{5} bytes; at most 16777216 are sent\. Ask for/);
  });

  it('of answers is not waited for at the end', async () => {
    const { server, path } = await serve(answering(4 * MIB));
    const client = await RawClient.open(path);
    client.ask(1);
    const working = await RawClient.open(path);
    working.ask(1, 'start');
    await pause(50);
    const begin = performance.now();
    await server.close();
    expect(performance.now() - begin).toBeLessThan(3_000);
    expect(await working.farewell()).toBeUndefined();
  });
});
