/** One charon with many connections, its ESP in userspace, driven by swanctl and its control socket. */
import { writeFileSync } from 'node:fs';
import type { Lab } from '../../test/support/lab/lab.ts';
import type { Namespace } from '../../test/support/lab/namespace.ts';
import { missing } from '../../test/support/lab/needs.ts';
import { StrongSwan, type SwanctlSettings, swanctlConf } from '../../test/support/lab/strongswan.ts';
import type { Gateway, Questions, SidePlan, TunnelsSystem } from './system.ts';
import { type Message, Vici } from './vici.ts';

/** Milliseconds for a command about all connections. */
const COMMAND_TIMEOUT = 600_000;
/**
 * The table is as its documentation advises for many tunnels. All tunnels are a single peer's here, of which charon by default
 * has four IKE SAs under way at most: `dos_protection` is that limit.
 */
const SETTINGS = { dos_protection: 'no', ikesa_table_size: 4_096, ikesa_table_segments: 16 };
/** The addresses of all sites are one host's here, and MOBIKE would tell each peer all of them. */
const CONNECTION = { mobike: 'no' };

export function strongSwanSystem(): TunnelsSystem {
  return {
    name: 'strongswan',
    obstacles: missing(['namespaces', 'iperf3', 'strongswan']),
    start: startCharon,
  };
}

async function startCharon(lab: Lab, host: Namespace, plan: SidePlan): Promise<Gateway> {
  const charon = await StrongSwan.start(lab, host, { logLevel: 0, settings: SETTINGS });
  configure(charon, plan, { connection: CONNECTION });
  await charon.command(['--load-creds']);
  const load = (): Promise<string[]> => loadConnections(charon);
  return {
    pid: charon.pid,
    define: load,
    start: async () => {
      if (plan.side === 'left') return undefined;
      configure(charon, plan, { connection: CONNECTION, child: { start_action: 'start' } });
      return await load();
    },
    questions: () => questions(charon, plan.tunnels[Math.floor(plan.tunnels.length / 2)]!.name),
    watch: async (onUp) => {
      const vici = await Vici.connect(charon.socket);
      await vici.listen('child-updown', (_, message) => {
        if (message.up === 'yes') for (const name of sectionsOf(message)) onUp(name);
      });
      return () => vici.close();
    },
    // It cannot be told to.
    settle: () => Promise.resolve(),
    stop: async (limit) => (await charon.stop(limit)) !== null,
  };
}

function configure(charon: StrongSwan, { side, tunnels }: SidePlan, settings: SwanctlSettings): void {
  writeFileSync(charon.configFile, tunnels.map((tunnel) => swanctlConf(tunnel, side, settings)).join(''));
}

/** @returns the refusals */
async function loadConnections(charon: StrongSwan): Promise<string[]> {
  const { code, stdout, stderr } = await charon.command(['--load-conns'], false, COMMAND_TIMEOUT);
  if (code === 0) return [];
  const refusals = `${stdout}${stderr}`.split('\n').filter((line) => /^loading connection .* failed/.test(line));
  if (refusals.length === 0) throw new Error(`swanctl --load-conns ended with ${code}: ${stderr}`);
  return refusals;
}

function sectionsOf(message: Message): string[] {
  return Object.entries(message)
    .filter(([, value]) => typeof value !== 'string')
    .map(([name]) => name);
}

/** What swanctl asks for `--stats`, `--list-sas --ike NAME` and `--version`, without a process for each. */
async function questions(charon: StrongSwan, tunnel: string): Promise<Questions> {
  const vici = await Vici.connect(charon.socket);
  await vici.listen('list-sa', () => undefined);
  return {
    all: [
      { name: 'stats', ask: () => vici.request('stats') },
      { name: `list-sas ${tunnel}`, ask: () => vici.request('list-sas', { ike: tunnel }) },
      { name: 'version', ask: () => vici.request('version') },
    ],
    close: () => vici.close(),
  };
}
