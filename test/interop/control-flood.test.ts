/** The control socket of a daemon under clients that mean ill: what a command still takes, and what the daemon. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { DaemonClient } from '../../src/control/client.ts';
import { CONTROL_SOCKET } from '../../src/control/protocol.ts';
import type { Lab } from '../support/lab/lab.ts';
import { Ours } from '../support/lab/ours.ts';
import { Background, STARTING, waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { useLab } from '../support/lab/use-lab.ts';

const FLOOD = fileURLToPath(new URL('../support/lab/control-flood.mjs', import.meta.url));
/** Of four kinds: more than there are places. */
const EACH = 40;
const COMMANDS = 50;
/** Milliseconds that a command may take. */
const PROMPT = 100;
/** MiB of memory that the daemon may have meanwhile: 120 with nothing to do, 32 that connections may hold, and garbage. */
const MEMORY = 300;

function residentMiB(pid: number): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
}

describeInterop('a flood of the control socket', ['namespaces', 'build'], () => {
  let lab: Lab;
  let ours: Ours;

  useLab(async (made) => {
    lab = made;
    ours = await Ours.start(lab, await lab.namespace('flooded'));
  });

  it('delays no command, and uses little memory', async () => {
    const runDir = join(ours.folder, 'run');
    const flood = new Background('flood', [process.execPath, FLOOD, join(runDir, CONTROL_SOCKET), `${EACH}`]);
    lab.log('flood', () => flood.output);
    lab.defer(() => flood.stop());
    await waitFor('the flood', () => flood.output.includes('open') || undefined, STARTING);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    const times: number[] = [];
    let most = 0;
    for (let i = 0; i < COMMANDS; i++) {
      const begin = performance.now();
      const client = await DaemonClient.connect(runDir);
      expect(await client.call('list', {})).toEqual({ tunnels: [], unreadable: [] });
      client.close();
      times.push(performance.now() - begin);
      most = Math.max(most, residentMiB(ours.pid));
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await flood.stop();
    times.sort((a, b) => a - b);
    expect(times[COMMANDS / 2]).toBeLessThan(PROMPT);
    expect(most).toBeLessThan(MEMORY);
    expect((await ours.command(['list'])).code).toBe(0);
  });
});
