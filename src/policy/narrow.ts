/**
 * Narrowing: what two sides' selectors have in common (RFC 7296 §2.9), and why they have nothing in common.
 * Control path.
 */
import { formatRange, intersectRanges } from '../base/address.ts';
import { hasSinglePort, Protocol, protocolName } from './protocols.ts';
import {
  containsSelector,
  formatPorts,
  formatSelectors,
  intersectPorts,
  intersectProtocol,
  intersectSelector,
  isOpaquePorts,
  MAX_SELECTORS,
  type SelectorPair,
  simplifySelectors,
  type TrafficSelector,
} from './selector.ts';

/**
 * What both lists allow: each proposed selector, in its order, cut to each configured one. No result is contained in
 * another. Of more than `MAX_SELECTORS`, those of the first proposed selectors stay, so that the selector of the
 * packet that triggered the negotiation (RFC 7296 §2.9) is never dropped.
 */
export function narrow(
  proposed: readonly TrafficSelector[],
  configured: readonly TrafficSelector[],
): TrafficSelector[] {
  const ours = simplifySelectors(configured.slice(0, MAX_SELECTORS));
  const common: TrafficSelector[] = [];
  for (const theirs of proposed.slice(0, MAX_SELECTORS)) {
    for (const our of ours) {
      const both = intersectSelector(theirs, our);
      if (both === undefined || common.some((known) => containsSelector(known, both))) continue;
      common.push(both);
      // BOUNDED: a TS payload holds no more.
      if (common.length === MAX_SELECTORS) return simplifySelectors(common);
    }
  }
  return simplifySelectors(common);
}

/** What `narrowPair` found. */
export type Narrowing =
  | {
      readonly ok: true;
      readonly selectors: SelectorPair;
      /** All that was proposed was accepted, but for selectors that can pair with none of the other side. */
      readonly whole: boolean;
      /** The first selectors of both sides, which may be those of the triggering packet, were accepted whole. */
      readonly first: boolean;
    }
  | {
      readonly ok: false;
      /** For the log: both sides' lists and what differs. */
      readonly explanation: string;
    };

/**
 * Narrows both sides of a proposal, seen from here: a responder gives TSr as `local` and TSi as `remote`, an initiator
 * checks a response with TSi as `local` (RFC 7296 §2.9).
 *
 * Selectors that can pair with none of the other side (another family, another protocol) are left out of the result.
 */
export function narrowPair(proposed: SelectorPair, configured: SelectorPair): Narrowing {
  const local = narrow(proposed.local, configured.local);
  const remote = narrow(proposed.remote, configured.remote);
  const selectors = pairable({ local, remote });
  if (selectors.local.length === 0)
    return { ok: false, explanation: explainSides(proposed, configured, local, remote) };
  const accepts = (list: readonly TrafficSelector[], wanted: TrafficSelector | undefined): boolean =>
    wanted !== undefined && list.some((accepted) => containsSelector(accepted, wanted));
  return {
    ok: true,
    selectors,
    whole:
      proposed.local.every((wanted) => accepts(local, wanted)) &&
      proposed.remote.every((wanted) => accepts(remote, wanted)),
    first: accepts(local, proposed.local[0]) && accepts(remote, proposed.remote[0]),
  };
}

/** Intersections of one side that `canNarrow` tries to pair. */
const MAX_PAIRED = 64;

/**
 * Whether `narrowPair` would find anything, at a fraction of its cost: for the proposal of a peer that is not authenticated
 * yet. For a side with more than 64 selectors in common it may say no although there is something.
 */
export function canNarrow(proposed: SelectorPair, configured: SelectorPair): boolean {
  const local = intersections(proposed.local, configured.local);
  if (local.length === 0) return false;
  const remote = intersections(proposed.remote, configured.remote);
  return local.some((mine) => remote.some((theirs) => canPair(mine, theirs)));
}

function intersections(
  proposed: readonly TrafficSelector[],
  configured: readonly TrafficSelector[],
): TrafficSelector[] {
  const common: TrafficSelector[] = [];
  for (const theirs of proposed) {
    for (const ours of configured) {
      const both = intersectSelector(theirs, ours);
      if (both !== undefined && common.push(both) === MAX_PAIRED) return common;
    }
  }
  return common;
}

/** Which of several configurations answers a proposal best, and how. */
export interface NarrowingChoice {
  readonly index: number;
  readonly selectors: SelectorPair;
}

/**
 * Chooses among several configured pairs: one that accepts all of the proposal, else one that accepts its first
 * selectors, else one that accepts anything; of several the first. `undefined` when none does.
 */
