/**
 * Node's inspector, which SIGUSR1 or an option opens to every local user: another user looks for it all the time, while
 * root sends signals to daemons in a namespace of their own.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { run as runCommand } from '../../src/cli/run.ts';
import { NO_INSPECTOR } from '../../src/sys/node-options.ts';
import type { Lab } from '../support/lab/lab.ts';
import type { Namespace } from '../support/lab/namespace.ts';
import { type Background, STARTING, waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { builtProgram, projectRoot } from '../support/lab/root.ts';
import { useLab } from '../support/lab/use-lab.ts';

const NOBODY = 65_534;
const LAUNCHER = [join(projectRoot(), 'bin', 'sectunneld')];
const BARE = [process.execPath, builtProgram('daemon')];
const SIGUSR1 = 10;
/** Runs before the program's first line, so that it is late on a busy machine too. */
const PAUSE = 'data:text/javascript,Atomics.wait(new Int32Array(new SharedArrayBuffer(4)),0,0,1000)';

/** Tells of each TCP port that listens in its namespace, once, and whether it is the inspector's. */
const INTRUDER = `
const { readFileSync } = require('node:fs');
const { connect } = require('node:net');
const seen = new Set();
process.setgid(${NOBODY}); process.setgroups([]); process.setuid(${NOBODY});
setInterval(() => {
  for (const table of ['tcp', 'tcp6']) {
    for (const line of readFileSync('/proc/net/' + table, 'utf8').split('\\n').slice(1)) {
      const [, local, , state] = line.trim().split(/\\s+/);
      if (state !== '0A' || seen.has(local)) continue;
      seen.add(local);
      console.log('listens', local, process.getuid());
      const port = parseInt(local.split(':').at(-1), 16);
      const socket = connect(port, '127.0.0.1', () => socket.write('GET /json HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n'));
      socket.on('data', (data) => console.log('answers', data.toString().slice(0, 2000)));
      socket.on('error', () => undefined);
    }
  }
}, 2);
process.on('SIGHUP', () => setTimeout(() => console.log('has looked'), 300));
console.log('looks');`;

