/**
 * Two gateways of ours with many tunnels between them, and a client behind the left one. The left network is the same for all
 * tunnels, as at a hub; at the right each tunnel has a network of its own, over IPv4 and over IPv6 in turn. One in ten
 * protects a protocol alone, which takes rules and a routing table of its own.
 *
 * ```text
 * client ── left ══ many tunnels ══ right
 * ```
 *
 * Both gateways route the inner networks to each other beside the tunnels, so only the policies keep packets from passing in
 * the clear.
 */
import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { DaemonClient } from '../../src/control/client.ts';
import { Capture } from '../support/lab/capture.ts';
import type { Lab } from '../support/lab/lab.ts';
import { addressCommand, cable } from '../support/lab/namespace.ts';
import { Ours, type OursOptions, sectunnelDocument } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { Sweep } from '../support/lab/traffic.ts';
import type { Side, Tunnel } from '../support/lab/tunnel.ts';
import type { Gateways } from './gateways.ts';

/** Which device tunnels have. */
export type DeviceKind = 'a device each' | 'one shared device';

const SECRET = '11111111-2222-3333-4444-5555555555c1';
const PSK = 'a pre-shared key of many tunnels';
const OUTER: Readonly<Record<Side, string>> = { left: '192.0.2.1', right: '192.0.2.2' };
/** The left network, the gateway in it, and the client. */
const LEFT = {
  4: { network: '10.1.0.0/24', gateway: '10.1.0.1', client: '10.1.0.7' },
  6: { network: 'fd01::/64', gateway: 'fd01::1', client: 'fd01::7' },
} as const;
const FAMILIES = [4, 6] as const;
/** Packets between the inner networks that no tunnel carries. */
const CLEAR = '(net 10.1.0.0/24 and net 10.2.0.0/15) or (net fd01::/64 and net fd02::/32)';
/** Nothing listens there: what comes through a tunnel is refused by an ICMP error, through the tunnel. */
const PORT = 9;
/** Milliseconds between two packets of one of four senders. */
const SWEEP_PAUSE = 10;
/** Bytes of a list of packets. */
const MAX_LISTED = 1 << 28;

const execFileSoon = promisify(execFile);

export interface ManyTunnels extends Gateways {
  readonly count: number;
}

function familyOf(tunnel: number): 4 | 6 {
  return tunnel % 2 === 0 ? 4 : 6;
}

export function nameOf(tunnel: number): string {
  return `many${tunnel}`;
}

/** The protected network at the right. */
export function rightNetwork(tunnel: number): string {
  if (familyOf(tunnel) === 6) return `fd02:0:0:${tunnel.toString(16)}::/64`;
  return `10.${2 + (tunnel >> 8)}.${tunnel & 0xff}.0/24`;
}

/** A host there. */
export function rightHost(tunnel: number): string {
  const [network] = rightNetwork(tunnel).split('/');
  return familyOf(tunnel) === 6 ? `${network}1` : network!.replace(/0$/, '1');
}

export function leftGateway(tunnel: number): string {
  return LEFT[familyOf(tunnel)].gateway;
}

export function leftClient(tunnel: number): string {
  return LEFT[familyOf(tunnel)].client;
}

function tunnelOf(number: number): Tunnel {
  const end = (side: Side, inner: string): Tunnel['left'] => ({
    address: OUTER[side],
    id: { type: 'fqdn', value: `${nameOf(number)}.${side}.example` },
    inner: [inner],
    psk: PSK,
  });
  return {
    name: nameOf(number),
    left: end('left', LEFT[familyOf(number)].network),
    right: end('right', rightNetwork(number)),
    ike: { encryption: 'aes128gcm16', prf: 'sha256', dh: 'x25519' },
    esp: { encryption: 'aes128gcm16', esn: 'no' },
  };
}

/** Whether it protects UDP alone. */
export function isForUdp(tunnel: number): boolean {
  return tunnel % 10 === 4;
}

function documentOf(tunnel: number, side: Side, kind: DeviceKind): string {
  const start = side === 'left' ? 'initiate' : 'respond';
  const document = sectunnelDocument(tunnelOf(tunnel), side, { start }, SECRET);
  const own = isForUdp(tunnel) ? document.replace("protocol='any'", "protocol='udp'") : document;
  return kind === 'a device each' ? own : own.replace('</name>', "</name><device name='hub'/>");
}

function each<T>(count: number, make: (tunnel: number) => T): T[] {
  return Array.from({ length: count }, (_, tunnel) => make(tunnel));
}

