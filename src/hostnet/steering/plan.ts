/**
 * What the kernel needs of a policy: its entries as boxes of addresses, protocol and ports, in the policy's order (RFC 4301
 * §4.4.1), and what identifies the tunnel's own packets.
 */

import { type AddressRange, intersectRanges } from '../../base/address.ts';
import { orderPolicy, type PolicyAction, type PolicyEntry, type PolicyLevel } from '../../policy/database.ts';
import type { Direction } from '../../policy/direction.ts';
import type { Claims } from '../../policy/precedence.ts';
import { hasPorts, isIcmp, Protocol } from '../../policy/protocols.ts';
import {
  intersectPorts,
  intersectProtocol,
  isAnyPorts,
  isOpaquePorts,
  type TrafficSelector,
} from '../../policy/selector.ts';
import type { FenceEntry, OwnPackets, PacketBox } from '../fence/fence.ts';
import type { PortRange } from '../routes/routes.ts';

/** What the number of a tunnel's own table follows from. */
export type TableWish = Pick<RoutingPlan, 'tunnel' | 'table'>;

/** A pair of selectors of a policy entry. */
export interface PolicyBox extends PacketBox {
  readonly action: PolicyAction;
  readonly level: PolicyLevel;
  /** The child SA configuration that protects. */
  readonly child: string | undefined;
}

export interface RoutingPlan {
  /** The tunnel that owns the rules and routes. */
  readonly tunnel: string;
  /** The routing table that the document names; the tunnel's alone. `undefined`: whichever is free, or one that it shares. */
  readonly table: number | undefined;
  /** The VRF of the packets that it is for; left out: the default domain. */
  readonly vrf?: string | undefined;
  readonly own: OwnPackets;
  readonly outbound: readonly PolicyBox[];
  readonly inbound: readonly PolicyBox[];
  /** What tunnels are ordered by. */
  readonly claims: Claims;
  readonly redundancy: { readonly group: string; readonly preference: number } | undefined;
  /** In transport mode packets come from here alone: it must be an address of this host. */
  readonly host: AddressRange['start'] | undefined;
}

/** The boxes of one direction, in order. */
export function policyBoxes(entries: readonly PolicyEntry[], direction: Direction): PolicyBox[] {
  return orderPolicy(entries, direction).flatMap(({ selectors, action, level, child }) =>
    selectors.local.flatMap((local) =>
      selectors.remote.flatMap((remote) => {
        const box = boxOf(local, remote);
        return box === undefined ? [] : [{ action, level, child, ...box }];
      }),
    ),
  );
}

/** The packets that fit both; `undefined` when none do. */
function boxOf(local: TrafficSelector, remote: TrafficSelector): PacketBox | undefined {
  const protocol = intersectProtocol(local.protocol, remote.protocol);
  if (protocol === undefined || local.range.start.family !== remote.range.start.family) return undefined;
  const common = isIcmp(protocol) ? intersectPorts(local, remote) : undefined;
  if (isIcmp(protocol) && common === undefined) return undefined;
  return {
    local: local.range,
    remote: remote.range,
    protocol: protocol === Protocol.any ? undefined : protocol,
    localPorts: hasPorts(protocol) ? portRange(local) : undefined,
    remotePorts: hasPorts(protocol) ? portRange(remote) : undefined,
    icmp: common && portRange(common),
  };
}

/** The kernel cannot match hidden (OPAQUE) ports. */
function portRange(ports: Pick<TrafficSelector, 'startPort' | 'endPort'>): PortRange | undefined {
  return isAnyPorts(ports) || isOpaquePorts(ports) ? undefined : { start: ports.startPort, end: ports.endPort };
}

/** Whether types of ICMP are to pass in the clear that a later entry would route into the device. */
export function needsPassMark(outbound: readonly PolicyBox[], at: number): boolean {
  const box = outbound[at]!;
  return passesIcmp(box) && outbound.slice(at + 1).some((other) => routesIntoDevice(other, box));
}

/** Whether its packets never pass in the clear. */
export function isRequired({ action, level }: PolicyBox): boolean {
  return action === 'protect' && level !== 'use';
}

/** Whether fragments without ports may belong to what it protects. */
export function needsDeviceMark(box: PolicyBox): boolean {
  return isRequired(box) && (box.localPorts ?? box.remotePorts) !== undefined;
}

function passesIcmp({ action, icmp }: PolicyBox): boolean {
  return action === 'bypass' && icmp !== undefined;
}

function routesIntoDevice(box: PolicyBox, packets: PolicyBox): boolean {
  return (
    box.action !== 'bypass' &&
    (box.protocol === undefined || box.protocol === packets.protocol) &&
    intersectRanges(box.remote, packets.remote) !== undefined &&
    intersectRanges(box.local, packets.local) !== undefined
  );
}

/** With level `use` packets pass in the clear when there is no SA. */
export function fenceEntry({ action, level, child: _, ...box }: PolicyBox): FenceEntry {
  if (action === 'protect') return { action: level === 'use' ? 'pass' : 'guard', ...box };
  return { action: action === 'bypass' ? 'pass' : 'discard', ...box };
}
