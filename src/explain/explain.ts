/**
 * The room `explain`: why a packet goes where it goes, and which lines of a document matter for a failed negotiation. This file
 * explains a packet: the policy entry that decides, the SA that carries it, its route on this host, and what the fence does.
 */

import { rangeContains } from '../base/address.ts';
import type { SectunnelDocument } from '../config/model.ts';
import { toPolicy } from '../config/selectors.ts';
import type { Tunnel } from '../engine/tunnel.ts';
import type { TunnelFence } from '../hostnet/fence/fence.ts';
import type { ForeignTables } from '../hostnet/foreign/tables.ts';
import type { HostView } from '../hostnet/view.ts';
import { NO_ENTRY, orderPolicy, type PolicyEntry } from '../policy/database.ts';
import type { Direction } from '../policy/direction.ts';
import { type ExplainedEntry, explainFlow, type FlowExplanation, formatDecision } from '../policy/explain.ts';
import type { Flow } from '../policy/flow.ts';
import { formatFlow } from '../policy/flow-values.ts';
import { isIcmpError } from '../policy/icmp-error.ts';
import { asPrinted } from './as-printed.ts';
import type {
  ExplainQuestion,
  Explanation,
  FenceExplanation,
  NamedEntry,
  PolicyExplanation,
  RouteExplanation,
} from './explanation.ts';
import { explainFence } from './fence.ts';
import type { HostRoute } from './host-route.ts';
import type { CameOut } from './onward.ts';
import { NO_OUTER, type OuterPath, traceOuter } from './outer.ts';
import { type AskedPacket, readPacketQuestion } from './packet.ts';
import { type Path, tracePath } from './path.ts';
import { explainSa, type SaAnswer } from './sa.ts';
import { type Carrier, explainTunnels, type HostTunnel, ownerOnDevice, type TunnelsAnswer } from './tunnels.ts';
import { judge } from './verdict.ts';

/** Entries that are listed with the reason why they do not match. */
const MAX_LISTED = 8;

/** What is known about a tunnel. */
export interface ExplainFacts {
  /** The running document, or the one that the next start uses. */
  readonly document: SectunnelDocument;
  /** While it is active. */
  readonly running: { readonly tunnel: Tunnel; readonly device: string } | undefined;
  /** By the engine's clock. */
  readonly now: number;
  /** The tunnel's network namespace; `undefined` if it cannot be read. */
  readonly view: HostView | undefined;
  /** The network namespace of the daemon's sockets. */
  readonly outerView: HostView | undefined;
  /** The installed fence of the tunnel, if there is one. */
  readonly fence: TunnelFence | undefined;
  /** Tunnels that run in the same network namespace, this one included. */
  readonly tunnels: readonly HostTunnel[];
}

/** Tables of other programs. */
export interface Foreign {
  /** In the tunnel's network namespace. */
  readonly inner: ForeignTables | undefined;
  /** In that of the daemon's sockets. */
  readonly outer: ForeignTables | undefined;
}

/** @throws SectunnelError when the question is not one about a packet */
export function explainPacket(facts: ExplainFacts, foreign: Foreign, question: ExplainQuestion): Explanation {
  const { document, running, now } = facts;
  const packet = readPacketQuestion(question);
  const { direction, flow } = packet;
  const entries = orderedEntries(document, direction);
  const explained = explainFlow({ direction, entries }, flow, MAX_LISTED);
  const { decides } = explained;
  const protects = decides?.action === 'protect';
  const sa = running !== undefined && protects ? explainSa(now, running.tunnel, decides, packet) : undefined;
  const path = traceWay(facts, foreign.inner, packet, decides, sa);
  const { says, carrier } = askTunnels(facts, packet, path);
  const outer = traceEsp(facts, foreign.outer, carrier);
  const fence = facts.fence && explainFence(facts.fence, packet, { inClear: path?.inClear ?? false });
  const device = running?.device;
  const judged = judge({
    name: document.name,
    packet,
    decides,
    sa,
    path,
    outer,
    carrier,
    fence,
    fenceStops: fenceStops(facts.fence, fence, path),
    device,
    ownerOnDevice: ownerOnDevice(facts.tunnels, device, packet),
  });
  return {
    name: document.name,
    active: running !== undefined,
    direction,
    packet: formatFlow(flow),
    assumed: packet.assumed,
    outcome: judged.outcome,
    verdict: judged.verdict,
    policy: describePolicy(explained, flow),
    sa: sa && { text: sa.text, carries: sa.carries },
    route: path && describeRoute(path.route),
    tunnels: says,
    fence,
    otherFence: path?.otherFence,
    filters: path?.filters,
    warnings: [...judged.warnings, ...(path === undefined ? unseen(document) : [])],
  };
}

