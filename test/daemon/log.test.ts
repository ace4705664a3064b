import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, it, onTestFinished, vi } from 'vitest';
import { isJournal, LogOutput, withPriority } from '../../src/daemon/log.ts';
import { faults } from '../support/faults.ts';
import { temporaryFolder } from '../support/folder.ts';

vi.mock('node:fs', async (original) => {
  const { faulty } = await import('../support/faults.ts');
  return faulty('fs', await original<typeof import('node:fs')>());
});

afterEach(() => void faults.lift());

function opened(path: string): number {
  const fd = openSync(path, 'w');
  onTestFinished(() => closeSync(fd));
  return fd;
}

it.runIf(process.platform === 'linux')('a log on a disk that is full costs its lines, and nothing else', () => {
  const log = new LogOutput(opened('/dev/full'));
  for (let line = 0; line < 3; line++) log.write('a line\n');
});

it('a log says how many lines it lost, and why, as soon as it can be written again', () => {
  const path = join(temporaryFolder(), 'log');
  const log = new LogOutput(opened(path));
  log.write('first\n');
  faults.arm({ edge: /writeSync/, nth: 1, code: 'ENOSPC', lasting: true });
  log.write('second\n');
  log.write('third\n');
  faults.lift();
  log.write('fourth\n');
  log.write('fifth\n');
  expect(readFileSync(path, 'utf8')).toMatch(/^first\n2 lines of this log were lost: ENOSPC.*\nfourth\nfifth\n$/);
});

it('a log waits a little for the reader of its pipe, and not for ever', () => {
  const path = join(temporaryFolder(), 'log');
  const log = new LogOutput(opened(path));
  faults.arm({ edge: /writeSync/, nth: 1, code: 'EAGAIN' });
  log.write('late\n');
  faults.arm({ edge: /writeSync/, nth: 1, code: 'EAGAIN', lasting: true });
  log.write('lost\n');
  faults.lift();
  log.write('next\n');
  expect(readFileSync(path, 'utf8')).toMatch(/^late\n1 lines of this log were lost: EAGAIN.*\nnext\n$/);
});

it('lines for the journal begin with the priority of syslog, each of several', () => {
  const marked = [10, 20, 30, 40, 50, 60].map((level) => withPriority('a\n  b\n', level));
  expect(marked).toEqual([7, 7, 6, 4, 3, 2].map((priority) => `<${priority}>a\n<${priority}>  b\n`));
});

it('the journal is known by the file that systemd names', () => {
  const fd = opened(join(temporaryFolder(), 'log'));
  const { dev, ino } = fstatSync(fd);
  expect(isJournal(fd, `${dev}:${ino}`)).toBe(true);
  expect(isJournal(fd, `${dev}:${ino + 1}`)).toBe(false);
  expect(isJournal(fd, undefined)).toBe(false);
});
