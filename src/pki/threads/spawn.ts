/** The one place where verifier threads are made: what of the program they get, and how much memory. */
import { Worker } from 'node:worker_threads';
import { WORKER_OPTIONS } from '../../base/worker-options.ts';

/** Megabytes. Revocation lists of 30 MiB, of which an entry takes three times its bytes, fit with room to spare. */
const RESOURCES = { maxOldGenerationSizeMb: 256, maxYoungGenerationSizeMb: 8 } as const;

export function spawnVerifierThread(): Worker {
  return new Worker(new URL('./verifier-worker.js', import.meta.url), { ...WORKER_OPTIONS, resourceLimits: RESOURCES });
}
