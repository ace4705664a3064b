import { EventEmitter } from 'node:events';
import { expect, it } from 'vitest';
import { handleUncaught } from '../../src/daemon/uncaught.ts';
import { type LogLine, recordingLog } from '../support/daemon.ts';
import { systemError } from '../support/faults.ts';

function uncaught(error: unknown): { readonly ended: boolean; readonly lines: readonly LogLine[] } {
  const lines: LogLine[] = [];
  const source = new EventEmitter();
  let ended = false;
  handleUncaught(recordingLog(lines), source, () => {
    ended = true;
  });
  source.emit('uncaughtException', error, 'unhandledRejection');
  return { ended, lines };
}

it.each([
  ['EMFILE', systemError('EMFILE', 'open'), /No file descriptors left \(the limit is \d+\): raise LimitNOFILE=/],
  ['ENOMEM', systemError('ENOMEM', 'spawn nft'), /No memory left: free some, or raise MemoryMax=/],
  ['EAGAIN of fork', systemError('EAGAIN', 'spawn nft'), /No processes or threads left: raise TasksMax=/],
  ['ENOSPC', systemError('ENOSPC', 'write'), /No disk space left: make room/],
  ['memory for a buffer', new RangeError('Array buffer allocation failed'), /No memory left/],
])('an uncaught error of a shortage does not end the daemon: %s', (_, error, text) => {
  const { ended, lines } = uncaught(error);
  expect(ended).toBe(false);
  expect(lines).toMatchObject([{ level: 'error', text: expect.stringMatching(text) }]);
});

it.each([
  ['an exception', new TypeError('x is not a function')],
  ['EAGAIN of a socket', systemError('EAGAIN', 'recvmsg')],
  ['a number that is out of range', new RangeError('offset is out of bounds')],
  ['what is no error', 'text'],
])('a bug ends it at once, with the stack in the log: %s', (_, error) => {
  const { ended, lines } = uncaught(error);
  expect(ended).toBe(true);
  expect(lines).toMatchObject([{ level: 'error', text: expect.stringMatching(/^bug: the daemon exits: /) }]);
  if (error instanceof Error) expect(lines[0]!.fields).toMatchObject({ stack: error.stack });
});
