/**
 * The part of some selectors that no SA carries yet, as one pair of selectors to propose for a further CHILD SA: a peer may
 * accept only one pair of the configured ranges per SA, or less (RFC 7296 §2.9). Control path.
 */
import { canNarrow, canPair, narrow, pairable } from './narrow.ts';
import {
  containsPair,
  intersectSelector,
  isOpaquePorts,
  MAX_SELECTORS,
  makeSelector,
  type SelectorPair,
  sameSelector,
  type TrafficSelector,
} from './selector.ts';
import { without } from './without.ts';

/**
 * A part of `wanted` that overlaps none of `covered`; `undefined` when there is none. Of several parts the one with the most
 * local selectors comes first. Addresses for which one protocol or port is covered are left out: selectors cannot
 * express "all but TCP".
 */
export function uncovered(wanted: SelectorPair, covered: readonly SelectorPair[]): SelectorPair | undefined {
  const free = without(
    wanted.local,
    covered.flatMap(({ local }) => local),
  );
  const sides = [wanted.local, free, ...covered.map(({ local }) => narrow(local, wanted.local))];
  for (const local of sides) {
    const meeting = covered.filter((one) => canNarrow({ local, remote: wanted.remote }, one));
    const remote = without(
      wanted.remote,
      meeting.flatMap((one) => one.remote),
    );
    const left = pairable({ local, remote });
    if (left.remote.length > 0) return left;
  }
  return undefined;
}

/**
 * A part of `wanted` that overlaps none of `covered` and contains a packet that none of them carries: whole ranges if
 * possible, else the packet alone.
 * @param packet one selector a side
 */
export function uncoveredAround(
  wanted: SelectorPair,
  covered: readonly SelectorPair[],
  packet: SelectorPair,
): SelectorPair {
  const { protocol } = packet.remote[0]!;
  const ofProtocol = (side: readonly TrafficSelector[]): TrafficSelector[] =>
    side.flatMap((selector) => intersectSelector(selector, makeSelector(selector.range, protocol)) ?? []);
  const narrower = { local: ofProtocol(wanted.local), remote: ofProtocol(wanted.remote) };
  for (const whole of [wanted, narrower]) {
    const left = cutAround(whole, covered, packet);
    if (containsPair(left, packet)) return left;
  }
  return packet;
}

/** The packet's selectors come first on both sides of an offer (RFC 7296 §2.9). */
export function packetFirst(packet: SelectorPair, { local, remote }: SelectorPair): SelectorPair {
  return { local: withFirst(packet.local[0]!, local), remote: withFirst(packet.remote[0]!, remote) };
}

/** A packet's selectors as an offer has them: ports that a fragment hides may be any. */
export function asTrigger({ local, remote }: SelectorPair): SelectorPair {
  const shown = (side: readonly TrafficSelector[]): TrafficSelector[] =>
    side.map((selector) => (isOpaquePorts(selector) ? makeSelector(selector.range, selector.protocol) : selector));
  return { local: shown(local), remote: shown(remote) };
}

/** How many CHILD SAs carry `wanted` where the peer takes one selector a side. */
export function pairsIn({ local, remote }: SelectorPair): number {
  return local.reduce((sum, mine) => sum + remote.filter((theirs) => canPair(mine, theirs)).length, 0);
}

/** An SA that does not carry the packet lacks it on one side at least: there the two part. */
function cutAround(wanted: SelectorPair, covered: readonly SelectorPair[], packet: SelectorPair): SelectorPair {
  let { local, remote } = wanted;
  for (const one of covered) {
    if (!canNarrow({ local, remote }, one)) continue;
    if (narrow(packet.remote, one.remote).length === 0) remote = without(remote, one.remote);
    else local = without(local, one.local);
  }
  return pairable({ local, remote });
}

function withFirst(first: TrafficSelector, side: readonly TrafficSelector[]): readonly TrafficSelector[] {
  if (side[0] !== undefined && sameSelector(side[0], first)) return side;
  return [first, ...side.filter((selector) => !sameSelector(selector, first))].slice(0, MAX_SELECTORS);
}
