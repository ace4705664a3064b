/** From a document to its device, and to what leads packets into it and keeps them from passing in the clear. */
import type { IpAddress } from '../base/address.ts';
import { MIN_MTU } from '../base/mtu.ts';
import type { PeerSettings, SectunnelDocument } from '../config/model.ts';
import { toChildren, toPolicy } from '../config/selectors.ts';
import type { DevicePlan, StandingTunnel } from '../host/platform.ts';
import { policyBoxes, type SteeringPlan } from '../hostnet/steering/plan.ts';
import { hostsOf } from '../policy/transport.ts';
import { documentClaims } from './overlaps.ts';
import { tableOf } from './transport.ts';

/** @param peer the other end, where it is known */
export function devicePlan(document: SectunnelDocument, fittingMtu: number, peer: IpAddress | undefined): DevicePlan {
  const { name, device } = document;
  return {
    tunnel: name,
    name: device.name,
    mtu: device.mtu ?? fittingMtu,
    netns: device.netns,
    steering: device.routes === 'auto' ? steeringPlan(document, peer) : undefined,
  };
}

/** As much as is known before a tunnel is started: no name is resolved. */
export function standingPlan(document: SectunnelDocument): DevicePlan {
  const { address } = document.sa.remote;
  return devicePlan(document, MIN_MTU[6], address.kind === 'ip' ? address.address : undefined);
}

function steeringPlan(document: SectunnelDocument, peer: IpAddress | undefined): SteeringPlan {
  const { name, sa } = document;
  const { entries } = toPolicy(document);
  const [transport] = toChildren(document).filter(({ mode }) => mode === 'transport');
  const hosts = transport && hostsOf(transport.selectors);
  return {
    tunnel: name,
    table: tableOf(document),
    own: { peer: peer ?? hosts?.remote, ports: ikePorts(sa, sa.local), peerPorts: ikePorts(sa, sa.remote) },
    outbound: policyBoxes(entries, 'out'),
    inbound: policyBoxes(entries, 'in'),
    claims: documentClaims(document),
    redundancy: sa.redundancy,
    host: hosts?.local,
  };
}

/** UDP ports of IKE at one end, and of ESP in UDP. IKE may be met on 500 whatever a document says. */
function ikePorts({ ike }: SectunnelDocument['sa'], { port }: PeerSettings): number[] {
  return [...new Set([500, port, ...(ike.nat.encapsulation === 'never' ? [] : [ike.nat.port])])];
}

/** What may stand of a tunnel when its daemon has died; `undefined` when it leaves nothing standing. */
export function standingTunnel(document: SectunnelDocument): StandingTunnel | undefined {
  const { name, device } = document;
  if (device.routes === 'none') return undefined;
  return { tunnel: name, table: tableOf(document), netns: device.netns };
}
