/** Sends a long array of a result in several lines, so that neither a line nor the work on one is long. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { ControlConnection } from './connection.ts';

/** Milliseconds of work on a line. */
const MAX_WORK = 10;

/**
 * Makes an element of each item, at most so many in a line. What goes before the last line is sent as parts of the reply, and others have their turn in between.
 * @returns what is left for the result under the same key; nothing for a client that is gone
 */
export async function inParts<T, R>(
  connection: Pick<ControlConnection, 'send'>,
  key: string,
  items: readonly T[],
  { make, most }: { readonly make: (item: T) => R; readonly most: number },
): Promise<R[]> {
  let part: R[] = [];
  let began = performance.now();
  for (const item of items) {
    if (part.length >= most || performance.now() - began > MAX_WORK) {
      if (part.length > 0 && !(await connection.send({ part: { [key]: part } }))) return [];
      await nextTurn();
      part = [];
      began = performance.now();
    }
    part.push(make(item));
  }
  return part;
}
