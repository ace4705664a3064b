/** Which of several systems a benchmark measures. */
import { UsageError } from './row.ts';

interface Measurable {
  readonly name: string;
  /** Why it cannot be measured here; empty when it can. */
  readonly obstacles: readonly string[];
}

/**
 * Those that were asked for and can be measured; a note in `failures` for each other one.
 * @throws UsageError for a name that none has
 */
export function usable<T extends Measurable>(all: readonly T[], only: readonly string[], failures: string[]): T[] {
  const unknown = only.filter((name) => !all.some((system) => system.name === name));
  if (unknown.length > 0) {
    throw new UsageError(`unknown system ${unknown.join(', ')}; expected: ${all.map(({ name }) => name).join(', ')}`);
  }
  const chosen = all.filter(({ name }) => only.length === 0 || only.includes(name));
  for (const { name, obstacles } of chosen) {
    if (obstacles.length > 0) failures.push(`${name} was left out: ${obstacles.join('; ')}`);
  }
  return chosen.filter(({ obstacles }) => obstacles.length === 0);
}
