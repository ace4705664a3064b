/** Warnings about a document on this host: what it cuts off, and sides that look swapped. */

import {
  addressBits,
  formatAddress,
  formatRange,
  type IpAddress,
  intersectRanges,
  prefixRange,
  rangeContains,
} from '../base/address.ts';
import { isWhole } from '../base/ranges.ts';
import { listSome } from '../base/text.ts';
import type { SectunnelDocument } from '../config/model.ts';
import { toPolicy } from '../config/selectors.ts';
import type { InterfaceAddress } from '../hostnet/routes/routes.ts';
import type { RoutingPlan } from '../hostnet/steering/plan.ts';
import { orderPolicy, type PolicyEntry } from '../policy/database.ts';
import { Protocol } from '../policy/protocols.ts';
import { isAnyPorts, type TrafficSelector } from '../policy/selector.ts';
import { unresolvedDevicePlan } from './device.ts';
import { cutOffNetworks, cutOffText, type HostAround } from './own-networks.ts';

/** BOUNDED: networks of this host that a warning names. */
const MAX_NAMED = 6;

/** @param around the tunnel's namespace; `undefined` where it is not known */
export function hostWarnings(document: SectunnelDocument, around: HostAround | undefined): string[] {
  const { routing } = unresolvedDevicePlan(document);
  if (routing === undefined) return [];
  const own = (around?.routing.addresses() ?? []).filter(({ address }) => !isOfLink(address));
  const { entries } = toPolicy(document);
  const outbound = orderPolicy(entries, 'out');
  const protecting = outbound.filter(({ action }) => action === 'protect');
  return [
    ...protecting.flatMap((entry) => [...cutOffWarning(entry, outbound, own), ...swappedWarning(entry, outbound, own)]),
    ...(around === undefined ? [] : networkWarnings(routing, protecting, own, around)),
  ];
}

/** For networks of this host that lie within protected destinations. */
function networkWarnings(
  routing: RoutingPlan,
  protecting: readonly PolicyEntry[],
  own: readonly InterfaceAddress[],
  around: HostAround,
): string[] {
  const found = cutOffNetworks(routing, own, around).flatMap((network) => {
    const isFor = ({ level, selectors }: PolicyEntry): boolean =>
      level !== 'use' && selectors.remote.some(({ range }) => intersectRanges(range, network.range) !== undefined);
    const entry = protecting.find(isFor);
    return entry === undefined ? [] : [`${where(entry)}: ${cutOffText(network, entry)}`];
  });
  const more = found.length - MAX_NAMED;
  return more <= 0
    ? found
    : [...found.slice(0, MAX_NAMED), `${more} more networks of this host lie within protected destinations`];
}

/** For a policy for everything: what else this host communicates with. */
function cutOffWarning(
  entry: PolicyEntry,
  outbound: readonly PolicyEntry[],
  own: readonly InterfaceAddress[],
): string[] {
  const { local, remote } = entry.selectors;
  const families = ([4, 6] as const).filter((family) => [local, remote].every((side) => side.some(isAll(family))));
  if (families.length === 0 || entry.level === 'use') return [];
  const passed = outbound.filter(({ action, priority }) => action === 'bypass' && priority > entry.priority);
  const networks = own
    .filter(({ address: { family }, prefixLength }) => families.includes(family) && prefixLength < addressBits(family))
    .map(({ address, prefixLength }) => prefixRange(address, prefixLength))
    .filter(
      ({ start, end }) =>
        !passed.some(({ selectors }) =>
          selectors.remote.some(({ range }) => rangeContains(range, start) && rangeContains(range, end)),
        ),
    );
  const names = [...new Set(networks.map(formatRange))];
  const among = names.length === 0 ? '' : ` (${listSome(names, MAX_NAMED)})`;
  return [
    `${where(entry)} protects all packets of IPv${families.join(' and IPv')}, from and to any address: this host loses what the peer does not forward, and ` +
      `everything while the tunnel is down: remote logins, name servers, and the networks of this host${among}. ` +
      "Name the ranges to protect, or exempt what must keep working by an <sp> with action='none' and a higher priority",
  ];
}

/** `src_range` is this side, also of what comes in. An address that an entry lets pass is there on purpose. */
function swappedWarning(
  entry: PolicyEntry,
  outbound: readonly PolicyEntry[],
  own: readonly InterfaceAddress[],
): string[] {
  const { local, remote } = entry.selectors;
  if ([...local, ...remote].some(({ range }) => isWhole(range))) return [];
  const passing = outbound.filter(({ action }) => action === 'bypass').flatMap(({ selectors }) => selectors.local);
  const holds = (
    side: readonly TrafficSelector[],
    besides: readonly TrafficSelector[] = [],
  ): InterfaceAddress | undefined =>
    own.find(({ address }) => {
      const isIn = ({ range }: TrafficSelector): boolean => rangeContains(range, address);
      return side.some(isIn) && !besides.some(isIn);
    });
  const there = holds(remote, passing);
  if (there === undefined || holds(local) !== undefined) return [];
  return [
    `${where(entry)}: ${formatAddress(there.address)} of this host is in the ranges of the other side, and no address of it in those of ` +
      "this side: the sides look swapped. For direction 'both' and 'out' <src_range> is this side, <dst_range> the other",
  ];
}

function where({ line, name }: PolicyEntry): string {
  return `${line === undefined ? '' : `line ${line}: `}<sp name='${name}'>`;
}

function isAll(family: 4 | 6): (selector: TrafficSelector) => boolean {
  return (selector) =>
    selector.range.start.family === family &&
    isWhole(selector.range) &&
    selector.protocol === Protocol.any &&
    isAnyPorts(selector);
}

/** Loopback, or of its link alone: what is said there stays there. */
function isOfLink({ family, value }: IpAddress): boolean {
  return family === 4 ? value >> 24n === 127n || value >> 16n === 0xa9fen : value === 1n || value >> 118n === 0x3fan;
}
