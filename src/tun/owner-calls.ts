/**
 * Calls of functions that the program gave: what they throw, or reject with, is told to the program, and keeps neither packets
 * nor the end of anything from going on.
 */
import { messageOf } from '../base/text.ts';

/** Told what a function of the program threw, and which one it was. */
export type OwnerErrorHandler = (error: unknown, where: string) => void;

/** A function that does what `call` does and never throws. @param where what to call it: `onEvent` */
export function ownerCall<Words extends unknown[]>(
  where: string,
  call: (...words: Words) => unknown,
  onError: OwnerErrorHandler = warner(),
): (...words: Words) => void {
  const failed = (error: unknown): void => onError(error, where);
  return (...words) => {
    try {
      const result = call(...words);
      // An async function, where none is asked for.
      if (result instanceof Promise) result.catch(failed);
    } catch (error) {
      failed(error);
    }
  };
}

/** Milliseconds. */
const PAUSE = 10_000;

/** A warning of the process, one in ten seconds: some functions are called for each packet. */
export function warner(): OwnerErrorHandler {
  let quietUntil = Number.NEGATIVE_INFINITY;
  return (error, where) => {
    const now = performance.now();
    if (now < quietUntil) return;
    quietUntil = now + PAUSE;
    const what = error instanceof Error && error.stack !== undefined ? error.stack : messageOf(error);
    process.emitWarning(`${where} of the program threw, which changes nothing here: ${what}`, 'SectunnelWarning');
  };
}
