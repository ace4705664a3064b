/** The daemon's log: JSON lines for machines, one readable line an entry on a terminal. Always on standard error. */
import { type Logger, pino } from 'pino';
import pretty from 'pino-pretty';

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof logLevels)[number];

/** @param format `auto` is readable on a terminal and JSON elsewhere */
export function createLog(level: LogLevel, format: 'auto' | 'json' | 'text'): Logger {
  const text = format === 'text' || (format === 'auto' && process.stderr.isTTY === true);
  const options = { level, base: null, timestamp: pinoTime };
  if (!text) return pino(options, pino.destination({ dest: 2, sync: true }));
  // Written in this thread, so that the last lines before an exit are not lost.
  const stream = pretty({
    destination: 2,
    sync: true,
    colorize: process.stderr.isTTY === true,
    translateTime: false,
    timestampKey: 'time',
  });
  return pino(options, stream);
}

/** ISO 8601 in UTC: sorts, and says the same on every host. */
function pinoTime(): string {
  return `,"time":"${new Date().toISOString()}"`;
}
