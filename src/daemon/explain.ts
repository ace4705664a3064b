/**
 * Why a packet fares as it does: the policy entry that decides, the SA that carries it, the way that it takes on this host,
 * and what the fence does with it.
 */
import type { SectunnelDocument } from '../config/model.ts';
import { toPolicy } from '../config/selectors.ts';
import type { Tunnel } from '../engine/tunnel.ts';
import { type Direction, NO_ENTRY, orderPolicy, type PolicyEntry } from '../policy/database.ts';
import { type ExplainedEntry, explainFlow, type FlowExplanation, formatDecision } from '../policy/explain.ts';
import type { Flow } from '../policy/flow.ts';
import { formatFlow } from '../policy/flow-values.ts';
import { isIcmpError } from '../policy/icmp-error.ts';
import type { TunnelFence } from '../tun/fence.ts';
import { asPrinted } from './as-printed.ts';
import { explainFence, markOf } from './explain-fence.ts';
import { readPacketQuestion } from './explain-packet.ts';
import { explainSa } from './explain-sa.ts';
import { judge } from './explain-verdict.ts';
import { explainWay, type Routing } from './explain-way.ts';
import type { ExplainQuestion, Explanation, NamedEntry, PolicyExplanation } from './explanation.ts';

/** Entries that are listed with what kept them from matching. */
const MAX_LISTED = 8;

/** What is known of a tunnel. */
export interface ExplainFacts {
  /** The document that runs, or that the next start uses. */
  readonly document: SectunnelDocument;
  /** While it is active. */
  readonly running: { readonly tunnel: Tunnel; readonly device: string; readonly now: number } | undefined;
  readonly routing: Routing | undefined;
  /** As it stands around the tunnel, if one does. */
  readonly fence: TunnelFence | undefined;
}

/** @throws ControlError when the question is not one about a packet */
export function explainPacket(facts: ExplainFacts, question: ExplainQuestion): Explanation {
  const { document, running, routing } = facts;
  const packet = readPacketQuestion(question);
  const { direction, flow } = packet;
  const explained = explainFlow({ direction, entries: orderedEntries(document, direction) }, flow, MAX_LISTED);
  const { decides } = explained;
  const protects = decides?.action === 'protect';
  const sa = running !== undefined && protects ? explainSa(running.now, running.tunnel, decides, packet) : undefined;
  const mark = facts.fence && markOf(facts.fence, packet);
  const way = routing && explainWay(routing, packet, running?.device, mark);
  const fence = facts.fence && explainFence(facts.fence, packet);
  const judged = judge({ name: document.name, packet, decides, sa, way, fence, device: running?.device });
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
    way,
    fence,
    warnings: judged.warnings,
  };
}

/** BOUNDED: by the documents. */
const ordered = new WeakMap<SectunnelDocument, Record<Direction, readonly PolicyEntry[]>>();

/** Of the document as it is printed, in the order in which they are asked. Made once. */
function orderedEntries(document: SectunnelDocument, direction: Direction): readonly PolicyEntry[] {
  let known = ordered.get(document);
  if (known === undefined) {
    const { entries } = toPolicy(asPrinted(document).document);
    known = { in: orderPolicy(entries, 'in'), out: orderPolicy(entries, 'out') };
    ordered.set(document, known);
  }
  return known[direction];
}

/** RFC 4301 §6.2: which flow an error is about stands in it, and is not asked for here. */
function noEntry(flow: Flow): string {
  const error = isIcmpError(flow)
    ? '; as an ICMP error it goes with the traffic that it is about, if that is protected'
    : '';
  return `no entry is for it${error}`;
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
