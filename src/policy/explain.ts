/**
 * Explains the decision about a packet: which entry decides, why those before it do not match, and which later ones
 * would match but are never reached. Control path: looks at every entry, and needs no compiled policy. The result is
 * data, with text made from it.
 */

import { formatAddress, formatRange, rangeContains } from '../base/address.ts';
import { listSome } from '../base/text.ts';
import { FRAGMENT_UNDECIDED, NO_ENTRY, type PolicyAction, type PolicyEntry } from './database.ts';
import type { Direction } from './direction.ts';
import { DESTINATION, type Flow, Fragment, PORT_HIDDEN, PROTOCOL_HIDDEN, SOURCE } from './flow.ts';
import { flowAddress } from './flow-values.ts';
import { canPair } from './narrow.ts';
import { hasSinglePort, isIcmp, Protocol, protocolName } from './protocols.ts';
import { formatPorts, isAnyPorts, isOpaquePorts, type TrafficSelector } from './selector.ts';

/** Ranges, protocols or ports that a text lists at most. */
const MAX_LISTED = 8;

/** Entries of one direction in the order in which they are asked (`orderPolicy`). */
export interface OrderedPolicy {
  readonly direction: Direction;
  readonly entries: readonly PolicyEntry[];
}

/** The first thing of a side that no selector of it gets past. */
export type MismatchPart = 'address' | 'protocol' | 'port';

export interface Mismatch {
  readonly side: 'local' | 'remote';
  readonly part: MismatchPart;
  /** `remote address 10.9.0.1 is not in 10.2.0.0/24`. */
  readonly text: string;
}

export interface ExplainedEntry {
  readonly index: number;
  readonly entry: PolicyEntry;
  /** Empty for an entry that matches. */
  readonly mismatches: readonly Mismatch[];
}

export interface FlowExplanation {
  /** What `CompiledPolicy.lookup` answers: an index, `NO_ENTRY` or `FRAGMENT_UNDECIDED`. */
  readonly answer: number;
  /** What becomes of the packet. */
  readonly action: PolicyAction;
  /** The entry that decides, if one does. */
  readonly decides: PolicyEntry | undefined;
  /**
   * Entries before it that do not match, in their order; of more than `limit`, those that come closest to matching.
   * For a fragment that is undecided: before the bypass that it was kept from.
   */
  readonly before: readonly ExplainedEntry[];
  /** How many were asked in vain, those that are not listed included. */
  readonly beforeCount: number;
  /** Entries behind the one that decides that match as well: for this packet they are shadowed. At most `limit`. */
  readonly shadowed: readonly ExplainedEntry[];
  readonly shadowedCount: number;
}

/** Explains how a policy decides a packet. */
export function explainFlow({ direction, entries }: OrderedPolicy, flow: Flow, limit = 1000): FlowExplanation {
  const packet = readPacket(flow, direction === 'out');
  // Once for each entry: there may be thousands.
  const distances = Uint8Array.from(entries, (entry) => distanceOf(entry, packet));
  const matching = placesOf(distances, 0);
  const [first, ...later] = matching;
  const answer =
    first === undefined ? NO_ENTRY : keptFromBypass(entries, first, flow, packet) ? FRAGMENT_UNDECIDED : first;
  const decides = entries[answer];
  const shadowed = answer === first ? later : [];
  const beforeCount = first ?? entries.length;
  const explained = (index: number): ExplainedEntry => {
    const entry = entries[index]!;
    return { index, entry, mismatches: mismatchesOf(entry, packet) };
  };
  return {
    answer,
    action: decides?.action ?? 'discard',
    decides,
    before: closest(distances.subarray(0, beforeCount), limit).map(explained),
    beforeCount,
    shadowed: shadowed.slice(0, limit).map(explained),
    shadowedCount: shadowed.length,
  };
}

/** One line: what happens to the packet, and by which entry. */
export function formatDecision({ answer, decides }: FlowExplanation): string {
  if (answer === NO_ENTRY) return 'dropped: no policy entry matches';
  if (answer === FRAGMENT_UNDECIDED) {
    return 'dropped: a fragment that shows no ports, whose first fragment was not seen, may belong to an entry that does not bypass';
  }
  const entry = decides!;
  const by = `by ${entryName(entry)}`;
  if (entry.action === 'protect')
    return `protected ${by}${entry.child === undefined || entry.child === entry.name ? '' : ` with child ${entry.child}`}`;
  return entry.action === 'bypass' ? `bypassed ${by}` : `discarded ${by}`;
}

/** `'lan' (line 27)`. */
export function entryName({ name, line }: PolicyEntry): string {
  return line === undefined ? `'${name}'` : `'${name}' (line ${line})`;
}

function placesOf(distances: Uint8Array, distance: number): number[] {
  const found: number[] = [];
  for (let at = distances.indexOf(distance); at >= 0; at = distances.indexOf(distance, at + 1)) found.push(at);
  return found;
}

/** Those that have the least against the packet, in their order. */
function closest(distances: Uint8Array, limit: number): number[] {
  const chosen: number[] = [];
  for (let distance = 0; distance <= 2 * DISTANCE.address && chosen.length < limit; distance++) {
    chosen.push(...placesOf(distances, distance).slice(0, limit - chosen.length));
  }
  return chosen.sort((a, b) => a - b);
}

