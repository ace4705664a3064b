/**
 * `npm run bench -- tunnels` (as root): gateways with thousands of tunnels between them, beside gateways with a single one; ours,
 * and strongSwan as far as it gets. bench/README.md tells what is measured how.
 */
import type { BenchOptions, BenchReport } from './row.ts';
import { usable } from './system.ts';
import { ourSystem } from './tunnels/ours.ts';
import { shapeNamed } from './tunnels/shape.ts';
import { strongSwanSystem } from './tunnels/strongswan.ts';
import { type Size, Turn } from './tunnels/turn.ts';

const QUICK: Size = { count: 20, rounds: 1, seconds: 1, idle: 1 };
const FULL: Omit<Size, 'count' | 'rounds'> = { seconds: 3, idle: 10 };

export async function tunnelsBench(options: BenchOptions): Promise<BenchReport> {
  const { count, rounds, quick, only, shared } = options;
  const shape = shapeNamed(options.shape);
  const size = quick ? { ...QUICK, count: Math.min(count, QUICK.count) } : { ...FULL, count, rounds };
  const failures: string[] = [];
  const turns: Turn[] = [];
  for (const system of usable([ourSystem(shared), strongSwanSystem()], only, failures)) {
    const turn = new Turn(system, shape, size);
    turns.push(turn);
    await turn.take();
  }
  return {
    rows: turns.flatMap(({ rows }) => rows),
    conditions: Object.assign({ shape: shape.name }, ...turns.map(({ conditions }) => conditions)),
    failures: [...failures, ...turns.flatMap((turn) => turn.failures)],
  };
}
