/** A worker thread that cannot be started: reported, tried again, and no reason for the program to end. */
import type { MessagePort } from 'node:worker_threads';
import { beforeEach, expect, it, onTestFinished, vi } from 'vitest';
import type { WorkerSetup } from '../../../src/host/workers/messages.ts';
import { eventually } from '../../support/daemon.ts';

/** What becomes of the workers that are started, one after another; of those after the last what became of it. */
const fates: ('no thread' | 'no loop' | 'runs')[] = [];

vi.mock('node:worker_threads', async (original) => {
  const { EventEmitter } = await import('node:events');
  const { systemError } = await import('../../support/faults.ts');
  class FakeWorker extends EventEmitter {
    constructor(_: URL, { workerData }: { workerData: WorkerSetup }) {
      super();
      const fate = fates.length > 1 ? fates.shift() : fates[0];
      const refusal = Object.assign(new Error('Worker initialization failure'), { code: 'ERR_WORKER_INIT_FAILED' });
      if (fate === 'no thread') throw systemError('EAGAIN', 'spawn');
      if (fate === 'no loop') {
        setImmediate(() => {
          this.emit('error', refusal);
          this.emit('exit', 1);
        });
        return;
      }
      let applied = 0;
      const port: MessagePort = workerData.port;
      port.on('message', ({ type }: { type: string }) => {
        port.postMessage({ applied: ++applied, reports: [] });
        if (type !== 'stop') return;
        port.close();
        this.emit('exit', 0);
      });
    }
    terminate(): void {}
  }
  return { ...(await original<typeof import('node:worker_threads')>()), Worker: FakeWorker };
});

const { WorkerHandle } = await import('../../../src/host/workers/handle.ts');

interface Watched {
  readonly handle: InstanceType<typeof WorkerHandle>;
  readonly crashes: string[];
}

function started(): Watched {
  const crashes: string[] = [];
  const handle = new WorkerHandle({
    setup: { role: 'send', crypto: 'node', inboundDrops: new Float64Array(1), fragmentSeed: 0, clockOffset: 0 },
    restore: () => [],
    onReports: () => undefined,
    onProgress: () => undefined,
    onCrash: (reason) => crashes.push(reason),
  });
  onTestFinished(() => handle.stop());
  return { handle, crashes };
}

beforeEach(() => void fates.splice(0));

it.runIf(process.platform === 'linux').each([
  ['no thread', /No processes or threads left: raise TasksMax=/],
  ['no loop', /No threads, descriptors or memory for a worker thread left: raise TasksMax=/],
] as const)('a worker that cannot start is reported and tried again: %s', async (fate, reason) => {
  fates.push(fate, fate, 'runs');
  const { handle, crashes } = started();
  // Reported later, not within the call.
  expect(crashes).toEqual([]);
  await expect(handle.ready).rejects.toThrow(reason);
  expect(handle.status).toMatchObject({ running: false });
  await eventually('the third to run', () => handle.status.restarts === 2 && handle.hasApplied(handle.issued));
  await handle.ready;
  expect(handle.status).toMatchObject({ running: true });
  expect(crashes).toHaveLength(2);
  for (const text of crashes) expect(text).toMatch(reason);
});

it.runIf(process.platform === 'linux')('a worker that never starts does not block a caller for ever', async () => {
  fates.push('no thread');
  const { handle } = started();
  await expect(handle.ready).rejects.toThrow('the send worker cannot start');
  await eventually('another attempt', () => handle.status.restarts === 1);
  await expect(handle.ready).rejects.toThrow('the send worker cannot start');
});
