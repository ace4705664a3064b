/**
 * What is measured: two hosts joined by a cable, and on them sectunnel with each cryptographic provider, strongSwan
 * with its ESP in userspace, wireguard-go, or nothing at all.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { testedProviders } from '../../src/host/crypto.ts';
import type { Lab } from '../../test/support/lab/lab.ts';
import { cable, type Namespace } from '../../test/support/lab/namespace.ts';
import { missing, type Need } from '../../test/support/lab/needs.ts';
import { Ours, type OursOptions, type OursSettings } from '../../test/support/lab/ours.ts';
import { run, waitFor } from '../../test/support/lab/process.ts';
import { StrongSwan } from '../../test/support/lab/strongswan.ts';
import type { Side, Tunnel, TunnelEnd } from '../../test/support/lab/tunnel.ts';
import type { Line } from './load.ts';

export interface Running {
  readonly line: Line;
  /** Of the programs that carry the packets, both ends'. */
  readonly processes: readonly number[];
}

export interface System {
  /** `sectunnel-ipsec-mb`, `strongswan`. */
  readonly name: string;
  readonly own: boolean;
  /** Why it cannot be measured here; empty when it can. */
  readonly obstacles: readonly string[];
  /** Sets it up until packets pass. The lab ends all of it. */
  start(lab: Lab): Promise<Running>;
}

const OUTER: Readonly<Record<Side, string>> = { left: '192.0.2.1', right: '192.0.2.2' };
const INNER: Readonly<Record<Side, string>> = { left: '10.1.0.1', right: '10.2.0.1' };
const INNER_PREFIX: Readonly<Record<Side, string>> = { left: '10.1.0.0/24', right: '10.2.0.0/24' };
const SIDES = ['left', 'right'] as const;
const WIREGUARD_PORT = 51820;
/** Of ours, in the order in which the daemon prefers them. `noble` is for where nothing else is, not for speed. */
const PROVIDERS = ['ipsec-mb', 'openssl', 'node'] as const;

export const OWN_NEEDS: readonly Need[] = ['namespaces', 'iperf3', 'build'];

const TUNNEL: Tunnel = {
  name: 'bench',
  left: end('left'),
  right: end('right'),
  ike: { encryption: 'aes128gcm16', prf: 'sha256', dh: 'x25519' },
  esp: { encryption: 'aes128gcm16', esn: 'no' },
};

export const SUITE = 'aes128gcm16 without ESN, encapsulated in UDP';

export function allSystems(): readonly System[] {
  const providers = testedProviders();
  return [
    ...PROVIDERS.map((provider): System => {
      const tested = providers.get(provider);
      const unusable = typeof tested === 'string' ? [tested] : [];
      return {
        name: `sectunnel-${provider}`,
        own: true,
        obstacles: [...missing(OWN_NEEDS), ...unusable],
        start: (lab) => startOurs(lab, () => ({ arguments: ['--crypto', provider] })),
      };
    }),
    {
      name: 'sectunnel-inline',
      own: true,
      obstacles: missing(OWN_NEEDS),
      // The best provider, but no worker threads.
      start: (lab) => startOurs(lab, () => ({ arguments: ['--workers', '0'] })),
    },
    other('strongswan', 'strongswan', startStrongSwan),
    other('wireguard-go', 'wireguard-go', startWireGuard),
    other('veth', undefined, startBare),
  ];
}

function other(name: string, need: Need | undefined, start: (lab: Lab) => Promise<Running>): System {
  return {
    name,
    own: false,
    obstacles: missing(['namespaces', 'iperf3', ...(need === undefined ? [] : [need])]),
    start,
  };
}

function end(side: Side): TunnelEnd {
  return {
    address: OUTER[side],
    id: { type: 'fqdn', value: `${side}.example.org` },
    inner: [INNER_PREFIX[side]],
    psk: 'a key for benchmarks alone',
  };
}

type Hosts = Readonly<Record<Side, Namespace>>;

async function buildHosts(lab: Lab): Promise<Hosts> {
  const hosts = { left: await lab.namespace('left'), right: await lab.namespace('right') };
  const [left, right] = SIDES.map((side) => ({
    namespace: hosts[side],
    device: 'eth0',
    addresses: [`${OUTER[side]}/24`],
  }));
  await cable(left!, right!);
  for (const side of SIDES) await hosts[side].ip([`addr add ${INNER[side]}/24 dev lo`]);
  return hosts;
}

function innerLine({ left, right }: Hosts): Line {
  return { left, right, source: INNER.left, destination: INNER.right };
}

export interface RunningOurs extends Running {
  readonly ends: Readonly<Record<Side, Ours>>;
  /** Ends both daemons in good order. */
  stop(): Promise<void>;
}

