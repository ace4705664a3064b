import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { run } from '../../src/cli/run.ts';
import { verbs } from '../../src/cli/verbs.ts';
import type { StatusResult } from '../../src/control/results.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { address, eventually, SECRET_UUID, TestDaemon, temporaryFolder, tunnelDocument } from '../support/daemon.ts';

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs a command line as a shell would. */
async function sectunnel(
  words: readonly string[],
  { stdin = '', interrupted = Promise.resolve(), onOut = (_text: string): void => undefined } = {},
): Promise<Outcome> {
  let out = '';
  let err = '';
  const code = await run(words, {
    out: (text) => {
      out += text;
      onOut(text);
    },
    err: (text) => {
      err += text;
    },
    readStdin: () => Promise.resolve(Buffer.from(stdin)),
    interrupted: () => interrupted,
  });
  return { code, out, err };
}

interface Shell {
  readonly daemon: TestDaemon;
  /** Writes a file and returns its path. */
  file(name: string, content: string): string;
  run(words: readonly string[], stdin?: string): Promise<Outcome>;
}

async function shell(): Promise<Shell> {
  const daemon = await TestDaemon.start(new MemoryNetwork().host([address('192.0.2.1')]));
  const folder = temporaryFolder();
  return {
    daemon,
    file(name, content) {
      const path = join(folder, name);
      writeFileSync(path, content);
      return path;
    },
    run: (words, stdin = '') => sectunnel(['--run-dir', daemon.runDir, ...words], { stdin }),
  };
}

describe('help', () => {
  it('names every verb, option and exit code', async () => {
    const { code, out } = await sectunnel(['--help']);
    expect(code).toBe(0);
    for (const verb of verbs.keys()) expect(out).toContain(`  ${verb} `);
    expect(out).toContain('--run-dir');
    expect(out).toContain('Exit codes');
  });

  it.each([...verbs.keys()])('of %s names its options', async (verb) => {
    for (const words of [
      [verb, '--help'],
      ['help', verb],
    ]) {
      const { code, out } = await sectunnel(words);
      expect(code).toBe(0);
      expect(out).toContain(`Usage\n  sectunnel ${verb}`);
      for (const option of Object.keys(verbs.get(verb)!.options)) expect(out).toContain(`--${option}`);
    }
  });

  it('lists every option of every verb', () => {
    for (const spec of verbs.values()) expect(Object.keys(spec.optionHelp)).toEqual(Object.keys(spec.options));
  });
});

describe('a wrong command line', () => {
  it.each([
    [['frobnicate'], "unknown verb 'frobnicate'"],
    [['start'], 'start takes TUNNEL … | --all, not nothing'],
    [['start', 'a', '--all'], 'start: give either names or --all, not both'],
    [['define'], 'define takes FILE … | --dir DIR, not nothing'],
    [['info', 'a', 'b'], "info takes TUNNEL, not 'a b'"],
    [['list', '--limit', '0'], 'list: --limit 0: expected a number of tunnels, at least 1'],
    [['list', '--sideways'], "list: unknown option '--sideways'; expected one of --all"],
    [['--run-dir'], '--run-dir wants a folder'],
    [['help', 'nothing'], "unknown verb 'nothing'"],
    [['up', 'lan'], "unknown verb 'up'; did you mean 'start'?"],
    [['down', 'lan'], "unknown verb 'down'; did you mean 'destroy'?"],
    [['stop', 'lan'], "unknown verb 'stop'; did you mean 'destroy'?"],
    [['ls'], "unknown verb 'ls'; did you mean 'list'?"],
    [['strat', 'lan'], "unknown verb 'strat'; did you mean 'start'?"],
    [['toString'], "unknown verb 'toString'; expected one of: define,"],
  ])('%j is refused with exit code 2', async (words, message) => {
    const { code, err } = await sectunnel(words);
    expect(code).toBe(2);
    expect(err).toContain(message);
    expect(err).toMatch(/see 'sectunnel (\w+ )?--help'/);
  });

  it('without a verb shows the help and fails', async () => {
    const { code, out } = await sectunnel([]);
    expect(code).toBe(2);
    expect(out).toContain('Usage');
  });
});

