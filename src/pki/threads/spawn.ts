/** The one place where verifier threads are made: what of the program they get, and how much memory. */
import { Worker } from 'node:worker_threads';

/** Megabytes. Revocation lists of 30 MiB, of which an entry takes three times its bytes, fit with room to spare. */
const RESOURCES = { maxOldGenerationSizeMb: 256, maxYoungGenerationSizeMb: 8 } as const;

export function spawnVerifierThread(): Worker {
  // Not with the arguments of the program's own start (`node -e`, preloaded modules): they are none of the thread's.
  return new Worker(new URL('./worker.js', import.meta.url), { execArgv: [], resourceLimits: RESOURCES });
}