function traceWay(
  { document, running, now, fence, view }: ExplainFacts,
  foreign: ForeignTables | undefined,
  packet: AskedPacket,
  decides: PolicyEntry | undefined,
  sa: SaAnswer | undefined,
): Path | undefined {
  if (view === undefined) return undefined;
  const { direction } = packet;
  return tracePath({
    view,
    foreign,
    name: document.name,
    device: running?.device,
    cameOut:
      direction === 'in' && decides?.action === 'protect'
        ? cameOutOf(document, running, { decides, sa, packet })
        : undefined,
    fence,
    packet,
    isTreatedAlike: (other) => {
      if (running === undefined) return false;
      const entry = explainFlow({ direction, entries: running.tunnel.policy }, other.flow, 0).decides;
      if (entry === undefined || entry.action !== decides?.action) return false;
      return entry.action !== 'protect' || explainSa(now, running.tunnel, entry, other).fate === sa?.fate;
    },
  });
}

function cameOutOf(
  { device: { netns } }: SectunnelDocument,
  running: ExplainFacts['running'],
  found: { readonly decides: PolicyEntry; readonly sa: SaAnswer | undefined; readonly packet: AskedPacket },
): CameOut {
  const { decides, sa, packet } = found;
  const child = sa?.carries && running?.tunnel.children.get(sa.carries.id);
  const matching = decides.selectors.local.find(({ range }) => rangeContains(range, packet.destination));
  return {
    network: matching?.range ?? { start: packet.destination, end: packet.destination },
    peer: netns === undefined ? child?.path.remote.address : undefined,
  };
}

/** The route of the ESP packet. The CHILD SA that carries it may belong to another tunnel. */
function traceEsp(
  { outerView: view }: ExplainFacts,
  foreign: ForeignTables | undefined,
  carrier: Carrier | undefined,
): OuterPath {
  const child = carrier?.sa?.carries && carrier.tunnel.children.get(carrier.sa.carries.id);
  if (child === undefined || view === undefined) return NO_OUTER;
  return traceOuter({ view, foreign, name: carrier!.name }, child.path);
}

/** Whether the tunnel's own fence drops the packet on this route: not if another tunnel may carry it. */
function fenceStops(
  fence: TunnelFence | undefined,
  says: FenceExplanation | undefined,
  path: Path | undefined,
): boolean {
  const link = path?.route.link;
  return says?.action === 'guard' && (link === undefined || fence?.beside.includes(link) !== true);
}

function askTunnels({ view, tunnels, now }: ExplainFacts, packet: AskedPacket, path: Path | undefined): TunnelsAnswer {
  if (view === undefined) return { says: [], carrier: undefined };
  const rules = view.routing.rules(packet.source.family);
  return explainTunnels(now, tunnels, rules, packet, path?.route.link);
}

function describeRoute({ text, link, gateway, table, rule, reachesTunnel }: HostRoute): RouteExplanation {
  return { text, link, gateway, table, rule, reachesTunnel };
}

/** For a tunnel whose network namespace cannot be read. */
function unseen({ device: { netns } }: SectunnelDocument): string[] {
  if (netns === undefined) return [];
  return [`not checked: routes, fences and firewalls of the network namespace ${netns}, where no tunnel runs`];
}

/** BOUNDED: by the documents. */
const ordered = new WeakMap<SectunnelDocument, Record<Direction, readonly PolicyEntry[]>>();

/** The entries of the document as printed, in the order in which they are asked. Made once. */
function orderedEntries(document: SectunnelDocument, direction: Direction): readonly PolicyEntry[] {
  let known = ordered.get(document);
  if (known === undefined) {
    const { entries } = toPolicy(asPrinted(document).document);
    known = { in: orderPolicy(entries, 'in'), out: orderPolicy(entries, 'out') };
    ordered.set(document, known);
  }
  return known[direction];
}

/** RFC 4301 §6.2: an ICMP error contains the flow that it reports on, which the question does not have. */
function noEntry(flow: Flow): string {
  const error = isIcmpError(flow)
    ? '; as an ICMP error it is carried with the traffic that it reports on, if that is protected'
    : '';
  return `no entry matches it${error}`;
}

function describePolicy(explained: FlowExplanation, flow: Flow): PolicyExplanation {
  const { decides, before, beforeCount, shadowed, shadowedCount } = explained;
  return {
    decision: explained.answer === NO_ENTRY ? noEntry(flow) : formatDecision(explained),
    action: decides?.action ?? 'none',
    entry: decides && {
      ...named(decides),
      priority: decides.priority,
      level: decides.action === 'protect' ? decides.level : undefined,
    },
    before: before.map(({ entry, mismatches }: ExplainedEntry) => ({
      ...named(entry),
      why: mismatches.map(({ text }) => text),
    })),
    beforeCount,
    shadowed: shadowed.map(({ entry }) => named(entry)),
    shadowedCount,
  };
}

function named({ name, line }: PolicyEntry): NamedEntry {
  return { name, line };
}
