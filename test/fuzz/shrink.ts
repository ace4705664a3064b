/** Makes an input smaller that still shows the same finding. */
import { concatBytes } from '../../src/base/bytes.ts';
import { execute, kindOf } from './execute.ts';
import type { Target } from './target.ts';

/** Executions that it may take. */
const MAX_TRIES = 3_000;

export async function shrink(target: Target, input: Uint8Array, kind: string): Promise<Uint8Array> {
  let tries = 0;
  const fails = async (candidate: Uint8Array): Promise<boolean> => {
    if (++tries > MAX_TRIES) return false;
    const problem = await execute(target, candidate);
    return problem !== undefined && kindOf(problem) === kind;
  };
  let smallest = input;
  for (let size = input.length >>> 1; size > 0; size >>>= 1) {
    for (let at = 0; at + size <= smallest.length; ) {
      const candidate = concatBytes(smallest.subarray(0, at), smallest.subarray(at + size));
      if (await fails(candidate)) smallest = candidate;
      else at += size;
    }
  }
  return smallest;
}
