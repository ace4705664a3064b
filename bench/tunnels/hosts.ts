/**
 * Two hosts for gateways, and behind each two hosts whose packets it forwards and no tunnel concerns.
 *
 * ```text
 * near ──┐                         ┌── near
 *        left ══ many tunnels ══ right
 * far  ──┘                         └── far
 * ```
 */
import type { Lab } from '../../test/support/lab/lab.ts';
import { cable, type Namespace } from '../../test/support/lab/namespace.ts';
import type { Side } from '../../test/support/lab/tunnel.ts';
import type { Line } from '../tunnel/load.ts';
import { innerAddress, OUTER, type Shape, SIDES } from './shape.ts';

const NEAR = '198.51.100';
const FAR = '203.0.113';
/** Behind the far host, which forwards nothing: it drops what comes, and answers nothing. */
const BEYOND = '198.18.0';

export interface Hosts {
  readonly gateways: Readonly<Record<Side, Namespace>>;
  /** Hosts that send `UNCONCERNED` packets through the gateway of a side. */
  readonly near: Readonly<Record<Side, Namespace>>;
}

/** What a gateway forwards from its near to its far host. */
export const UNCONCERNED: { readonly source: string; readonly destination: string } = {
  source: `${NEAR}.2`,
  destination: `${BEYOND}.1`,
};

export async function buildHosts(lab: Lab, shape: Shape, count: number): Promise<Hosts> {
  const gateways = { left: await lab.namespace('left'), right: await lab.namespace('right') };
  const [left, right] = SIDES.map((side) => ({
    namespace: gateways[side],
    device: 'eth0',
    addresses: [`${OUTER[side]}/24`],
  }));
  await cable(left!, right!);
  for (const side of SIDES) {
    await gateways[side].exec(['sysctl', '-qw', 'net.ipv4.ip_forward=1']);
    // strongSwan wants an address of its own in each network that it protects.
    const addresses = new Set(Array.from({ length: count }, (_, tunnel) => innerAddress(shape, side, tunnel)));
    await gateways[side].ip([...addresses].map((address) => `addr add ${address}/32 dev lo`));
  }
  const near = { left: await attachBoth(lab, gateways.left), right: await attachBoth(lab, gateways.right) };
  return { gateways, near };
}

/** @returns the near one */
async function attachBoth(lab: Lab, gateway: Namespace): Promise<Namespace> {
  await attach(lab, gateway, 'far', FAR);
  await gateway.ip([`route add ${BEYOND}.0/24 via ${FAR}.2`]);
  return await attach(lab, gateway, 'near', NEAR);
}

async function attach(lab: Lab, gateway: Namespace, label: string, net: string): Promise<Namespace> {
  const host = await lab.namespace(label);
  await cable(
    { namespace: host, device: 'eth0', addresses: [`${net}.2/24`] },
    { namespace: gateway, device: label, addresses: [`${net}.1/24`] },
  );
  await host.ip([`route add default via ${net}.1`]);
  return host;
}

/** Through one tunnel. */
export function lineThrough({ gateways }: Hosts, shape: Shape, tunnel: number): Line {
  const [source, destination] = SIDES.map((side) => innerAddress(shape, side, tunnel));
  return { ...gateways, source: source!, destination: destination! };
}