describe('verbs', () => {
  it('tell a definition from what runs, and change nothing where there is nothing to change', async () => {
    const { daemon, run, file } = await shell();
    await daemon.giveSecret();
    const one = file('one.xml', tunnelDocument());
    const other = file('other.xml', tunnelDocument({ inner: ['10.1.0.0', '10.9.0.0'] }));
    await run(['define', one]);
    await run(['start', 'net']);
    expect((await run(['define', one])).err).not.toContain('restart');
    expect((await run(['list'])).out).not.toContain('outdated');
    const opened = daemon.told.filter((text) => text === 'open net').length;
    expect(await run(['update', one, '--live', '--config'])).toMatchObject({
      code: 0,
      out: `Tunnel net unchanged: ${one} is equal to its document\n`,
    });
    expect(daemon.told.filter((text) => text === 'open net')).toHaveLength(opened);

    expect((await run(['define', other])).err).toContain("'sectunnel restart net' starts it with this one");
    expect((await run(['list'])).out).toMatch(/active \(\w+, outdated\)/);
    expect((await run(['info', 'net'])).out).toMatch(/Outdated: +yes: 'sectunnel restart net'/);
    expect((await run(['update', other, '--live'])).out).toContain('updated from');
    expect((await run(['list'])).out).not.toContain('outdated');
    expect(daemon.told.filter((text) => text === 'open net')).toHaveLength(opened);
    expect(daemon.told.at(-1)).toBe('steer net');
  });

  it('say where no daemon listens, with exit code 3', async () => {
    const folder = temporaryFolder();
    const { code, err } = await sectunnel(['--run-dir', folder, 'list']);
    expect(code).toBe(3);
    expect(err).toContain(`no sectunneld listens on ${folder}`);
  });

  it('define, list, start, show and stop a tunnel as virsh would', async () => {
    const { run, file } = await shell();
    expect(await run(['secret-define', file('secret.xml', `<secret><uuid>${SECRET_UUID}</uuid></secret>`)])).toEqual({
      code: 0,
      out: `Secret ${SECRET_UUID} created\n`,
      err: '',
    });
    expect((await run(['secret-set-value', SECRET_UUID, '--plain'], 'key\n')).err).toContain('ends with a newline');
    expect((await run(['secret-set-value', SECRET_UUID], 'a2V5\n')).out).toBe(`Secret value of ${SECRET_UUID} set\n`);
    expect((await run(['secret-list'])).out).toMatch(new RegExp(`${SECRET_UUID} +sectunnel +- +set`));

    const document = file('net.xml', tunnelDocument());
    expect((await run(['define', '--validate', document])).out).toBe(`Tunnel net defined from ${document}\n`);
    expect((await run(['list'])).out).not.toContain('net');
    expect((await run(['list', '--all'])).out).toMatch(/^ net +inactive +no +yes$/m);
    const { out: uuid } = await run(['uuid', 'net']);
    expect((await run(['name', uuid.trim()])).out).toBe('net\n');
    expect((await run(['start', 'net'])).out).toMatch(/^Tunnel net started on device \S+\n$/);
    expect((await run(['list', '--name'])).out).toBe('net\n');
    expect((await run(['list', '--inactive', '--uuid'])).out).toBe('');
    expect((await run(['info', 'net'])).out).toMatch(/^Active: +yes$/m);
    expect((await run(['dumpxml', 'net'])).out).toContain('<name>net</name>');
    expect((await run(['status', 'net'])).out).toMatch(/^net: waiting, device \S+ \(MTU 1404\)$/m);
    expect((await run(['status', 'net'])).out).toMatch(/^io: udp memory$/m);
    const status = JSON.parse((await run(['status', '--json'])).out) as StatusResult;
    expect(status.tunnels).toMatchObject([{ name: 'net', active: true, state: 'waiting', ikeSas: [] }]);
    expect((await run(['autostart', 'net'])).out).toBe('Tunnel net marked as autostarted\n');
    expect((await run(['autostart', '--disable', 'net'])).out).toBe('Tunnel net unmarked as autostarted\n');
    expect((await run(['destroy', 'net'])).out).toBe('Tunnel net destroyed\n');
    expect((await run(['undefine', 'net'])).out).toBe('Tunnel net has been undefined\n');
    expect((await run(['list', '--all', '--name'])).out).toBe('');
  });

  it('take documents from standard input', async () => {
    const { run } = await shell();
    expect((await run(['define', '-'], tunnelDocument())).code).toBe(0);
    expect((await run(['list', '--all', '--name'])).out).toBe('net\n');
  });

  it('refuse with exit code 1 and the daemon’s own words', async () => {
    const { run, file } = await shell();
    const missing = await run(['start', 'nothing']);
    expect(missing).toMatchObject({ code: 1, out: '' });
    expect(missing.err).toBe(
      "error: there is no tunnel 'nothing'; 'sectunnel list --all' names those that there are\n",
    );
    const wrong = await run(['define', file('wrong.xml', '<sectunnel type="ipsec"><name>a b</name></sectunnel>')]);
    expect(wrong.code).toBe(1);
    expect(wrong.err).toContain('wrong.xml:1');
    const unreadable = await run(['define', '/nonexistent.xml']);
    expect(unreadable.code).toBe(1);
    expect(unreadable.err).toBe('error: cannot read /nonexistent.xml: there is no such file\n');
    expect((await run(['define', '/'])).err).toBe('error: cannot read /: it is a folder, a file is required\n');
    const huge = await run(['define', '-'], ' '.repeat(0x10_0001));
    expect(huge).toMatchObject({
      code: 1,
      err: 'error: (standard input) has more than 1048576 bytes, which is the most that is read\n',
    });
  });

  it.each([
    [1, ['define']],
    [2, ['check']],
    [1, ['secret-set-value', SECRET_UUID, '--file']],
  ])('with code %d, %s ends with a file that has no end', async (code, words) => {
    const { run } = await shell();
    const endless = await run([...words, '/dev/zero']);
    expect(endless.code).toBe(code);
    expect(endless.err).toMatch(/^error: \/dev\/zero has more than \d+ bytes, which is the most that is read\n$/);
  });

  it('event of a tunnel that is not there is refused, and nothing else happens', async () => {
    const { run: command } = await shell();
    const unhandled: unknown[] = [];
    const note = (reason: unknown): void => void unhandled.push(reason);
    process.on('unhandledRejection', note);
    onTestFinished(() => void process.off('unhandledRejection', note));
    expect(await command(['event', 'nosuch'])).toMatchObject({
      code: 1,
      err: expect.stringContaining("no tunnel 'nosuch'"),
    });
    // The client closes its connection, and hears of the end of it.
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(unhandled).toEqual([]);
  });

  it.each([
    ['--base64', 'AAAA', '--file', 'x'],
    ['--base64', 'AAAA', SECRET_UUID],
    ['--file', 'x', 'AAAA'],
  ])('secret-set-value refuses two sources: %s %s %s', async (...words) => {
    const { run: command } = await shell();
    const outcome = await command(['secret-set-value', SECRET_UUID, ...words]);
    expect(outcome).toMatchObject({ code: 2, err: expect.stringContaining('the value comes from one source') });
  });

  it('print events until interrupted', async () => {
    const { daemon } = await shell();
    let interrupt = (): void => undefined;
    const interrupted = new Promise<void>((resolve) => {
      interrupt = resolve;
    });
    const seen: string[] = [];
    const watching = sectunnel(['--run-dir', daemon.runDir, 'event'], {
      interrupted,
      onOut: (text) => seen.push(text),
    });
    // Nobody tells when it listens: until then there are more.
    await eventually('an event', async () => {
      await daemon.client.call('define', { xml: tunnelDocument() });
      return seen.length > 0;
    });
    interrupt();
    const { code, out } = await watching;
    expect(code).toBe(0);
    expect(out).toMatch(/^(\d{4}-\d\d-\d\dT\S+Z net: defined\n)+$/);
  });

  it('warn of a key that can be guessed, when it is set and when it is used, and never print it', async () => {
    const { run, file } = await shell();
    await run(['secret-define', file('secret.xml', `<secret><uuid>${SECRET_UUID}</uuid></secret>`)]);
    const set = await run(['secret-set-value', SECRET_UUID, '--plain'], 'hunter2-hunter2');
    expect(set.code).toBe(0);
    expect(set.err).toMatch(/^warning: .*can be guessed: it has 15 bytes, and 20 are recommended.*--generate/);
    const defined = await run(['define', file('net.xml', tunnelDocument())]);
    expect(defined.err).toMatch(/line \d+: <auth type='psk'>: .*can be guessed: it has 15 bytes/);
    expect(set.out + set.err + defined.out + defined.err).not.toContain('hunter2');
  });

  it('make a key, which is printed on request and works like any other', async () => {
    const { run, daemon, file } = await shell();
    await run(['secret-define', file('secret.xml', `<secret><uuid>${SECRET_UUID}</uuid></secret>`)]);
    const kept = (): string => readFileSync(join(daemon.configDir, 'secrets', `${SECRET_UUID}.base64`), 'utf8').trim();
    const done = `Secret value of ${SECRET_UUID} set\n`;
    expect(await run(['secret-set-value', SECRET_UUID, '--generate'])).toEqual({ code: 0, out: done, err: '' });
    const first = kept();
    expect(Buffer.from(first, 'base64')).toHaveLength(32);
    const { out, err } = await run(['secret-set-value', SECRET_UUID, '--generate', '--print']);
    expect([out, err]).toEqual([`${kept()}\n`, done]);
    expect(kept()).not.toBe(first);
    // As the other side takes it.
    expect((await run(['secret-set-value', SECRET_UUID], out)).code).toBe(0);
    expect(kept()).toBe(out.trim());
    expect((await run(['define', file('net.xml', tunnelDocument())])).err).toBe('');
    for (const words of [
      ['--print'],
      ['--generate', '--plain'],
      ['--generate', 'a2V5'],
      ['--generate', '--file', 'x'],
    ]) {
      expect((await run(['secret-set-value', SECRET_UUID, ...words])).code, words.join(' ')).toBe(2);
    }
    expect(kept()).toBe(out.trim());
  });

  it('never print a secret', async () => {
    const { run, daemon, file } = await shell();
    await run(['secret-define', file('secret.xml', `<secret><uuid>${SECRET_UUID}</uuid></secret>`)]);
    await run(['secret-set-value', SECRET_UUID, '--base64', 'dGhlIGtleQ==']);
    expect(existsSync(join(daemon.configDir, 'secrets', `${SECRET_UUID}.base64`))).toBe(true);
    expect(readFileSync(join(daemon.configDir, 'secrets', `${SECRET_UUID}.xml`), 'utf8')).not.toContain('dGhlIGtleQ');
    for (const words of [['secret-list'], ['status'], ['status', '--json']]) {
      expect((await run(words)).out).not.toMatch(/dGhlIGtleQ|the key/);
    }
  });
});
