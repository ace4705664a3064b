import { statSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { silentLogger } from '../../src/base/log.ts';
import { DaemonClient, DaemonUnreachableError } from '../../src/daemon/client.ts';
import { ControlServer, type Dispatch } from '../../src/daemon/control.ts';
import { LineSplitter, LineTooLongError } from '../../src/daemon/lines.ts';
import { CONTROL_SOCKET, ControlError, MAX_LINE } from '../../src/daemon/protocol.ts';
import { RateLimit } from '../../src/daemon/rate-limit.ts';
import { temporaryFolder } from '../support/daemon.ts';

async function serve(dispatch: Dispatch): Promise<{ server: ControlServer; runDir: string; path: string }> {
  const runDir = temporaryFolder();
  const path = join(runDir, CONTROL_SOCKET);
  const server = new ControlServer(path, dispatch, silentLogger);
  await server.listen();
  onTestFinished(() => server.close());
  return { server, runDir, path };
}

/** Sends raw bytes and gives what comes back until `lines` lines are there or the connection ends. */
function talk(path: string, bytes: string | Buffer, lines = 1): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket: Socket = connect(path, () => socket.write(bytes));
    const done = (): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.on('data', (chunk: Buffer) => {
      answer += chunk.toString();
      if (answer.split('\n').length > lines) done();
    });
    socket.on('end', done);
    socket.on('error', reject);
  });
}

describe('control socket', () => {
  it('is for its owner alone', async () => {
    const { path } = await serve(() => Promise.resolve({}));
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  it('answers each request by its id, whatever the order', async () => {
    const { runDir } = await serve(async (verb) => {
      if (verb === 'info') await new Promise((resolve) => setTimeout(resolve, 30));
      return { verb };
    });
    const client = await DaemonClient.connect(runDir);
    const answers = await Promise.all([client.call('info', { name: 'a' }), client.call('list', {})]);
    expect(answers).toEqual([{ verb: 'info' }, { verb: 'list' }]);
    client.close();
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

  it('ends a connection that sends a line without end, and serves the others', async () => {
    const { path } = await serve(() => Promise.resolve({ fine: true }));
    expect(await talk(path, Buffer.alloc(MAX_LINE + 2, 0x61))).toContain('more than');
    expect(await talk(path, '{"id":1,"verb":"list"}\n')).toContain('fine');
  });

  it('passes a refusal on as it is, and hides no bug', async () => {
    const { runDir } = await serve((verb) => {
      if (verb === 'start') throw new ControlError('not-found', 'there is none');
      throw new Error('a bug');
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

  it('tells callers when the daemon goes away', async () => {
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
  it('joins chunks and splits lines', () => {
    const lines = new LineSplitter(10);
    expect(lines.push(Buffer.from('ab'))).toEqual([]);
    expect(lines.push(Buffer.from('c\nd\n\ne'))).toEqual(['abc', 'd', '']);
    expect(lines.push(Buffer.from('\n'))).toEqual(['e']);
  });

  it('is bounded', () => {
    const lines = new LineSplitter(4);
    expect(lines.push(Buffer.from('abcd'))).toEqual([]);
    expect(() => lines.push(Buffer.from('e'))).toThrow(LineTooLongError);
  });
});

describe('RateLimit', () => {
  it('lets a few lines of a kind pass, then tells how many it kept back', () => {
    const limit = new RateLimit();
    const taken = Array.from({ length: 8 }, (_, i) => limit.take(i, 'garbage'));
    expect(taken).toEqual([0, 0, 0, 0, 0, -1, -1, -1]);
    expect(limit.take(5, 'other')).toBe(0);
    expect(limit.take(10_000, 'garbage')).toBe(3);
    expect(limit.take(10_001, 'garbage')).toBe(0);
  });
});
