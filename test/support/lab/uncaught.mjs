/**
 * Loaded before sectunneld (`node --import`): uncaught errors. SIGPWR: that there are no descriptors left, in a
 * timer. SIGXCPU: a bug, in a promise.
 */
import process from 'node:process';
import { isMainThread } from 'node:worker_threads';

if (isMainThread) {
  process.on('SIGPWR', () => {
    setTimeout(() => {
      throw Object.assign(new Error('EMFILE: too many open files, injected'), { code: 'EMFILE' });
    }, 1);
  });
  process.on('SIGXCPU', () => void Promise.reject(new TypeError('injected bug')));
}
