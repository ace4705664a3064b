/** Whose request of the control socket is carried out next, and who may ask at all. */
import { spawn } from 'node:child_process';
import { chmodSync, closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it, onTestFinished } from 'vitest';
import { DaemonClient } from '../../../src/control/client.ts';
import type { Lane } from '../../../src/daemon/control/request-queue.ts';
import { RawClient, serve } from '../../support/control.ts';
import { eventually } from '../../support/daemon.ts';

const NOBODY = 65_534;

/** A verb is a lane here. */
const laneOf = (verb: string): Lane => verb as Lane;

/** Requests that are carried out until they are ended, by their `name`. */
class Carried {
  readonly begun: string[] = [];
  // BOUNDED: by the test.
  readonly #ends = new Map<string, () => void>();

  readonly dispatch = (verb: string, params: unknown): Promise<unknown> => {
    const { name = '' } = params as { name?: string };
    if (verb === 'memory') return Promise.resolve({ name });
    this.begun.push(name);
    return new Promise((resolve) => this.#ends.set(name, () => resolve({ name })));
  };

  end(name: string): void {
    this.#ends.get(name)?.();
  }
}

async function ask(path: string, verb: Lane, name: string): Promise<RawClient> {
  const client = await RawClient.open(path);
  client.ask(1, verb, { name });
  return client;
}

describe('requests', () => {
  it('of one connection are answered in their order, thousands at once', async () => {
    const { path } = await serve((_verb, params) => Promise.resolve(params));
    const client = await RawClient.open(path);
    for (let id = 1; id <= 5000; id++) client.ask(id, 'list', { n: id });
    const answers = await client.answered(5000);
    expect(answers).toEqual(Array.from({ length: 5000 }, (_, i) => ({ id: i + 1, result: { n: i + 1 } })));
  });

  it('of many connections take turns, and a first one comes before those of all who ask without end', async () => {
    const served: string[] = [];
    const { path } = await serve((_verb, params) => {
      served.push((params as { name: string }).name);
      return Promise.resolve({});
    });
    const greedy = await Promise.all(Array.from({ length: 60 }, () => RawClient.open(path)));
    const asked = Array.from({ length: 500 }, (_, id) => `{"id":${id},"verb":"list","params":{"name":"greedy"}}\n`);
    for (const client of greedy) client.read().send(asked.join(''));
    await eventually('each of them', () => served.length > 120);
    const modest = await RawClient.open(path);
    modest.ask(1, 'list', { name: 'modest' });
    const before = served.length;
    const read = new Promise((resolve) => modest.socket.once('data', () => resolve(served.indexOf('modest'))));
    // A round of the event loop to be accepted, one to be read, each with one request of others; then every second turn.
    expect(Number(await read) - before).toBeLessThan(10);
    expect(served.length).toBeLessThan(60 * 500);
  });

  it('of megabytes are read in parts, among others that send as much', async () => {
    const { path } = await serve((_verb, params) =>
      Promise.resolve({ length: (params as { xml: string }).xml.length }),
    );
    const half = Buffer.alloc(3_000_000, 0x61);
    for (let i = 0; i < 8; i++) (await RawClient.open(path)).send(half);
    const client = await RawClient.open(path);
    client.ask(1, 'define', { xml: 'x'.repeat(3_000_000) });
    client.ask(2, 'define', { xml: 'y'.repeat(100_000) });
    expect(await client.answered(2)).toEqual([
      { id: 1, result: { length: 3_000_000 } },
      { id: 2, result: { length: 100_000 } },
    ]);
  });

  it('that take long keep only those of their kind waiting', async () => {
    const carried = new Carried();
    const { path } = await serve(carried.dispatch, { laneOf });
    const changes: RawClient[] = [];
    for (let i = 0; i < 12; i++) changes.push(await ask(path, 'change', `c${i}`));
    await eventually('as many as may', () => carried.begun.length === 8);
    expect(await (await ask(path, 'memory', 'quick')).answered(1)).toEqual([{ id: 1, result: { name: 'quick' } }]);
    await ask(path, 'host', 'h');
    await eventually('another lane', () => carried.begun.at(-1) === 'h');
    carried.end('c3');
    await eventually('the next', () => carried.begun.at(-1) === 'c8');
    expect(await changes[3]!.answered(1)).toEqual([{ id: 1, result: { name: 'c3' } }]);
    // What was asked whole is carried out, also when the client went away before it began.
    changes[9]!.socket.destroy();
    await new Promise((resolve) => setTimeout(resolve, 20));
    carried.end('c0');
    await eventually('the one after that', () => carried.begun.at(-1) === 'c9');
  });

  it('go on when their client goes away, and count until they end', async () => {
    const carried = new Carried();
    const { path } = await serve(carried.dispatch, { laneOf });
    for (let i = 0; i < 8; i++) {
      const client = await ask(path, 'change', `c${i}`);
      await eventually('it', () => carried.begun.length === i + 1);
      client.socket.destroy();
    }
    await ask(path, 'change', 'patient');
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(carried.begun).not.toContain('patient');
    carried.end('c5');
    await eventually('the patient one', () => carried.begun.includes('patient'));
  });

  it('are answered after their client has said that it sends nothing more', async () => {
    const carried = new Carried();
    const { path } = await serve(carried.dispatch, { laneOf });
    const client = await ask(path, 'change', 'slow');
    client.ask(2, 'memory', { name: 'after it' });
    client.socket.end();
    await eventually('it', () => carried.begun.length === 1);
    await new Promise((resolve) => setTimeout(resolve, 20));
    carried.end('slow');
    await client.farewell();
    expect(client.answers).toEqual([
      { id: 1, result: { name: 'slow' } },
      { id: 2, result: { name: 'after it' } },
    ]);
  });

  it('that throw at once or later leave the queue in order', async () => {
    const { path } = await serve((verb) => {
      if (verb === 'host') throw new TypeError('at once');
      if (verb === 'change') return Promise.reject(new TypeError('later'));
      return Promise.resolve(1n);
    });
    const client = await RawClient.open(path);
    for (const verb of ['host', 'change', 'memory']) client.ask(1, verb);
    const answers = await client.answered(3);
    expect(answers.map((answer) => 'error' in answer && answer.error.code)).toEqual(new Array(3).fill('internal'));
  });
});

describe.skipIf(process.getuid?.() !== 0)('another user', () => {
  it('is not served, should the socket let them in', async () => {
    const { path, runDir, lines } = await serve(() => Promise.resolve({}));
    chmodSync(runDir, 0o755);
    chmodSync(path, 0o666);
    const program = `const s=require('net').connect(${JSON.stringify(path)});s.on('data',d=>process.stdout.write(d));s.on('error',()=>{});s.write('{"id":1,"verb":"list"}\\n')`;
    const identity = ['--reuid', `${NOBODY}`, '--regid', `${NOBODY}`, '--clear-groups'];
    const child = spawn('setpriv', [...identity, process.execPath, '-e', program], { cwd: '/' });
    let output = '';
    child.stdout.on('data', (text: Buffer) => {
      output += text.toString();
    });
    await new Promise((resolve) => child.on('close', resolve));
    expect(output).toMatch(
      /^{"id":0,"error":{"code":"busy","message":"user 65534 may not control this daemon; .*}}\n$/,
    );
    expect(lines.map(({ text }) => text)).toEqual([
      expect.stringMatching(/^user 65534 connected to the control socket/),
    ]);
    expect(await (await DaemonClient.connect(runDir)).call('list', {})).toEqual({});
  });
});

describe('a server without free descriptors', () => {
  /** Another process: it sets the limit of this one, which has no descriptor left for that, and connects. */
  const HELPER = `
    const { connect } = require('node:net');
    const { spawnSync } = require('node:child_process');
    const [pid, path] = process.argv.slice(1);
    require('node:readline').createInterface(process.stdin).on('line', (line) => {
      if (line === 'connect') for (let i = 0; i < 20; i++) connect(path, () => console.log('in')).on('end', () => console.log('out')).resume();
      else console.log(spawnSync('prlimit', ['--pid', pid, '--nofile=' + line + ':']).status);
    });
    console.log('ready');`;

  /** Opens files until no more can be. */
  function allDescriptors(): number[] {
    const files: number[] = [];
    try {
      for (;;) files.push(openSync('/dev/null', 'r'));
    } catch (error) {
      expect(error).toMatchObject({ code: 'EMFILE' });
      return files;
    }
  }

  it('lives, does not spin, and serves when there are some again', async () => {
    const { path, runDir, lines } = await serve(() => Promise.resolve({}));
    const former = /^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))![1]!;
    const helper = spawn(process.execPath, ['-e', HELPER, `${process.pid}`, path], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    onTestFinished(() => void helper.kill());
    let output = '';
    helper.stdout.on('data', (text: Buffer) => {
      output += text.toString();
    });
    const said = (text: string) => eventually(text, () => output === text);
    await said('ready\n');
    helper.stdin.write(`${Math.max(...readdirSync('/proc/self/fd').map(Number)) + 2}\n`);
    await said('ready\n0\n');
    const files = allDescriptors();
    try {
      const cpu = process.cpuUsage();
      helper.stdin.write('connect\n');
      // Node has one descriptor in reserve, to take them off the queue and close them.
      await eventually('all to be closed', () => output.split('out\n').length === 21);
      await new Promise((resolve) => setTimeout(resolve, 500));
      expect(process.cpuUsage(cpu).user).toBeLessThan(400_000);
    } finally {
      for (const file of files) closeSync(file);
      helper.stdin.write(`${former}\n`);
      await eventually('the former limit', () => output.endsWith('0\n'));
    }
    expect(lines.length).toBeLessThanOrEqual(6);
    expect(await (await DaemonClient.connect(runDir)).call('list', {})).toEqual({});
  });
});
