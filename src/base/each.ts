/** Work on many things of which one may fail. */

import { SectunnelError } from './error.ts';
import { messageOf } from './text.ts';

/**
 * Does one after another, all of them, and fails when any did.
 * @throws what the only one that failed threw, or SectunnelError with the messages of all
 */
export async function eachOf<T>(items: readonly T[], work: (item: T) => unknown): Promise<void> {
  const errors: unknown[] = [];
  for (const item of items) {
    try {
      await work(item);
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length === 1) throw errors[0];
  if (errors.length > 1) throw new SectunnelError('system', errors.map(messageOf).join('. '));
}

/** The same of several steps. */
export function allOf(...steps: readonly (() => unknown)[]): Promise<void> {
  return eachOf(steps, (step) => step());
}

/**
 * Does the same for each of many, in their order, a limited number of them at the same time. `work` does not reject.
 * @param limit pieces of work that run at the same time
 */
export async function eachAtOnce<T>(
  items: Iterable<T>,
  limit: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const iterator = items[Symbol.iterator]();
  const worker = async (): Promise<void> => {
    for (let next = iterator.next(); next.done !== true; next = iterator.next()) await work(next.value);
  };
  await Promise.all(Array.from({ length: limit }, worker));
}