/** @param options of the left daemon */
export async function buildMany(lab: Lab, count: number, options: OursOptions = {}): Promise<ManyTunnels> {
  const [client, left, right] = [
    await lab.namespace('client'),
    await lab.namespace('left'),
    await lab.namespace('right'),
  ];
  await cable(
    { namespace: left, device: 'eth0', addresses: [`${OUTER.left}/24`, '2001:db8::1/64'] },
    { namespace: right, device: 'eth0', addresses: [`${OUTER.right}/24`, '2001:db8::2/64'] },
  );
  await cable(
    {
      namespace: client,
      device: 'eth0',
      addresses: FAMILIES.map((family) => `${LEFT[family].client}/${family === 4 ? 24 : 64}`),
    },
    {
      namespace: left,
      device: 'lan0',
      addresses: FAMILIES.map((family) => `${LEFT[family].gateway}/${family === 4 ? 24 : 64}`),
    },
  );
  await right.ip(
    each(count, (tunnel) => addressCommand(`${rightHost(tunnel)}/${familyOf(tunnel) === 4 ? 32 : 128}`, 'lo')),
  );
  await client.ip(FAMILIES.map((family) => `route add default via ${LEFT[family].gateway}`));
  await left.ip(['route add 10.2.0.0/15 via 192.0.2.2', 'route add fd02::/32 via 2001:db8::2']);
  await right.ip(['route add 10.1.0.0/24 via 192.0.2.1', 'route add fd01::/64 via 2001:db8::1']);
  const forwarding = ['ipv4/ip_forward', 'ipv6/conf/all/forwarding'];
  await left.exec(['sh', '-c', forwarding.map((file) => `echo 1 >/proc/sys/net/${file}`).join('; ')]);
  const daemon = { arguments: ['--log-level', 'warn'] };
  const [ours, theirs] = [await Ours.start(lab, left, { ...daemon, ...options }), await Ours.start(lab, right, daemon)];
  for (const end of [ours, theirs]) await end.secret(PSK, SECRET);
  return { lab, client, left, right, ours, theirs, count };
}

/** Writes the documents of one side into a folder. @param tunnels all when left out @returns the folder */
export function writeDocuments(
  { lab, count }: ManyTunnels,
  side: Side,
  { kind, tunnels = each(count, (tunnel) => tunnel) }: { kind: DeviceKind; tunnels?: readonly number[] },
): string {
  const folder = join(lab.folder, `${side}-documents`);
  mkdirSync(folder, { recursive: true });
  for (const tunnel of tunnels) {
    writeFileSync(join(folder, `${nameOf(tunnel)}.xml`), documentOf(tunnel, side, kind));
  }
  return folder;
}

/** Waits until all tunnels are up. */
export async function allUp({ ours, count }: ManyTunnels, timeout = 60_000): Promise<void> {
  const client = new DaemonClient(ours.runDir);
  try {
    await waitFor(
      `${count} tunnels to be up`,
      async () => {
        const { tunnels } = await client.call('list', { active: true });
        return tunnels.filter(({ state }) => state === 'up').length === count || undefined;
      },
      timeout,
      200,
    );
  } finally {
    client.close();
  }
}

/** A packet in the clear. */
export interface ClearPacket {
  /** Milliseconds since 1970. */
  readonly at: number;
  /** As tcpdump prints it. */
  readonly text: string;
}

/**
 * Packets in the clear on the cable while something happens under traffic of the gateway and of the client for all tunnels.
 * @param action gets a function that waits until each of both has sent to each tunnel
 */
export async function clearDuring(
  many: ManyTunnels,
  action: (round: () => Promise<void>) => Promise<unknown>,
): Promise<ClearPacket[]> {
  const { lab, left, client, count } = many;
  const capture = await Capture.start(lab, left, 'eth0');
  const senders = FAMILIES.flatMap((family) => {
    const destinations = each(count, (tunnel) => tunnel)
      .filter((tunnel) => familyOf(tunnel) === family)
      .map(rightHost);
    const options = { destinations, port: PORT, pause: SWEEP_PAUSE };
    const { gateway, client: behind } = LEFT[family];
    return [
      Sweep.start(lab, left, { source: gateway, ...options }),
      Sweep.start(lab, client, { source: behind, ...options }),
    ];
  });
  const sweeps = await Promise.all(senders);
  try {
    await action(async () => {
      await Promise.all(sweeps.map((sweep) => sweep.round()));
    });
  } finally {
    for (const sweep of sweeps) await sweep.stop();
  }
  await capture.stop();
  const { stdout } = await execFileSoon('tcpdump', ['-n', '-tt', '-r', capture.file, CLEAR], { maxBuffer: MAX_LISTED });
  return stdout
    .split('\n')
    .filter((text) => text !== '')
    .map((text) => ({ at: 1000 * Number.parseFloat(text), text }))
    .filter((packet) => !(isForUdp(tunnelOfPacket(packet)) && packet.text.includes('ICMP')));
}

/** Whom a packet goes to, or comes from: the tunnel that is for it. */
export function tunnelOfPacket({ text }: ClearPacket): number {
  const ipv4 = /\b10\.([2-3])\.(\d+)\.1\b/.exec(text);
  if (ipv4 !== null) return (Number(ipv4[1]) - 2) * 256 + Number(ipv4[2]);
  const ipv6 = /\bfd02:0:0:([0-9a-f]+)::1\b|\bfd02::1\b/.exec(text);
  if (ipv6 === null) throw new Error(`a packet of no tunnel: ${text}`);
  return Number.parseInt(ipv6[1] ?? '0', 16);
}
