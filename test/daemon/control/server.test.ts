import { lstatSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { SectunnelError } from '../../../src/base/error.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { DaemonClient, DaemonUnreachableError } from '../../../src/control/client.ts';
import { LineSplitter, LineTooLongError } from '../../../src/control/lines.ts';
import { CONTROL_SOCKET, MAX_LINE } from '../../../src/control/protocol.ts';
import { ControlServer } from '../../../src/daemon/control/server.ts';
import { RateLimit } from '../../../src/daemon/rate-limit.ts';
import { RawClient, serve } from '../../support/control.ts';
import { temporaryFolder } from '../../support/daemon.ts';

/** Sends raw bytes and gives what comes back, until `lines` lines are there or the connection ends. */
async function talk(path: string, bytes: string | Buffer, lines = 1): Promise<string> {
  const client = await RawClient.open(path);
  client.send(bytes);
  return (await client.answered(lines)).map((answer) => JSON.stringify(answer)).join('\n');
}

describe('control socket', () => {
  it('is for its owner alone', async () => {
    const { path } = await serve(() => Promise.resolve({}));
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  it('does not take the place of one that cannot be asked', async () => {
    const path = join(temporaryFolder(), CONTROL_SOCKET);
    // A loop of links: connecting fails in a way that does not show whether a daemon is there.
    symlinkSync(CONTROL_SOCKET, path);
    const server = new ControlServer(path, () => Promise.resolve({}), silentLogger);
    await expect(server.listen()).rejects.toThrow('ELOOP');
    expect(lstatSync(path).isSymbolicLink()).toBe(true);
  });

  it('answers what the system refuses in its words, and what is a bug as one', async () => {
    const errors: Readonly<Record<string, Error>> = {
      info: Object.assign(new Error('EMFILE: too many open files, scandir'), { code: 'EMFILE' }),
      list: new TypeError('x is not a function'),
    };
    const { runDir } = await serve((verb) => Promise.reject(errors[verb]));
    const client = await DaemonClient.connect(runDir);
    await expect(client.call('info', { name: 'a' })).rejects.toMatchObject({
      code: 'system',
      message: expect.stringMatching(/^EMFILE: too many open files, scandir\. No file descriptors left/),
    });
    await expect(client.call('list', {})).rejects.toMatchObject({ code: 'internal' });
    client.close();
  });

  it('answers requests in their order, one after another', async () => {
    const begun: string[] = [];
    const { path } = await serve(async (verb) => {
      begun.push(verb);
      if (verb === 'info') await new Promise((resolve) => setTimeout(resolve, 30));
      return { begun: begun.length };
    });
    const client = await RawClient.open(path);
    client.ask(7, 'info');
    client.ask(5, 'list');
    expect(await client.answered(2)).toEqual([
      { id: 7, result: { begun: 1 } },
      { id: 5, result: { begun: 2 } },
    ]);
  });

  it.each([
    ['not json', 'not JSON'],
    ['[]', 'no numeric id'],
    ['null', 'not an object'],
    ['{"id":"x","verb":"list"}', 'no numeric id'],
    ['{"id":1}', 'no verb'],
  ])('refuses %s and goes on', async (line, message) => {
    const { path } = await serve(() => Promise.resolve({ fine: true }));
    const answer = await talk(path, `${line}\n{"id":7,"verb":"list"}\n`, 2);
    expect(answer).toContain(message);
    expect(answer).toContain('{"id":7,"result":{"fine":true}}');
  });

  const tooLong = { id: 0, error: { code: 'bad-request', message: `the request has more than ${MAX_LINE} bytes` } };

  it('refuses a line that is too long before its end, and carries out the next one', async () => {
    const { path } = await serve((verb) => Promise.resolve({ verb }));
    const client = await RawClient.open(path);
    client.send(Buffer.alloc(MAX_LINE + 2, 0x61));
    expect(await client.answered(1)).toEqual([tooLong]);
    client.send(Buffer.alloc(2 * MAX_LINE, 0x61));
    client.send('a\n{"id":1,"verb":"list"}\n{"id":2,');
    client.send('"verb":"info"}\n');
    expect(await client.answered(3)).toEqual([
      tooLong,
      { id: 1, result: { verb: 'list' } },
      { id: 2, result: { verb: 'info' } },
    ]);
  });

  it('refuses each of several lines that are too long', async () => {
    const { path } = await serve((verb) => Promise.resolve({ verb }));
    const client = await RawClient.open(path);
    const line = Buffer.alloc(MAX_LINE + 2, 0x61);
    line[MAX_LINE + 1] = 0x0a;
    client.send(Buffer.concat([line, line, Buffer.from('{"id":1,"verb":"list"}\n')]));
    expect(await client.answered(3)).toEqual([tooLong, tooLong, { id: 1, result: { verb: 'list' } }]);
  });

  it('closes a connection that sends a line without end, and serves the others', async () => {
    const { path } = await serve(() => Promise.resolve({ fine: true }), { limits: { requestTime: 400 } });
    const client = await RawClient.open(path);
    const chunk = Buffer.alloc(MAX_LINE / 2, 0x61);
    const flood = (): void => void (client.closed || client.socket.write(chunk, () => setImmediate(flood)));
    flood();
    expect(await talk(path, '{"id":1,"verb":"list"}\n')).toContain('fine');
    expect(await client.farewell()).toBe('the connection was closed: no complete request came within 0.4 s');
    expect(client.answers[0]).toEqual(tooLong);
  });

  it('passes a refusal on as it is, and hides no bug', async () => {
    const { runDir } = await serve((verb) => {
      if (verb === 'start') throw new SectunnelError('not-found', 'there is none');
      throw new TypeError('a bug');
    });
    const client = await DaemonClient.connect(runDir);
    await expect(client.call('start', { name: 'x' })).rejects.toMatchObject({
      code: 'not-found',
      message: 'there is none',
    });
    await expect(client.call('list', {})).rejects.toMatchObject({ code: 'internal', message: 'internal error: a bug' });
    client.close();
  });

  it('sends events to those who asked, of the tunnel that they asked for', async () => {
    const { server, runDir } = await serve(async (verb, params, connection) => {
      if (verb === 'event') connection.subscribe((params as { name?: string }).name);
      return {};
    });
    const [all, one, none] = await Promise.all([1, 2, 3].map(() => DaemonClient.connect(runDir)));
    const seen: string[] = [];
    for (const [who, client] of Object.entries({ all, one, none }))
      client!.onEvent = (event) => seen.push(`${who} ${event.tunnel}`);
    await all!.call('event', {});
    await one!.call('event', { name: 'b' });
    for (const tunnel of ['a', 'b']) server.publish({ time: '', tunnel, event: 'started', detail: '' });
    // Answers come behind what was sent before them.
    await Promise.all([all, one, none].map((client) => client!.call('info', { name: 'a' })));
    expect(seen.sort()).toEqual(['all a', 'all b', 'one b']);
    for (const client of [all, one, none]) client!.close();
  });

  it('is not taken from a daemon that lives, but from one that died', async () => {
    const { runDir, path } = await serve(() => Promise.resolve({}));
    const second = new ControlServer(path, () => Promise.resolve({}), silentLogger);
    await expect(second.listen()).rejects.toThrow(/another sectunneld already serves/);
    const deadFolder = temporaryFolder();
    writeFileSync(join(deadFolder, CONTROL_SOCKET), '');
    const third = new ControlServer(join(deadFolder, CONTROL_SOCKET), () => Promise.resolve({}), silentLogger);
    await third.listen();
    await third.close();
    await expect(DaemonClient.connect(deadFolder)).rejects.toThrow(DaemonUnreachableError);
    expect(runDir).not.toBe(deadFolder);
  });

  it('refuses a path that does not fit a socket address, and makes nothing', async () => {
    const folder = join(temporaryFolder(), 'x'.repeat(100));
    const server = new ControlServer(join(folder, CONTROL_SOCKET), () => Promise.resolve({}), silentLogger);
    await expect(server.listen()).rejects.toThrow(/107 fit; choose a shorter --run-dir/);
  });

  it('fails pending calls when the daemon ends', async () => {
    let asked = 0;
    const { server, runDir } = await serve(() => {
      asked++;
      return new Promise(() => undefined);
    });
    const client = await DaemonClient.connect(runDir);
    const call = expect(client.call('list', {})).rejects.toThrow(/closed the connection/);
    await expect.poll(() => asked).toBe(1);
    await server.close();
    await call;
    await expect(client.call('list', {})).rejects.toThrow(/closed the connection/);
  });
});

describe('LineSplitter', () => {
  function linesOf(splitter: LineSplitter, chunks: readonly string[]): string[] {
    const found: string[] = [];
    for (const chunk of chunks) {
      splitter.push(Buffer.from(chunk));
      for (let line = splitter.next(); line !== undefined; line = splitter.next()) found.push(line.toString());
    }
    return found;
  }

  it('joins chunks and splits lines', () => {
    const lines = new LineSplitter(10);
    expect(linesOf(lines, ['ab'])).toEqual([]);
    expect(linesOf(lines, ['c\nd\n\ne'])).toEqual(['abc', 'd', '']);
    expect(linesOf(lines, ['\n'])).toEqual(['e']);
    expect(lines.length).toBe(0);
  });

  it('gives the same lines however they come', () => {
    const text = Array.from({ length: 3000 }, (_, i) => 'x'.repeat(i % 97)).join('\n');
    for (const size of [1, 7, 1000, text.length]) {
      const chunks = Array.from({ length: Math.ceil(text.length / size) }, (_, i) =>
        text.slice(i * size, (i + 1) * size),
      );
      expect(linesOf(new LineSplitter(96), [...chunks, '\n'])).toEqual(text.split('\n'));
    }
  });

  it('skips a line, whose end has come or is still to come', () => {
    const text = `${'x'.repeat(9000)}\nab\n`;
    for (const size of [1, 7, 5000, text.length]) {
      for (const before of [0, 1, 8999, 9000, 9001, 9002]) {
        const lines = new LineSplitter(10_000);
        if (before > 0) lines.push(Buffer.from(text.slice(0, before)));
        lines.skip();
        expect(lines.skipping).toBe(before < 9001);
        const rest = text.slice(before);
        const chunks = Array.from({ length: Math.ceil(rest.length / size) }, (_, i) =>
          rest.slice(i * size, (i + 1) * size),
        );
        expect(linesOf(lines, chunks)).toEqual(['ab']);
        expect([lines.length, lines.memory, lines.skipping]).toEqual([0, 0, false]);
      }
    }
  });

  it('is bounded', () => {
    const lines = new LineSplitter(4);
    lines.push(Buffer.from('abcd'));
    expect(lines.ready).toBe(false);
    lines.push(Buffer.from('e'));
    expect(() => lines.ready).toThrow(LineTooLongError);
    const whole = new LineSplitter(4);
    whole.push(Buffer.from('abcde\n'));
    expect(() => whole.next()).toThrow(LineTooLongError);
  });

  it('holds single bytes in no more than twice their memory, and gives it back', () => {
    const lines = new LineSplitter(1_000_000);
    for (let i = 0; i < 300_000; i++) lines.push(Buffer.from('x'));
    expect(lines.length).toBe(300_000);
    expect(lines.memory).toBeLessThanOrEqual(600_000);
    lines.push(Buffer.from('\n'));
    expect(lines.next()?.length).toBe(300_000);
    expect(lines.memory).toBe(0);
  });
});

describe('RateLimit', () => {
  it('writes a few lines of a kind, then reports how many it left out', () => {
    const limit = new RateLimit();
    const taken = Array.from({ length: 8 }, (_, i) => limit.take(i, 'garbage'));
    expect(taken).toEqual([0, 0, 0, 0, 0, -1, -1, -1]);
    expect(limit.take(5, 'other')).toBe(0);
    expect(limit.take(10_000, 'garbage')).toBe(3);
    expect(limit.take(10_001, 'garbage')).toBe(0);
  });
});
