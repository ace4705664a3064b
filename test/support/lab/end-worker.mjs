/**
 * Loaded before sectunneld (`node --import`): ends a worker thread from outside, in the middle of whatever it does.
 * SIGUSR2 ends the one that sends, SIGWINCH the one that receives.
 */
import { syncBuiltinESMExports } from 'node:module';
import process from 'node:process';
import workerThreads from 'node:worker_threads';

if (workerThreads.isMainThread) {
  const latest = new Map();
  const { Worker } = workerThreads;
  workerThreads.Worker = class extends Worker {
    constructor(url, options) {
      super(url, options);
      latest.set(options.workerData.role, this);
    }
  };
  syncBuiltinESMExports();
  process.on('SIGUSR2', () => void latest.get('send')?.terminate());
  process.on('SIGWINCH', () => void latest.get('receive')?.terminate());
}