/** RFC 4301 §7.3: a later fragment of unknown ports slips past no entry before that does not bypass. */
function keptFromBypass(entries: readonly PolicyEntry[], found: number, flow: Flow, packet: Ends): boolean {
  if (flow.fragment !== Fragment.later || flow.firstSeen || entries[found]!.action !== 'bypass') return false;
  return entries.slice(0, found).some((entry) => entry.action !== 'bypass' && mightMatch(entry, flow, packet));
}

/** Whether the packet might belong to an entry if its ports, and in IPv6 its protocol, were seen. */
function mightMatch({ selectors }: PolicyEntry, { family }: Flow, [local, remote]: Ends): boolean {
  const might = (selector: TrafficSelector, end: End): boolean =>
    rangeContains(selector.range, end.address) && (family === 6 || protocolFits(selector, end));
  return selectors.local.some(
    (mine) => might(mine, local) && selectors.remote.some((theirs) => might(theirs, remote) && canPair(mine, theirs)),
  );
}

/** One end of the packet, as the selectors of a side see it. */
interface End {
  readonly side: 'local' | 'remote';
  readonly address: ReturnType<typeof flowAddress>;
  readonly protocol: number;
  readonly port: number;
  /** The receiver of an ICMP message: it has no port of its own (see compiled.ts). */
  readonly opaqueToo: boolean;
}

type Ends = readonly [local: End, remote: End];

function readPacket(flow: Flow, outbound: boolean): Ends {
  const end = (side: End['side'], source: boolean): End => ({
    side,
    address: flowAddress(flow, source ? SOURCE : DESTINATION),
    protocol: flow.protocol,
    port: source ? flow.srcPort : flow.dstPort,
    opaqueToo: !source && hasSinglePort(flow.protocol),
  });
  return [end('local', outbound), end('remote', !outbound)];
}

/** How far each part is from a match: what has the right addresses is nearly right. */
const DISTANCE: Readonly<Record<MismatchPart, number>> = { port: 1, protocol: 2, address: 4 };

/** 0 for an entry that matches. */
function distanceOf({ selectors }: PolicyEntry, [local, remote]: Ends): number {
  return sideDistance(selectors.local, local) + sideDistance(selectors.remote, remote);
}

function sideDistance(selectors: readonly TrafficSelector[], end: End): number {
  let least = DISTANCE.address;
  for (const selector of selectors) {
    if (!rangeContains(selector.range, end.address)) continue;
    if (!protocolFits(selector, end)) least = Math.min(least, DISTANCE.protocol);
    else if (portFits(selector, end)) return 0;
    else least = DISTANCE.port;
  }
  return least;
}

function mismatchesOf({ selectors }: PolicyEntry, [local, remote]: Ends): Mismatch[] {
  const mine = mismatchOf(selectors.local, local);
  const theirs = mismatchOf(selectors.remote, remote);
  // A packet has one protocol, so a mismatch on both sides is listed once.
  const once = mine?.part === 'protocol' && theirs?.part === 'protocol';
  if (once && mine.text.replace('local ', '') === theirs.text.replace('remote ', '')) {
    return [{ ...mine, text: mine.text.replace('local ', '') }];
  }
  return [mine, theirs].filter((found) => found !== undefined);
}

/** What keeps a side from matching; `undefined` when it matches. */
function mismatchOf(selectors: readonly TrafficSelector[], end: End): Mismatch | undefined {
  const byAddress = selectors.filter(({ range }) => rangeContains(range, end.address));
  if (byAddress.length === 0) {
    const ranges = selectors.map(({ range }) => formatRange(range));
    return describe(end, 'address', formatAddress(end.address), ranges);
  }
  const byProtocol = byAddress.filter((selector) => protocolFits(selector, end));
  if (byProtocol.length === 0) {
    const found = end.protocol === PROTOCOL_HIDDEN ? '(hidden in a fragment)' : protocolName(end.protocol);
    return describe(
      end,
      'protocol',
      found,
      byAddress.map(({ protocol }) => protocolName(protocol)),
    );
  }
  if (byProtocol.some((selector) => portFits(selector, end))) return undefined;
  return describe(end, 'port', portText(end), byProtocol.map(formatPorts));
}

function protocolFits({ protocol }: TrafficSelector, end: End): boolean {
  return protocol === Protocol.any || protocol === end.protocol;
}

function portFits(selector: TrafficSelector, { port, opaqueToo }: End): boolean {
  if (isAnyPorts(selector)) return true;
  if (isOpaquePorts(selector)) return opaqueToo || port === PORT_HIDDEN;
  return selector.startPort <= port && port <= selector.endPort;
}

function portText({ protocol, port }: End): string {
  return port === PORT_HIDDEN ? '(not shown)' : formatPorts({ protocol, startPort: port, endPort: port });
}

function describe(end: End, part: MismatchPart, found: string, wanted: readonly string[]): Mismatch {
  const { side, protocol } = end;
  const distinct = [...new Set(wanted)];
  const list = distinct.length === 0 ? 'nothing' : listSome(distinct, MAX_LISTED);
  // The text for ICMP type and code already names them.
  const what = part === 'port' && isIcmp(protocol) ? side : `${side} ${part}`;
  return { side, part, text: `${what} ${found} is not ${relation(distinct)}${list}` };
}

/** `not in 10.1.0.0/24`, but `not 10.1.0.1` and `not tcp`: nothing is in a single value. */
function relation([only, ...others]: readonly string[]): string {
  return only === undefined || others.length > 0 || /[/-]/.test(only) ? 'in ' : '';
}
