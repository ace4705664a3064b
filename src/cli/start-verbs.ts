/** The verbs that start a tunnel, and that wait for it to come up when they are asked to. */
import { setTimeout as sleep } from 'node:timers/promises';
import { listSome } from '../base/text.ts';
import type { DaemonClient } from '../control/client.ts';
import type { TunnelStatus } from '../host/status.ts';
import { CLEAR_LINE, eachOptions, INTERRUPTED, isMany, runEach, targets } from './each.ts';
import { duration } from './format.ts';
import { type Arguments, type DaemonVerbSpec, name, type Terminal, UsageError } from './verb.ts';

/** Exit code when the time is over and the tunnel is not up. */
const NOT_UP = 4;
const WAIT_SECONDS = 30;
const MAX_WAIT_SECONDS = 86_400;
/** Milliseconds between two looks at the tunnel. */
const LOOK = 200;
const LOOK_AT_MANY = 1_000;
/** Tunnels that are named when they are not up. */
const MAX_LISTED = 10;

const startOptions: Pick<DaemonVerbSpec, 'usage' | 'positionals' | 'options' | 'optionalValues' | 'exitCodes'> = {
  ...eachOptions,
  options: { ...eachOptions.options, wait: { type: 'string' } },
  optionalValues: { wait: { name: 'SECONDS', value: String(WAIT_SECONDS) } },
  exitCodes: {
    ...eachOptions.exitCodes,
    [NOT_UP]: 'started, but not up within the time of --wait; the daemon keeps trying',
  },
};
const waitHelp = `wait until the tunnels are up, at most this many seconds (default ${WAIT_SECONDS})`;

export const start: DaemonVerbSpec = {
  ...startOptions,
  group: 'Tunnels',
  summary: 'start defined tunnels',
  details:
    "Returns when the device and the routes are installed; with --wait, when the tunnel is up. 'sectunnel status' shows\n" +
    "the progress, 'sectunnel event' prints what happens. Several tunnels are started at the same time.",
  optionHelp: { all: 'all that are defined and not active', wait: waitHelp },
  run: (client, args, terminal) => startBy('start', client, args, terminal),
};

export const restart: DaemonVerbSpec = {
  ...startOptions,
  group: 'Tunnels',
  summary: 'stop tunnels and start them again with their defined documents',
  details:
    'Protected packets do not pass in the clear meanwhile. A tunnel that cannot start with the defined document continues\n' +
    'with its previous one. A tunnel that is not active is started.',
  optionHelp: { all: 'all that are active', wait: waitHelp },
  run: (client, args, terminal) => startBy('restart', client, args, terminal),
};

async function startBy(
  verb: 'start' | 'restart',
  client: DaemonClient,
  args: Arguments,
  terminal: Terminal,
): Promise<number | undefined> {
  const patience = seconds(verb, args.options.wait);
  if (isMany(args)) {
    const names: string[] = [];
    const words = { doing: `${verb}ing`, done: `${verb}ed` };
    const params = { verb, ...targets(verb, args) };
    const code = await runEach(client, params, words, terminal, (started) => names.push(started));
    if (patience === undefined || code === INTERRUPTED || names.length === 0) return code;
    return (await waitUntilAllUp(client, names, patience, terminal)) ?? code;
  }
  const result = await client.call(verb, { name: name(args) });
  for (const warning of result.warnings) terminal.err(`warning: ${warning}\n`);
  terminal.out(`Tunnel ${result.name} ${verb}ed on device ${result.device}\n`);
  return patience === undefined ? undefined : await waitUntilUp(client, result.name, patience, terminal);
}

function seconds(verb: string, wanted: string | boolean | undefined): number | undefined {
  if (typeof wanted !== 'string') return undefined;
  const found = /^\d+(\.\d+)?$/.test(wanted) ? Number(wanted) : Number.NaN;
  if (found > 0 && found <= MAX_WAIT_SECONDS) return found;
  throw new UsageError(`${verb}: --wait=${wanted}: expected: seconds, at most ${MAX_WAIT_SECONDS}`, verb);
}

/** Tells each change on standard error meanwhile. @returns the exit code */
async function waitUntilUp(
  client: DaemonClient,
  tunnel: string,
  patience: number,
  terminal: Terminal,
): Promise<number | undefined> {
  const began = performance.now();
  const waited = (): number => (performance.now() - began) / 1000;
  let told = '';
  for (;;) {
    const status = (await client.call('status', { name: tunnel })).tunnels[0];
    if (status?.state === 'up') {
      terminal.out(`Tunnel ${tunnel} is up after ${waited().toFixed(1)} s\n`);
      return undefined;
    }
    const words = status === undefined ? 'gone' : progress(status);
    if (words !== told) terminal.err(`${tunnel}: ${words}\n`);
    told = words;
    if (status?.active !== true || waited() >= patience) {
      terminal.err(`error: tunnel ${tunnel} is not up after ${duration(waited())}; see 'sectunnel status ${tunnel}'\n`);
      return NOT_UP;
    }
    await sleep(Math.min(LOOK, Math.max(1, 1000 * (patience - waited()))));
  }
}

/** The same of several. One that is stopped meanwhile is not waited for. */
async function waitUntilAllUp(
  client: DaemonClient,
  names: readonly string[],
  patience: number,
  terminal: Terminal,
): Promise<number | undefined> {
  const began = performance.now();
  const waited = (): number => (performance.now() - began) / 1000;
  const show = (text: string): void => {
    if (terminal.isWatched === true) terminal.err(CLEAR_LINE + text);
  };
  for (;;) {
    const { tunnels } = await client.call('list', { patterns: names, active: true });
    const missing = tunnels.filter(({ state }) => state !== 'up').map((tunnel) => tunnel.name);
    if (missing.length === 0) {
      show('');
      terminal.out(`${tunnels.length} tunnels are up after ${waited().toFixed(1)} s\n`);
      return undefined;
    }
    show(`waiting: ${tunnels.length - missing.length} up, ${missing.length} remaining`);
    if (waited() >= patience) {
      show('');
      const some = listSome(missing, MAX_LISTED);
      const count = `${missing.length} of ${tunnels.length} tunnels`;
      terminal.err(`error: ${count} are not up after ${duration(waited())}: ${some}; see 'sectunnel status TUNNEL'\n`);
      return NOT_UP;
    }
    await sleep(Math.min(LOOK_AT_MANY, Math.max(1, 1000 * (patience - waited()))));
  }
}

function progress({ state, lastFailure }: TunnelStatus): string {
  const meaning = state === 'waiting' ? 'waiting for traffic or for the peer' : state;
  return lastFailure === undefined
    ? meaning
    : `${meaning}; last failure: ${lastFailure.reason}: ${lastFailure.detail.split('\n')[0]}`;
}