export function chooseNarrowing(
  proposed: SelectorPair,
  candidates: readonly SelectorPair[],
): NarrowingChoice | undefined {
  let best: NarrowingChoice | undefined;
  let bestRank = 0;
  for (const [index, configured] of candidates.entries()) {
    const result = narrowPair(proposed, configured);
    if (!result.ok) continue;
    const rank = result.whole ? 3 : result.first ? 2 : 1;
    if (rank <= bestRank) continue;
    best = { index, selectors: result.selectors };
    bestRank = rank;
  }
  return best;
}

/** Without the selectors that can pair with none of the other side. */
export function pairable({ local, remote }: SelectorPair): SelectorPair {
  return {
    local: local.filter((mine) => remote.some((theirs) => canPair(mine, theirs))),
    remote: remote.filter((theirs) => local.some((mine) => canPair(mine, theirs))),
  };
}

/** Whether one packet can fit both a selector of one side and one of the other. */
export function canPair(local: TrafficSelector, remote: TrafficSelector): boolean {
  if (local.range.start.family !== remote.range.start.family) return false;
  const protocol = intersectProtocol(local.protocol, remote.protocol);
  if (protocol === undefined) return false;
  if (!hasSinglePort(protocol)) return true;
  // ICMP has one "port": two ranges that do not meet match no message; OPAQUE on one side gives a direction.
  return isOpaquePorts(local) || isOpaquePorts(remote) || intersectPorts(local, remote) !== undefined;
}

/** Why nothing of a proposal can be accepted: both sides' lists and what differs. */
export function explainPairMismatch(proposed: SelectorPair, configured: SelectorPair): string {
  const local = narrow(proposed.local, configured.local);
  const remote = narrow(proposed.remote, configured.remote);
  return explainSides(proposed, configured, local, remote);
}

/** The same, when what both sides' lists have in common is known. */
function explainSides(
  proposed: SelectorPair,
  configured: SelectorPair,
  local: readonly TrafficSelector[],
  remote: readonly TrafficSelector[],
): string {
  const sides: string[] = [];
  if (local.length === 0) sides.push(`local side: ${explainMismatch(proposed.local, configured.local)}`);
  if (remote.length === 0) sides.push(`remote side: ${explainMismatch(proposed.remote, configured.remote)}`);
  if (sides.length > 0) return sides.join('; ');
  return (
    `each side has something in common, local ${formatSelectors(local)} and remote ${formatSelectors(remote)}, ` +
    'but no packet can fit both: the family, protocol or ICMP type differs'
  );
}

/** Why two lists of one side have nothing in common: both lists, and what does not meet. One line, for the log. */
export function explainMismatch(proposed: readonly TrafficSelector[], configured: readonly TrafficSelector[]): string {
  const lists = `proposed ${formatSelectors(proposed)}; configured ${formatSelectors(configured)}`;
  if (proposed.length === 0 || configured.length === 0) return `${lists}; there is nothing to compare`;
  return `${lists}; ${whatDiffers(proposed, configured)}`;
}

/** Names the last of address, protocol and ports that some two selectors do not get past. */
function whatDiffers(proposed: readonly TrafficSelector[], configured: readonly TrafficSelector[]): string {
  let protocols: string | undefined;
  let ports: string | undefined;
  for (const theirs of proposed.slice(0, MAX_SELECTORS)) {
    for (const ours of configured.slice(0, MAX_SELECTORS)) {
      const range = intersectRanges(theirs.range, ours.range);
      if (range === undefined) continue;
      const protocol = intersectProtocol(theirs.protocol, ours.protocol);
      if (protocol === undefined) {
        protocols ??=
          `the addresses meet in ${formatRange(range)}, the protocols do not: ` +
          `${protocolName(theirs.protocol)} proposed, ${protocolName(ours.protocol)} configured`;
      } else if (intersectPorts(theirs, ours) === undefined) {
        ports ??=
          `the addresses meet in ${formatRange(range)}${protocol === Protocol.any ? '' : ` with ${protocolName(protocol)}`}, the ports do not: ` +
          `${portText(theirs, protocol)} proposed, ${portText(ours, protocol)} configured`;
      } else {
        return 'they do have something in common';
      }
    }
  }
  return ports ?? protocols ?? addressesDiffer(proposed, configured);
}

function portText({ startPort, endPort }: TrafficSelector, protocol: number): string {
  return formatPorts({ protocol, startPort, endPort }) || 'any';
}

function addressesDiffer(proposed: readonly TrafficSelector[], configured: readonly TrafficSelector[]): string {
  const families = (list: readonly TrafficSelector[]): string =>
    [...new Set(list.map(({ range }) => range.start.family))]
      .sort()
      .map((family) => `IPv${family}`)
      .join(' and ');
  const [theirs, ours] = [families(proposed), families(configured)];
  const sameFamily = proposed.some((a) => configured.some((b) => a.range.start.family === b.range.start.family));
  return sameFamily ? 'no address is in both' : `the address families differ: ${theirs} proposed, ${ours} configured`;
}
