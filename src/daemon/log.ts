/** The daemon's log: JSON lines for machines, one readable line an entry on a terminal. Always on standard error. */
import { writeSync } from 'node:fs';
import { type Logger, pino } from 'pino';
import pretty from 'pino-pretty';

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
  if (!text) return pino(options, { write: (line) => output.write(line) });
  const readable = pretty.prettyFactory({ colorize: isTerminal, translateTime: false, timestampKey: 'time' });
  return pino(options, { write: (line) => output.write(readable(line)) });
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
