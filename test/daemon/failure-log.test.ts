import { beforeEach, expect, it, onTestFinished, vi } from 'vitest';
import { FailureLog } from '../../src/daemon/failure-log.ts';

const HOUR = 3_600_000;
let lines: string[];
let log: FailureLog;

beforeEach(() => {
  vi.useFakeTimers();
  onTestFinished(() => void vi.useRealTimers());
  lines = [];
  log = new FailureLog();
});

const fail = (text: string, tunnel = 'net'): void => log.add(tunnel, text, (line) => void lines.push(line));

it('a failure is logged once, and then once an hour with its count', () => {
  for (let minute = 0; minute < 60; minute++) {
    fail(`no answer from port ${minute}`);
    vi.advanceTimersByTime(59_000);
  }
  vi.advanceTimersByTime(HOUR);
  expect(lines).toEqual(['no answer from port 0', 'no answer from port 59 (59 times in the last hour)']);
  vi.advanceTimersByTime(2 * HOUR);
  fail('no answer from port 7');
  expect(lines.at(-1)).toBe('no answer from port 7');
});

it('another failure, or that of another tunnel, is logged at once', () => {
  fail('the key differs');
  fail('no proposal fits');
  fail('the key differs', 'other');
  fail('the key differs');
  expect(lines).toHaveLength(3);
});

it('a tunnel that came up starts over', () => {
  fail('the key differs');
  fail('the key differs');
  log.forget('net');
  fail('the key differs');
  vi.advanceTimersByTime(HOUR);
  expect(lines).toEqual(['the key differs', 'the key differs']);
});

it('names that an unauthenticated host chooses do not fill the log', () => {
  const name = (at: number): string => String.fromCharCode(0x4e00 + at);
  for (let at = 0; at < 1_000; at++) fail(`the peer identifies itself as ${name(at)}`);
  expect(lines).toHaveLength(9);
  vi.advanceTimersByTime(HOUR);
  expect(lines.at(-1)).toBe(`the peer identifies itself as ${name(999)} (991 times in the last hour)`);
});
