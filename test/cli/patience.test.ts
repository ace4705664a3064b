/** What a command says of a daemon that hangs, goes away, or is none. */
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { ExitCode } from '../../src/cli/exit-code.ts';
import { run } from '../../src/cli/run.ts';
import { CONTROL_SOCKET, MAX_REPLY } from '../../src/control/protocol.ts';
import { serve } from '../support/control.ts';
import { temporaryFolder } from '../support/daemon.ts';

async function sectunnel(words: readonly string[], typed: () => Promise<string> = async () => '') {
  let [out, err] = ['', ''];
  const code = await run(words, {
    out: (text) => {
      out += text;
    },
    err: (text) => {
      err += text;
    },
    readStdin: async () => Buffer.from(await typed()),
    interrupted: () => new Promise(() => undefined),
  });
  return { code, out, err };
}

/** Listens in the place of a daemon. */
async function impostor(onConnection: (socket: Socket) => void): Promise<string> {
  const folder = temporaryFolder();
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket.on('error', () => undefined));
    onConnection(socket);
  });
  await new Promise<void>((resolve) => server.listen(join(folder, CONTROL_SOCKET), resolve));
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  return folder;
}

it('that says nothing', async () => {
  const folder = await impostor(() => undefined);
  const { code, err } = await sectunnel(['--run-dir', folder, '--timeout', '0.2', 'list']);
  const message = "sectunneld did not answer 'list' within 0.2 s, and may still carry it out: see its log";
  expect([code, err]).toEqual([ExitCode.Unreachable, expect.stringContaining(message)]);
});

it.each<readonly [string, (socket: Socket) => void, string]>([
  ['closes', (socket: Socket) => void socket.end(), 'sectunneld closed the connection'],
  [
    'closes in the middle of a line',
    (socket: Socket) => void socket.end('{"id":1,'),
    'sectunneld closed the connection',
  ],
  [
    'speaks another language',
    (socket: Socket) => void socket.write('220 mail.example\r\n'),
    'is not a sectunneld of this',
  ],
  [
    'never ends a line',
    (socket: Socket) => void socket.write(Buffer.alloc(MAX_REPLY + 2, 0x61)),
    'a line has more than',
  ],
])('that %s', async (_, behave, message) => {
  const folder = await impostor(behave);
  const { code, err } = await sectunnel(['--run-dir', folder, 'list']);
  expect([code, err]).toEqual([ExitCode.Unreachable, expect.stringContaining(message)]);
});

it('of the daemon that closed the connection, and why', async () => {
  const reason = { code: 'busy', message: 'the connection gave way to another' };
  const folder = await impostor((socket) => void socket.end(`${JSON.stringify({ id: 0, error: reason })}\n`));
  const { code, err } = await sectunnel(['--run-dir', folder, 'list']);
  expect([code, err]).toEqual([ExitCode.Refused, 'error: the connection gave way to another\n']);
});

it('connects only when it has something to ask: the daemon does not wait for what is typed', async () => {
  const limits = { requestTime: 500, replyTime: 500, idleTime: 500 };
  const { runDir } = await serve(
    (_verb, params) => Promise.resolve({ uuid: (params as { uuid: string }).uuid, warnings: [] }),
    {
      limits,
    },
  );
  const typed = async (): Promise<string> => {
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    return 'a2V5';
  };
  const { code, out } = await sectunnel(['--run-dir', runDir, 'secret-set-value', 'some-uuid'], typed);
  expect([code, out]).toEqual([ExitCode.Ok, 'Secret value of some-uuid set\n']);
});

it.each(['0', '-1', 'soon', '1e9', ''])('refuses --timeout %j', async (timeout) => {
  const { code, err } = await sectunnel([`--timeout=${timeout}`, 'list']);
  expect([code, err]).toEqual([ExitCode.Usage, expect.stringContaining('expected 0.1 to 86400 seconds')]);
});
