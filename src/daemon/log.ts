/** The daemon's log: JSON lines for machines, one readable line an entry on a terminal. Always on standard error. */
import { fstatSync, writeSync } from 'node:fs';
import { type Logger, pino } from 'pino';
import { textEntry } from './log-text.ts';

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof logLevels)[number];

const STANDARD_ERROR = 2;
/** Where the reader of a pipe is slow: so often it is tried again, and the milliseconds between. */
const ATTEMPTS = 5;
const PAUSE = 10;

/** @param format `auto` is readable on a terminal and JSON elsewhere */
export function createLog(level: LogLevel, format: 'auto' | 'json' | 'text'): Logger {
  const isTerminal = process.stderr.isTTY === true;
  const text = format === 'text' || (format === 'auto' && isTerminal);
  const options = { level, base: null, timestamp: pinoTime };
  const output = new LogOutput(STANDARD_ERROR);
  const mark = isJournal(STANDARD_ERROR, process.env.JOURNAL_STREAM) ? withPriority : (line: string): string => line;
  const form = text ? (line: string) => textEntry(line, { colours: isTerminal }) : (line: string) => line;
  const stream = {
    // pino then keeps the level of each line here.
    [Symbol.for('pino.metadata')]: true,
    lastLevel: 0,
    write: (line: string) => output.write(mark(form(line), stream.lastLevel)),
  };
  return pino(options, stream);
}

/** Whether what is written to a descriptor goes to systemd's journal: `JOURNAL_STREAM` is `device:inode` (systemd.exec(5)). */
export function isJournal(fd: number, journalStream: string | undefined): boolean {
  if (journalStream === undefined) return false;
  try {
    const { dev, ino } = fstatSync(fd, { bigint: true });
    return journalStream === `${dev}:${ino}`;
  } catch {
    return false;
  }
}

/** pino's levels, and the priorities of syslog(3) from there on. */
const PRIORITIES: readonly (readonly [level: number, priority: number])[] = [
  [60, 2],
  [50, 3],
  [40, 4],
  [30, 6],
];
const DEBUG = 7;

/** The journal takes the priority of a line from its beginning (sd-daemon(3)); each line of several is an entry there. */
export function withPriority(text: string, level: number): string {
  const priority = PRIORITIES.find(([least]) => level >= least)?.[1] ?? DEBUG;
  return text.replace(/^(?=.)/gm, `<${priority}>`);
}

/**
 * Writes lines at once, so that the last ones before an exit are not lost. A line that cannot be written, on a disk that is
 * full or to a reader that is gone, is lost alone: the next one that can tells how many were.
 */
export class LogOutput {
  readonly #fd: number;
  #lost = 0;
  #lastError = '';

  constructor(fd: number) {
    this.#fd = fd;
  }

  write(line: string): void {
    const lost = this.#lost === 0 ? '' : `${this.#lost} lines of this log were lost: ${this.#lastError}\n`;
    try {
      writeAll(this.#fd, Buffer.from(lost + line));
      this.#lost = 0;
    } catch (error) {
      this.#lost++;
      this.#lastError = error instanceof Error ? error.message : String(error);
    }
  }
}

function writeAll(fd: number, bytes: Uint8Array): void {
  let attempts = 0;
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(fd, bytes, at);
    } catch (error) {
      const isBusy = error instanceof Error && 'code' in error && error.code === 'EAGAIN';
      if (!isBusy || ++attempts > ATTEMPTS) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE);
    }
  }
}

/** ISO 8601 in UTC: sorts, and says the same on every host. */
function pinoTime(): string {
  return `,"time":"${new Date().toISOString()}"`;
}
