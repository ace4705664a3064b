/** Our daemon with many tunnels, by the commands and requests that its users have for many. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SectunnelError } from '../../src/base/error.ts';
import { DaemonClient } from '../../src/control/client.ts';
import type { Lab } from '../../test/support/lab/lab.ts';
import type { Namespace } from '../../test/support/lab/namespace.ts';
import { missing } from '../../test/support/lab/needs.ts';
import { Ours, sectunnelDocument } from '../../test/support/lab/ours.ts';
import { run } from '../../test/support/lab/process.ts';
import { builtProgram, projectRoot } from '../../test/support/lab/root.ts';
import { OWN_NEEDS } from '../tunnel/systems.ts';
import { PSK } from './shape.ts';
import type { Gateway, Questions, SidePlan, TunnelsSystem } from './system.ts';

/** Milliseconds for a command about all tunnels. */
const COMMAND_TIMEOUT = 600_000;
/** Milliseconds between two collections of garbage: what the first frees outside the heap goes with the second. */
const COLLECTING = 1_000;
const SETTLE = join(projectRoot(), 'build/bench/tunnels/settle.js');
/** Of the device that all tunnels of a side share. */
const SHARED_DEVICE = 'hub';
/** As in `bin/sectunneld`, which loads nothing into a daemon. */
const ENVIRONMENT = {
  ...{ MALLOC_ARENA_MAX: '2', MALLOC_TRIM_THRESHOLD_: '131072', MALLOC_MMAP_THRESHOLD_: '65536' },
  UV_THREADPOOL_SIZE: '8',
};

/** @param shared all tunnels of a side name one device */
export function ourSystem(shared: boolean): TunnelsSystem {
  return {
    name: shared ? 'sectunnel-shared' : 'sectunnel',
    obstacles: missing(OWN_NEEDS),
    start: (lab, host, plan) => startOurs(lab, host, plan, shared),
  };
}

async function startOurs(lab: Lab, host: Namespace, { side, tunnels }: SidePlan, shared: boolean): Promise<Gateway> {
  const ours = await Ours.start(lab, host, {
    arguments: ['--log-level', 'warn'],
    nodeArguments: ['--import', SETTLE],
    env: ENVIRONMENT,
  });
  const secret = await ours.secret(PSK);
  const folder = join(ours.folder, 'mass');
  mkdirSync(folder);
  const settings = {
    start: side === 'left' ? 'respond' : 'initiate',
    ...(shared ? { device: SHARED_DEVICE } : {}),
  } as const;
  for (const tunnel of tunnels) {
    writeFileSync(join(folder, `${tunnel.name}.xml`), sectunnelDocument(tunnel, side, settings, secret));
  }
  const some = tunnels[Math.floor(tunnels.length / 2)]!.name;
  return {
    pid: ours.pid,
    define: () => command(ours, ['define', '--dir', folder]),
    start: () => command(ours, ['start', '--all']),
    questions: () => Promise.resolve(questions(ours, some)),
    watch: async (onUp) => {
      const client = new DaemonClient(ours.runDir);
      client.onEvent = ({ event, tunnel }) => {
        if (event === 'child-up') onUp(tunnel);
      };
      await client.call('event', {});
      return () => client.close();
    },
    settle: async () => {
      for (let time = 0; time < 2; time++) {
        process.kill(ours.pid, 'SIGWINCH');
        await new Promise((resolve) => setTimeout(resolve, COLLECTING));
      }
    },
    stop: async (limit) => (await ours.stop('SIGTERM', limit)) !== null,
  };
}

/** A command about all tunnels, as its user starts it. @returns the refusals */
async function command(ours: Ours, words: readonly string[]): Promise<string[]> {
  const argv = [process.execPath, builtProgram('cli'), '--run-dir', ours.runDir, ...words];
  const { code, stdout, stderr } = await run(argv, { timeout: COMMAND_TIMEOUT, check: false });
  const refusals = stderr.split('\n').filter((line) => line.startsWith('error: '));
  const isAbout = code === 1 && /^\d+ tunnels? /m.test(stdout);
  if (code === 0 || isAbout) return refusals.map((line) => line.slice('error: '.length));
  throw new Error(`sectunnel ${words.join(' ')} ended with ${code}: ${stderr}`);
}

/** An answer too: the tunnel is not defined yet. */
function refused(error: unknown): void {
  if (!(error instanceof SectunnelError)) throw error;
}

function questions(ours: Ours, tunnel: string): Questions {
  const client = new DaemonClient(ours.runDir);
  return {
    all: [
      { name: 'list --limit 10', ask: () => client.call('list', { active: true, limit: 10 }) },
      { name: `status ${tunnel}`, ask: () => client.call('status', { name: tunnel }).catch(refused) },
      { name: 'secret-list', ask: () => client.call('secret-list', {}) },
    ],
    close: () => client.close(),
  };
}
