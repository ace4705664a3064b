/**
 * Two gateways with many tunnels between them, and two hosts whose packets the left one forwards and no tunnel concerns.
 *
 * ```text
 * near ── left ══ many tunnels ══ right
 * far  ──┘
 * ```
 *
 * Tunnel number n protects a range of four addresses at the left against one at the right; both sides have a range of
 * their own for each tunnel.
 */
import { DaemonClient } from '../../src/control/client.ts';
import type { Lab } from '../../test/support/lab/lab.ts';
import { cable, type Namespace } from '../../test/support/lab/namespace.ts';
import { Ours, sectunnelDocument } from '../../test/support/lab/ours.ts';
import type { Side, Tunnel, TunnelEnd } from '../../test/support/lab/tunnel.ts';
import type { Line } from '../tunnel/load.ts';

const OUTER: Readonly<Record<Side, string>> = { left: '192.0.2.1', right: '192.0.2.2' };
/** First octets of the protected addresses. */
const INNER: Readonly<Record<Side, number>> = { left: 10, right: 11 };
const SIDES = ['left', 'right'] as const;
/** Addresses of a tunnel at each side. */
const RANGE = 4;

export interface Gateway {
  readonly ours: Ours;
  readonly documents: readonly string[];
  readonly names: readonly string[];
  client(): DaemonClient;
}

export interface Gateways {
  readonly left: Gateway;
  readonly right: Gateway;
  /** Through one tunnel. */
  line(tunnel: number): Promise<Line>;
  /** What the left gateway forwards and no tunnel concerns. */
  readonly unconcerned: { readonly from: Namespace; readonly to: string };
}

/** Two daemons with a secret each, and nothing defined. */
export async function startGateways(lab: Lab, count: number): Promise<Gateways> {
  const hosts = { left: await lab.namespace('left'), right: await lab.namespace('right') };
  const [left, right] = SIDES.map((side) => ({
    namespace: hosts[side],
    device: 'eth0',
    addresses: [`${OUTER[side]}/24`],
  }));
  await cable(left!, right!);
  const near = await attach(lab, hosts.left, { label: 'near', net: '198.51.100' });
  await attach(lab, hosts.left, { label: 'far', net: '203.0.113' });
  await hosts.left.exec(['sysctl', '-qw', 'net.ipv4.ip_forward=1']);
  const gateways = {
    left: await startGateway(lab, hosts.left, 'left', count),
    right: await startGateway(lab, hosts.right, 'right', count),
  };
  const addressed = new Set<number>();
  const line = async (tunnel: number): Promise<Line> => {
    const ends = SIDES.map((side) => innerAddress(side, tunnel, 1));
    if (!addressed.has(tunnel)) {
      addressed.add(tunnel);
      for (const [at, side] of SIDES.entries()) await hosts[side].ip([`addr add ${ends[at]}/32 dev lo`]);
    }
    return { ...hosts, source: ends[0]!, destination: ends[1]! };
  };
  return { ...gateways, line, unconcerned: { from: near, to: '203.0.113.2' } };
}

/** A host behind a gateway. */
async function attach(
  lab: Lab,
  gateway: Namespace,
  { label, net }: { readonly label: string; readonly net: string },
): Promise<Namespace> {
  const host = await lab.namespace(label);
  await cable(
    { namespace: host, device: 'eth0', addresses: [`${net}.2/24`] },
    { namespace: gateway, device: label, addresses: [`${net}.1/24`] },
  );
  await host.ip([`route add default via ${net}.1`]);
  return host;
}

async function startGateway(lab: Lab, namespace: Namespace, side: Side, count: number): Promise<Gateway> {
  const ours = await Ours.start(lab, namespace, {
    arguments: ['--log-level', 'warn'],
  });
  const secret = await ours.secret(PSK);
  const tunnels = Array.from({ length: count }, (_, number) => tunnelOf(number));
  const start = side === 'left' ? 'initiate' : 'respond';
  return {
    ours,
    documents: tunnels.map((tunnel) => sectunnelDocument(tunnel, side, { start }, secret)),
    names: tunnels.map(({ name }) => name),
    client: () => new DaemonClient(ours.runDir),
  };
}

const PSK = 'kX3vQ9dLw7-a-key-for-benchmarks-alone-Tz81';

function tunnelOf(number: number): Tunnel {
  return {
    name: `site${number}`,
    left: endOf('left', number),
    right: endOf('right', number),
    ike: { encryption: 'aes128gcm16', prf: 'sha256', dh: 'x25519' },
    esp: { encryption: 'aes128gcm16', esn: 'no' },
  };
}

function endOf(side: Side, number: number): TunnelEnd {
  return {
    address: OUTER[side],
    id: { type: 'fqdn', value: `site${number}.${side}.example.org` },
    inner: [`${innerAddress(side, number, 0)}/30`],
    psk: PSK,
  };
}

function innerAddress(side: Side, tunnel: number, host: number): string {
  const value = tunnel * RANGE + host;
  return [INNER[side], value >> 16, (value >> 8) & 0xff, value & 0xff].join('.');
}
