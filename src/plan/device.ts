/** From a document to its device, and to the policy routing and the fence around it. */

import type { IpAddress } from '../base/address.ts';
import { MIN_MTU } from '../base/mtu.ts';
import { IKE_PORT } from '../base/ports.ts';
import type { PeerSettings, SectunnelDocument } from '../config/model.ts';
import { toChildren, toPolicy } from '../config/selectors.ts';
import { ELSEWHERE } from '../hostnet/fence/fence.ts';
import { policyBoxes, type RoutingPlan } from '../hostnet/steering/plan.ts';
import { hostsOf } from '../policy/transport.ts';
import { documentClaims } from './overlaps.ts';

/**
 * The device that a document asks for: give it to `Platform.openDevice`, or read its MTU for a device of your own.
 */
export interface DevicePlan {
  /** Whose device it is. */
  readonly tunnel: string;
  /** Number of readers and writers; one when left out. */
  readonly queues?: number;
  readonly name: string;
  readonly mtu: number;
  /** The network namespace that it is for, by name or path; left out: that of the daemon, where the sockets are. */
  readonly netns: string | undefined;
  /** The VRF there that the device is put into; left out: it stays in the default domain. */
  readonly vrf?: string | undefined;
  /** What is routed into it, and kept from passing elsewhere; nothing when left out. @internal */
  readonly routing: RoutingPlan | undefined;
}

/** A tunnel of which fence, rules and routes may stand. */
export interface InstalledTunnel {
  readonly tunnel: string;
  /** `undefined` when it is not known, as no document of the tunnel can be read: then nothing counts as another tunnel's. @internal */
  readonly routing: RoutingPlan | undefined;
  readonly netns: string | undefined;
}

/** @param peer the other end, where it is known */
export function devicePlan(document: SectunnelDocument, fittingMtu: number, peer: IpAddress | undefined): DevicePlan {
  const { name, device } = document;
  return {
    tunnel: name,
    name: device.name,
    mtu: device.mtu ?? fittingMtu,
    netns: device.netns,
    vrf: device.vrf,
    routing: device.routes === 'auto' ? routingPlan(document, peer) : undefined,
  };
}

/** What is known before a tunnel is started: no name is resolved. */
export function unresolvedDevicePlan(document: SectunnelDocument): DevicePlan {
  const { address } = document.sa.remote;
  return devicePlan(document, MIN_MTU[6], address.kind === 'ip' ? address.address : undefined);
}

function routingPlan(document: SectunnelDocument, peer: IpAddress | undefined): RoutingPlan {
  const { name, sa } = document;
  const { entries } = toPolicy(document);
  const [transport] = toChildren(document).filter(({ mode }) => mode === 'transport');
  const hosts = transport && hostsOf(transport.selectors);
  return {
    tunnel: name,
    table: document.device.table,
    vrf: document.device.vrf,
    own: areTogether(document)
      ? { peer: peer ?? hosts?.remote, ports: ikePorts(sa, sa.local), peerPorts: ikePorts(sa, sa.remote) }
      : ELSEWHERE,
    outbound: policyBoxes(entries, 'out'),
    inbound: policyBoxes(entries, 'in'),
    claims: documentClaims(document),
    redundancy: sa.redundancy,
    host: hosts?.local,
  };
}

/** Whether IKE and ESP of a tunnel are in the routing domain of its device. */
function areTogether({ device, sa }: SectunnelDocument): boolean {
  return device.vrf === sa.vrf;
}

/** UDP ports of IKE and of ESP in UDP at one end. IKE may use 500 whatever a document says. */
function ikePorts({ ike }: SectunnelDocument['sa'], { port }: PeerSettings): number[] {
  return [...new Set([IKE_PORT, port, ...(ike.nat.encapsulation === 'never' ? [] : [ike.nat.port])])];
}

/** What may remain of a tunnel when its daemon has died; `undefined` when nothing remains. */
export function installedTunnel(document: SectunnelDocument): InstalledTunnel | undefined {
  const { tunnel, routing, netns } = unresolvedDevicePlan(document);
  return routing && { tunnel, routing, netns };
}
