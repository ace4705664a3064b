/** One execution of a target, and what is wrong with it. */
import type { Target } from './target.ts';

/** Milliseconds of processor time that one execution may take: a hundred times what the slowest takes. */
const MAX_CPU = 2_000;
/** Bytes of memory that one execution may leave behind or take outside of the heap. */
const MAX_MEMORY = 256 * 1024 * 1024;

/**
 * Why the input is a finding; `undefined` when all held.
 * @param maxCpu milliseconds of processor time
 */
export async function execute(
  target: Target,
  input: Uint8Array,
  maxCpu: number = MAX_CPU,
): Promise<string | undefined> {
  const from = performance.now();
  const problem = await thrownBy(target, input.slice());
  if (problem !== undefined) return problem;
  // The processor is shared: only what is slow by its own time is slow.
  return performance.now() - from > maxCpu ? await costOf(target, input, maxCpu) : undefined;
}

async function costOf(target: Target, input: Uint8Array, maxCpu: number): Promise<string | undefined> {
  const [cpu, memory] = [process.cpuUsage(), process.memoryUsage().rss];
  const problem = await thrownBy(target, input.slice());
  const spent = process.cpuUsage(cpu).user / 1_000;
  const grown = process.memoryUsage().rss - memory;
  if (problem !== undefined) return problem;
  if (spent > maxCpu) return `took ${Math.round(spent)} ms of processor time`;
  return grown > MAX_MEMORY ? `took ${Math.round(grown / 1024 / 1024)} MiB of memory` : undefined;
}

async function thrownBy(target: Target, input: Uint8Array): Promise<string | undefined> {
  try {
    const running = target.run(input);
    if (running !== undefined) await running;
    return undefined;
  } catch (error) {
    return error instanceof Error ? (error.stack ?? `${error.name}: ${error.message}`) : `threw ${String(error)}`;
  }
}

/** The kind of a finding: its first line, without numbers and texts, and where it was thrown. */
export function kindOf(problem: string): string {
  const [first = '', ...lines] = problem.split('\n');
  const place = lines.find((line) => line.includes('/src/')) ?? '';
  return `${first.replace(/'[^']*'|"[^"]*"|\d+/g, '…')} ${place.trim().replace(/^.*\/(src\/.*):\d+\)?$/, '$1')}`;
}
