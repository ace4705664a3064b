/**
 * A line of the control socket as a request: looked at strictly before JSON.parse makes objects of it, since a line has up to
 * 4 MiB, and a tree of that many members would cost a hundred times as much memory and stop the daemon for a second.
 */
import { isUtf8 } from 'node:buffer';
import { SectunnelError } from '../../base/error.ts';

export interface ControlRequest {
  readonly id: number;
  readonly verb: string;
  readonly params: Readonly<Record<string, unknown>>;
}

/** A line that is no request. */
export interface RefusedLine {
  /** The id of the reply: that of the line, or 0 where the line has none. */
  readonly id: number;
  readonly refusal: SectunnelError;
}

/** The deepest request has objects in an array; the longest one names thousands of tunnels. */
const MAX_DEPTH = 4;
const MAX_MEMBERS = 16_384;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
/** Brackets and braces differ in one bit. */
const BRACE_BIT = 0x20;
const OPENING = 0x7b;
const CLOSING = 0x7d;

export function readRequest(line: Buffer): ControlRequest | RefusedLine {
  const refused = (why: string, id = 0): RefusedLine => ({ id, refusal: new SectunnelError('bad-request', why) });
  const problem = problemOfShape(line);
  if (problem !== undefined) return refused(problem);
  let value: unknown;
  try {
    value = JSON.parse(line.toString('utf8'));
  } catch {
    return refused('the request is not JSON');
  }
  if (typeof value !== 'object' || value === null) return refused('the request is not an object');
  const { id, verb, params } = value as { id?: unknown; verb?: unknown; params?: unknown };
  if (typeof id !== 'number') return refused('the request has no numeric id');
  if (!Number.isSafeInteger(id)) {
    const { MIN_SAFE_INTEGER, MAX_SAFE_INTEGER } = Number;
    return refused(`the id ${id} is not an integer from ${MIN_SAFE_INTEGER} to ${MAX_SAFE_INTEGER}`);
  }
  if (typeof verb !== 'string') return refused('the request has no verb', id);
  const given = params ?? {};
  if (typeof given !== 'object' || Array.isArray(given)) return refused('params is not an object', id);
  return { id, verb, params: given as ControlRequest['params'] };
}

/** What makes a line not worth parsing; `undefined` when nothing does. One look at each byte. */
function problemOfShape(line: Buffer): string | undefined {
  if (!isUtf8(line)) return 'the request is not UTF-8';
  let depth = 0;
  let members = 0;
  let inString = false;
  for (let at = 0; at < line.length; at++) {
    const byte = line[at]!;
    if (inString) {
      if (byte === BACKSLASH) at++;
      else if (byte === QUOTE) inString = false;
    } else if (byte === QUOTE) {
      inString = true;
    } else if ((byte | BRACE_BIT) === OPENING) {
      if (++depth > MAX_DEPTH) return `the request is nested more than ${MAX_DEPTH} deep`;
    } else if ((byte | BRACE_BIT) === CLOSING) {
      depth--;
    } else if (byte === COMMA && ++members > MAX_MEMBERS) {
      return `the request has more than ${MAX_MEMBERS} members`;
    }
  }
  return undefined;
}