/** A tunnel between two daemons of ours. */
export async function startOurs(
  lab: Lab,
  options: (side: Side) => OursOptions,
  settings: Omit<OursSettings, 'start'> = {},
): Promise<RunningOurs> {
  const hosts = await buildHosts(lab);
  const right = await Ours.start(lab, hosts.right, options('right'));
  await right.load(TUNNEL, 'right', { ...settings, start: 'respond' });
  const left = await Ours.start(lab, hosts.left, options('left'));
  await left.load(TUNNEL, 'left', { ...settings, start: 'initiate' });
  for (const ours of [left, right]) await ours.up(TUNNEL.name);
  const stop = async (): Promise<void> => {
    for (const ours of [left, right]) await ours.stop();
  };
  return { line: innerLine(hosts), processes: [left.pid, right.pid], ends: { left, right }, stop };
}

async function startStrongSwan(lab: Lab): Promise<Running> {
  const hosts = await buildHosts(lab);
  const right = await StrongSwan.start(lab, hosts.right);
  await right.load(TUNNEL, 'right');
  const left = await StrongSwan.start(lab, hosts.left);
  await left.load(TUNNEL, 'left');
  await left.initiate(TUNNEL.name);
  return { line: innerLine(hosts), processes: [left.pid, right.pid] };
}

async function startWireGuard(lab: Lab): Promise<Running> {
  const hosts = await buildHosts(lab);
  const keys = { left: await makeKeys(lab, 'left'), right: await makeKeys(lab, 'right') };
  const processes: number[] = [];
  for (const side of SIDES) {
    const [host, remote] = [hosts[side], side === 'left' ? 'right' : 'left'] as const;
    // Its control sockets lie in one folder for all namespaces, so the devices need names of their own.
    const device = `wg${process.pid}${side.charAt(0)}`;
    const daemon = host.spawn('wireguard-go', ['wireguard-go', device], {
      WG_PROCESS_FOREGROUND: '1',
      LOG_LEVEL: 'error',
    });
    lab.log(`wireguard-go in ${host.name}`, () => daemon.output);
    lab.defer(() => daemon.stop());
    await waitFor('wireguard-go to answer', async () => {
      if (!daemon.alive) throw new Error(`wireguard-go ended:\n${daemon.output}`);
      return (await host.exec(['wg', 'show', device], { check: false })).code === 0 ? true : undefined;
    });
    await host.exec([
      ...['wg', 'set', device, 'listen-port', String(WIREGUARD_PORT), 'private-key', keys[side].file],
      ...['peer', keys[remote].publicKey, 'allowed-ips', INNER_PREFIX[remote]],
      ...['endpoint', `${OUTER[remote]}:${WIREGUARD_PORT}`],
    ]);
    await host.ip([`link set ${device} up`, `route add ${INNER_PREFIX[remote]} dev ${device} src ${INNER[side]}`]);
    processes.push(daemon.pid);
  }
  return { line: innerLine(hosts), processes };
}

async function makeKeys(lab: Lab, side: Side): Promise<{ readonly file: string; readonly publicKey: string }> {
  const file = join(lab.folder, `wireguard-${side}.key`);
  const { stdout: key } = await run(['wg', 'genkey']);
  writeFileSync(file, key, { mode: 0o600 });
  const { stdout } = await run(['wg', 'pubkey'], { input: key });
  return { file, publicKey: stdout.trim() };
}

async function startBare(lab: Lab): Promise<Running> {
  const { left, right } = await buildHosts(lab);
  return { line: { left, right, source: OUTER.left, destination: OUTER.right }, processes: [] };
}

/** Versions of all that takes part. */
export async function versions(): Promise<Readonly<Record<string, string>>> {
  return {
    sectunnel: (await firstLine(['git', 'describe', '--always', '--dirty'])) ?? 'unknown',
    'libipsec-mb': await packageVersion('libipsec-mb1'),
    openssl: process.versions.openssl,
    strongswan: await packageVersion('strongswan-swanctl'),
    'wireguard-go': await packageVersion('wireguard-go'),
    iperf3: await packageVersion('iperf3'),
  };
}

async function packageVersion(name: string): Promise<string> {
  return (await firstLine(['dpkg-query', '-W', name]))?.split('\t')[1] ?? 'unknown';
}

/** `undefined` when the program fails, or is not there. */
async function firstLine(argv: readonly string[]): Promise<string | undefined> {
  const { code, stdout } = await run(argv, { check: false }).catch(() => ({ code: 1, stdout: '' }));
  return code === 0 ? stdout.split('\n')[0] : undefined;
}
