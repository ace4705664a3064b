/** Decides whether worker threads carry the packets, and says why not. */
import { availableParallelism } from 'node:os';
import { SectunnelError } from '../../base/error.ts';
import type { Platform } from '../platform.ts';

const MAX_PAIRS = 8;

/** Values of `--workers`: as suits the machine, the event loop alone (0), or so many pairs of workers. */
export const workerChoices: readonly string[] = ['auto', ...Array.from({ length: MAX_PAIRS + 1 }, (_, n) => String(n))];

/** Workers pay only with a processor for each direction. */
const PROCESSORS_WANTED = 2;

export interface WorkerChoice {
  readonly pairs: number;
  /** For people. */
  readonly text: string;
}

/** @throws SectunnelError when the requested number is not available */
export function chooseWorkers(
  wanted: string,
  platform: Pick<Platform, 'whyNoWorkers'>,
  processors: number = availableParallelism(),
): WorkerChoice {
  if (wanted === '0') return { pairs: 0, text: 'inline, as asked for' };
  const { whyNoWorkers } = platform;
  if (wanted !== 'auto') {
    if (whyNoWorkers !== undefined) throw new SectunnelError('system', `--workers ${wanted}: ${whyNoWorkers}`);
    return { pairs: Number(wanted), text: wanted === '1' ? '1 pair' : `${wanted} pairs` };
  }
  if (whyNoWorkers !== undefined) return { pairs: 0, text: `inline: ${whyNoWorkers}` };
  if (processors < PROCESSORS_WANTED) return { pairs: 0, text: 'inline: there is one processor' };
  return { pairs: 1, text: '1 pair' };
}
