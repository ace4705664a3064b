import { EventEmitter } from 'node:events';
import { expect, it } from 'vitest';
import { promptSecret } from '../../src/cli/prompt.ts';
import { run } from '../../src/cli/run.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { address, SECRET_UUID, TestDaemon } from '../support/daemon.ts';

class FakeKeyboard extends EventEmitter {
  readonly told: string[] = [];
  setRawMode(on: boolean): void {
    this.told.push(on ? 'raw' : 'cooked');
  }
  resume(): void {
    this.told.push('resume');
  }
  pause(): void {
    this.told.push('pause');
  }
}

async function typed(
  ...chunks: readonly string[]
): Promise<{ line: string; shown: string; told: string[]; left: string }> {
  const keyboard = new FakeKeyboard();
  let shown = '';
  const show = (text: string): void => {
    shown += text;
  };
  const answer = promptSecret(keyboard, show, 'Value: ', 8);
  const buffers = chunks.map((chunk) => Buffer.from(chunk));
  for (const buffer of buffers) keyboard.emit('data', buffer);
  const line = (await answer).toString();
  return { line, shown, told: keyboard.told, left: Buffer.concat(buffers).toString().replaceAll('\0', '') };
}

it('gives a line, shows nothing of it, and leaves the terminal as it was', async () => {
  expect(await typed('se', 'cret', '\r')).toEqual({
    line: 'secret',
    shown: 'Value: \n',
    told: ['raw', 'resume', 'cooked', 'pause'],
    left: '',
  });
});

it.each([
  ['a character', 'ab\x7fc\r', 'ac'],
  ['one of several bytes', 'aü☃\x7f\x7fb\r', 'ab'],
  ['what is not there', '\x7f\x7fa\r', 'a'],
  ['the line', 'abc\x15d\n', 'd'],
])('takes back %s', async (_, keys, line) => {
  expect((await typed(keys)).line).toBe(line);
});

it('passes over keys that are no characters, ends with the input, and takes one byte too many at most', async () => {
  expect((await typed('a\x1b\tb\x04')).line).toBe('ab');
  expect((await typed('0123456789abc\r')).line).toHaveLength(9);
});

it('can be interrupted', async () => {
  await expect(typed('secret\x03')).rejects.toThrow('interrupted');
});

it('is what secret-set-value asks with at a terminal, twice', async () => {
  const daemon = await TestDaemon.start(new MemoryNetwork().host([address('192.0.2.1')]));
  await daemon.client.call('secret-define', { xml: `<secret><uuid>${SECRET_UUID}</uuid></secret>` });
  const asked: string[] = [];
  const set = async (answers: string[], ...options: string[]): Promise<string> => {
    let said = '';
    const note = (text: string): void => {
      said += text;
    };
    await run(['--run-dir', daemon.runDir, 'secret-set-value', SECRET_UUID, ...options], {
      out: note,
      err: note,
      readStdin: () => Promise.reject(new Error('not read')),
      prompt: (question) => {
        asked.push(question);
        return Promise.resolve(Buffer.from(answers.shift()!));
      },
      interrupted: () => Promise.resolve(),
    });
    return said;
  };
  const value = async (): Promise<string> =>
    Buffer.from((await daemon.daemon.secrets.value({ by: 'uuid', uuid: SECRET_UUID })).value).toString();
  expect(await set(['a passphrase', 'a passphrase'], '--plain')).toContain(`Secret value of ${SECRET_UUID} set`);
  expect(await value()).toBe('a passphrase');
  expect(asked).toEqual(['Value (not shown): ', 'Again: ']);
  expect(await set(['one', 'other'], '--plain')).toBe('error: the two values differ; nothing was changed\n');
  const coded = Buffer.from('another one').toString('base64');
  await set([coded, coded]);
  expect(asked.at(-2)).toBe('Value in base64 (not shown): ');
  expect(await value()).toBe('another one');
});
