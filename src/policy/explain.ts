/**
 * Why a packet is decided as it is: which entry decides, and what kept those before it from matching. Control path;
 * the answer is data, with text made from it.
 */
import { formatAddress, formatRange, rangeContains } from '../base/address.ts';
import { type CompiledPolicy, FRAGMENT_UNDECIDED, NO_ENTRY, type PolicyAction, type PolicyEntry } from './database.ts';
import { DESTINATION, type Flow, PORT_HIDDEN, PROTOCOL_HIDDEN, SOURCE } from './flow.ts';
import { flowAddress } from './flow-values.ts';
import { hasSinglePort, Protocol, protocolName } from './protocols.ts';
import { formatPorts, isAnyPorts, isOpaquePorts, type TrafficSelector } from './selector.ts';

/** Ranges, protocols or ports that a text lists at most. */
const MAX_LISTED = 8;

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
  /** What `lookup` answers: an index, `NO_ENTRY` or `FRAGMENT_UNDECIDED`. */
  readonly answer: number;
  /** What becomes of the packet. */
  readonly action: PolicyAction;
  /** The entry that decides, if one does. */
  readonly decides: PolicyEntry | undefined;
  /**
   * The entries that were asked in vain before it, in order; at most the first `limit`. For a fragment that is undecided:
   * before the bypass that it was kept from.
   */
  readonly before: readonly ExplainedEntry[];
  /** How many were asked in vain, those that are not listed included. */
  readonly beforeCount: number;
}

/** Explains what `policy.lookup(flow)` answers. */
export function explainFlow(policy: CompiledPolicy, flow: Flow, limit = 1000): FlowExplanation {
  const answer = policy.lookup(flow);
  const decides = answer >= 0 ? policy.entries[answer]! : undefined;
  const packet = readPacket(flow, policy.direction === 'out');
  const matches = (entry: PolicyEntry): boolean => mismatchesOf(entry, packet).length === 0;
  const beforeCount =
    answer >= 0 ? answer : answer === NO_ENTRY ? policy.entries.length : policy.entries.findIndex(matches);
  const before = policy.entries
    .slice(0, Math.min(beforeCount, limit))
    .map((entry, index) => ({ index, entry, mismatches: mismatchesOf(entry, packet) }));
  return { answer, action: decides?.action ?? 'discard', decides, before, beforeCount };
}

/** One line: what happens to the packet, and by which entry. */
export function formatDecision({ answer, decides }: FlowExplanation): string {
  if (answer === NO_ENTRY) return 'dropped: no policy entry matches';
  if (answer === FRAGMENT_UNDECIDED) {
    return 'dropped: a fragment that shows no ports, whose first fragment was not seen, may belong to an entry that does not bypass';
  }
  const entry = decides!;
  const by = `by '${entry.name}'${entry.line === undefined ? '' : ` (line ${entry.line})`}`;
  if (entry.action === 'protect')
    return `protected ${by}${entry.child === undefined ? '' : ` with child ${entry.child}`}`;
  return entry.action === 'bypass' ? `bypassed ${by}` : `discarded ${by}`;
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

function readPacket(flow: Flow, outbound: boolean): readonly [local: End, remote: End] {
  const end = (side: End['side'], source: boolean): End => ({
    side,
    address: flowAddress(flow, source ? SOURCE : DESTINATION),
    protocol: flow.protocol,
    port: source ? flow.srcPort : flow.dstPort,
    opaqueToo: !source && hasSinglePort(flow.protocol),
  });
  return [end('local', outbound), end('remote', !outbound)];
}

function mismatchesOf({ selectors }: PolicyEntry, [local, remote]: readonly [End, End]): Mismatch[] {
  return [mismatchOf(selectors.local, local), mismatchOf(selectors.remote, remote)].filter((m) => m !== undefined);
}

/** What keeps a side from matching; `undefined` when it matches. */
function mismatchOf(selectors: readonly TrafficSelector[], end: End): Mismatch | undefined {
  const byAddress = selectors.filter(({ range }) => rangeContains(range, end.address));
  if (byAddress.length === 0) {
    const ranges = selectors.map(({ range }) => formatRange(range));
    return describe(end, 'address', formatAddress(end.address), ranges);
  }
  const byProtocol = byAddress.filter(({ protocol }) => protocol === Protocol.any || protocol === end.protocol);
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

function portFits(selector: TrafficSelector, { port, opaqueToo }: End): boolean {
  if (isAnyPorts(selector)) return true;
  if (isOpaquePorts(selector)) return opaqueToo || port === PORT_HIDDEN;
  return selector.startPort <= port && port <= selector.endPort;
}

function portText({ protocol, port }: End): string {
  return port === PORT_HIDDEN ? '(not shown)' : formatPorts({ protocol, startPort: port, endPort: port });
}

function describe({ side }: End, part: MismatchPart, found: string, wanted: readonly string[]): Mismatch {
  const distinct = [...new Set(wanted)];
  const more = distinct.length > MAX_LISTED ? ` and ${distinct.length - MAX_LISTED} more` : '';
  const list = distinct.length === 0 ? 'nothing' : distinct.slice(0, MAX_LISTED).join(', ') + more;
  return { side, part, text: `${side} ${part} ${found} is not in ${list}` };
}