/** Whether a program has a handler of a signal. Node has one of SIGUSR1 before the program's first line. */
function catches(pid: number, signal: number): boolean {
  const caught = /^SigCgt:\t([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return (BigInt(`0x${caught ?? 0}`) & (1n << BigInt(signal - 1))) !== 0n;
}

/** Whether a process is the command, and has a socket beside its standard input, output and error. */
function isConnected(pid: number): boolean {
  if (!catches(pid, SIGUSR1)) return false;
  const own = readdirSync(`/proc/${pid}/fd`).filter((fd) => Number(fd) > 2);
  return own.some((fd) => linkOf(`/proc/${pid}/fd/${fd}`).startsWith('socket:'));
}

/** Nothing when it has gone meanwhile. */
function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}

describeInterop("Node's inspector", ['namespaces', 'build'], () => {
  let lab: Lab;
  let namespace: Namespace;
  let started = 0;

  useLab(async (made) => {
    lab = made;
    namespace = await lab.namespace('inspected');
  });

  /** Another user, who looks until the test ends. */
  async function intrude(): Promise<Background> {
    const intruder = namespace.spawn('another user', [process.execPath, '-e', INTRUDER]);
    onTestFinished(async () => void (await intruder.stop()));
    await waitFor('another user to look', () => intruder.output.includes('looks') || undefined, STARTING);
    return intruder;
  }

  /** What another user finds that looks for some time more. */
  async function found(intruder: Background): Promise<string> {
    intruder.signal('SIGHUP');
    await waitFor('another user to look', () => intruder.output.includes('has looked') || undefined);
    return intruder.output;
  }

  function start(argv: readonly string[], env: Readonly<Record<string, string>> = {}): Background {
    const folder = join(lab.folder, `daemon${started++}`);
    const folders = ['--config-dir', join(folder, 'config'), '--run-dir', join(folder, 'run')];
    const daemon = namespace.spawn('sectunneld', [...argv, ...folders], env);
    lab.log('sectunneld', () => daemon.output);
    onTestFinished(async () => void (await daemon.stop()));
    return daemon;
  }

  /** Of the last daemon that was started. */
  function runDir(): string {
    return join(lab.folder, `daemon${started - 1}`, 'run');
  }

  /** A command that the daemon answers. */
  async function list(): Promise<boolean> {
    const terminal = { out: () => undefined, err: () => undefined, readStdin: () => Promise.resolve(Buffer.alloc(0)) };
    const code = await runCommand(['--run-dir', runDir(), 'list'], {
      ...terminal,
      interrupted: () => Promise.resolve(),
    });
    return code === 0;
  }

  async function ready(daemon: Background): Promise<void> {
    const is = async (): Promise<true | undefined> => {
      if (!daemon.alive) throw new Error(`sectunneld ended: ${daemon.output}`);
      return (await list()) || undefined;
    };
    await waitFor('sectunneld to answer', is, STARTING);
  }

  /** As soon as Node catches it: before the program's first line. */
  function signalAtOnce(daemon: Background): Promise<true> {
    const isCaught = (): true | undefined => {
      if (!catches(daemon.pid, SIGUSR1)) return undefined;
      process.kill(daemon.pid, 'SIGUSR1');
      return true;
    };
    return waitFor('Node to start', isCaught, STARTING, 0);
  }

  async function signalled(daemon: Background, signal: NodeJS.Signals): Promise<void> {
    const lines = () => daemon.output.split(`${signal} ignored`).length;
    const before = lines();
    process.kill(daemon.pid, signal);
    await waitFor(`sectunneld to log ${signal}`, () => lines() > before || undefined);
  }

  it.each([
    ['', {}],
    [', whatever the environment says', { NODE_OPTIONS: '--inspect=127.0.0.1:9229', NODE_V8_COVERAGE: '/nowhere' }],
  ])('stays shut from the first moment on%s', async (_, env) => {
    const intruder = await intrude();
    const daemon = start(LAUNCHER, env);
    await signalAtOnce(daemon);
    await ready(daemon);
    for (let i = 0; i < 3; i++) await signalled(daemon, 'SIGUSR1');
    expect(await list()).toBe(true);
    expect(await found(intruder)).toBe('looks\nhas looked\n');
    expect(readFileSync(`/proc/${daemon.pid}/cmdline`, 'utf8')).toContain(NO_INSPECTOR);
    expect(readFileSync(`/proc/${daemon.pid}/environ`, 'utf8')).not.toMatch(/(^|\0)NODE_/);
    expect(await daemon.stop()).toBe(0);
  });

  it('stays shut in programs that were started without the launcher, once they run', async () => {
    const intruder = await intrude();
    const daemon = start(BARE);
    await ready(daemon);
    const watcher = namespace.spawn('event', [process.execPath, builtProgram('cli'), '--run-dir', runDir(), 'event']);
    onTestFinished(async () => void (await watcher.stop()));
    await waitFor('the command to be connected', () => isConnected(watcher.pid) || undefined, STARTING);
    process.kill(watcher.pid, 'SIGUSR1');
    for (let i = 0; i < 3; i++) await signalled(daemon, 'SIGUSR1');
    expect(await list()).toBe(true);
    expect(watcher.alive).toBe(true);
    expect(await found(intruder)).toBe('looks\nhas looked\n');
    expect(await daemon.stop()).toBe(0);
  });

  it('ends such a daemon when it opened before the first line', async () => {
    const intruder = await intrude();
    const daemon = start([process.execPath, '--import', PAUSE, builtProgram('daemon')]);
    await signalAtOnce(daemon);
    await waitFor('sectunneld to end', () => !daemon.alive || undefined, STARTING);
    await daemon.stop();
    expect(daemon.output).toMatch(/error: other users .*: SIGUSR1 opened Node's inspector, at ws:.*bin\//);
    expect((await namespace.exec(['cat', '/proc/net/tcp'])).stdout).not.toContain(' 0A ');
    // The other user sees it while it is open: the tests above can fail.
    expect(await found(intruder)).toContain(`listens 0100007F:240D ${NOBODY}`);
  });

  it.each([
    ['--inspect', [process.execPath, '--inspect', builtProgram('daemon')], {}],
    ['--heapsnapshot-signal=SIGUSR2', [process.execPath, '--heapsnapshot-signal=SIGUSR2', builtProgram('daemon')], {}],
    ['--report_on_signal', [process.execPath, '--report_on_signal', builtProgram('daemon')], {}],
    ['--inspect=9230', BARE, { NODE_OPTIONS: '--no-warnings "--inspect=9230"' }],
    ['--inspect', [process.execPath, builtProgram('cli'), 'event'], { NODE_OPTIONS: '--inspect' }],
  ])('ends a program that was started with %s', async (option, argv, env) => {
    const program = namespace.spawn('a program', argv, env);
    lab.log('a program', () => program.output);
    await waitFor('it to end', () => !program.alive || undefined, STARTING);
    expect(await program.stop()).not.toBe(0);
    expect(program.output).toContain(` ${option}; `);
    expect(program.output).toMatch(/error: other users of this machine could .*start the program in bin\//);
  });

  it('leaves the daemon running on SIGHUP, SIGUSR2 and SIGPIPE', async () => {
    const daemon = start(LAUNCHER);
    await ready(daemon);
    await signalled(daemon, 'SIGUSR2');
    process.kill(daemon.pid, 'SIGHUP');
    await waitFor(
      'it to read its definitions again',
      () => daemon.output.includes('the definitions were read again') || undefined,
    );
    process.kill(daemon.pid, 'SIGPIPE');
    expect(await list()).toBe(true);
    expect(await daemon.stop()).toBe(0);
  });
});
