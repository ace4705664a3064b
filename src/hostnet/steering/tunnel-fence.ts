/** The part of the fence around a tunnel, from what the kernel needs of its policy. Pure. */
import type { AddressRange } from '../../base/address.ts';
import type { TunnelFence } from '../fence/fence.ts';
import { anySourceEntries } from './any-source.ts';
import { fenceEntry, needsDeviceMark, needsPassMark, type PolicyBox, type RoutingPlan } from './plan.ts';

/** What is around the tunnel. */
export interface FenceSurroundings {
  /** Devices of other tunnels that may carry packets of its policy. */
  readonly beside?: readonly string[];
  /** Whether the local addresses of an entry are those of guests of this host. */
  readonly isOfGuests?: (local: AddressRange) => boolean;
}

export function tunnelFence(
  { vrf, own, outbound, inbound }: RoutingPlan,
  device: string,
  { beside = [], isOfGuests = () => false }: FenceSurroundings = {},
): TunnelFence {
  return {
    kind: 'tunnel',
    ...(vrf === undefined ? {} : { vrf }),
    device,
    beside,
    own,
    outbound: outbound.map(fenceEntry),
    inbound: inbound.map(fenceEntry),
    anySource: anySourceEntries(outbound, isOfGuests),
    marked: markedBoxes(outbound).map(fenceEntry),
  };
}

/** With more entries than these the destination alone decides, which needs no marks. */
const MAX_MARKED = 256;

/**
 * Entries for which packets are marked, and those before them: rules cannot match types of ICMP, nor the ports of later
 * fragments.
 */
export function markedBoxes(outbound: readonly PolicyBox[]): readonly PolicyBox[] {
  const last = outbound.findLastIndex((box, at) => needsPassMark(outbound, at) || needsDeviceMark(box));
  return last >= MAX_MARKED ? [] : outbound.slice(0, last + 1);
}
