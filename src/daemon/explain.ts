/**
 * Why a packet fares as it does: the policy entry that decides, the SA that carries it, and the way that it takes on this
 * host. What the three say together is the verdict.
 */

import { assertNever } from '../base/assert.ts';
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
import { explainFence } from './explain-fence.ts';
import { type AskedPacket, readPacketQuestion } from './explain-packet.ts';
import { explainSa, type SaAnswer } from './explain-sa.ts';
import { explainWay, type Routing } from './explain-way.ts';
import type {
  ExplainQuestion,
  Explanation,
  FenceExplanation,
  NamedEntry,
  Outcome,
  PolicyExplanation,
  WayExplanation,
} from './explanation.ts';

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
  const way = routing && explainWay(routing, packet, running?.device);
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

interface Judging {
  readonly name: string;
  readonly packet: AskedPacket;
  readonly decides: PolicyEntry | undefined;
  readonly sa: SaAnswer | undefined;
  readonly way: WayExplanation | undefined;
  readonly fence: FenceExplanation | undefined;
  /** `undefined` for a tunnel that is not active. */
  readonly device: string | undefined;
}

interface Verdict {
  readonly outcome: Outcome;
  readonly verdict: string;
  readonly warnings: readonly string[];
}

function judge(judging: Judging): Verdict {
  const { decides } = judging;
  if (judging.fence?.action === 'own') {
    const verdict = 'It belongs to the tunnel itself: it is what carries the others.';
    return { outcome: 'bypassed', verdict, warnings: [] };
  }
  if (judging.packet.direction === 'in') return judgeInbound(judging);
  const action = decides?.action;
  switch (action) {
    case 'protect':
      return judgeProtected(judging);
    case 'bypass':
      return judgeBypassed(judging);
    case 'discard':
    case undefined:
      return judgeDiscarded(judging);
    default:
      return assertNever(action, 'policy action');
  }
}

function judgeProtected({ name, decides, sa, way, fence, device }: Judging): Verdict {
  if (sa === undefined) {
    const warnings = [
      `tunnel ${name} is not active: nothing protects this packet now; 'sectunnel start ${name}' starts it`,
    ];
    const dropped = fence?.action === 'guard' ? ': the fence, which stands until it is, drops it' : '';
    return {
      outcome: 'not-applied',
      verdict: `The policy protects it, but the tunnel is not active${dropped}.`,
      warnings,
    };
  }
  if (way !== undefined && !way.reachesTunnel) {
    if (decides?.level === 'use' && sa.fate !== 'carried') {
      const verdict = `It is sent in the clear while there is no SA: level='use'${byLink(way)}.`;
      return { outcome: 'bypassed', verdict, warnings: [] };
    }
    return passesBy(way, fence, device);
  }
  switch (sa.fate) {
    case 'carried':
      return { outcome: 'protected', verdict: `It is encrypted and sent to ${sa.carries!.peer}.`, warnings: [] };
    case 'held':
      return { outcome: 'held', verdict: 'It waits until an SA is negotiated, and is then encrypted.', warnings: [] };
    case 'dropped':
      return { outcome: 'dropped', verdict: 'It is dropped: no SA carries it.', warnings: [] };
    default:
      return assertNever(sa.fate, 'fate');
  }
}

/** What is to be protected takes another way than the tunnel's. */
function passesBy(way: WayExplanation, fence: FenceExplanation | undefined, device: string | undefined): Verdict {
  const by = way.rule === undefined ? '' : ` (rule ${way.rule})`;
  const goes = way.link === undefined ? way.text : `it goes by ${way.link}`;
  const warnings = [`this packet does not reach the tunnel: ${goes}${by}; it would have to go by ${device}`];
  const missed = 'The policy protects it, but it does not reach the tunnel';
  if (way.link === undefined) return { outcome: 'not-applied', verdict: `${missed}: it goes nowhere.`, warnings };
  const end = fence?.action === 'guard' ? 'the fence drops it' : 'it leaves in the clear';
  return { outcome: 'not-applied', verdict: `${missed}: ${end}.`, warnings };
}

function judgeBypassed({ way, device }: Judging): Verdict {
  if (way?.reachesTunnel === true) {
    const warnings = [
      `the policy lets it pass in the clear, but its route leads into ${device}, which sends nothing in the clear: it is dropped (counted as bypass-in-tunnel); give it a route of its own`,
    ];
    const verdict = 'The policy bypasses it, but it is led into the tunnel and dropped.';
    return { outcome: 'not-applied', verdict, warnings };
  }
  return { outcome: 'bypassed', verdict: `It is sent in the clear, as the policy says${byLink(way)}.`, warnings: [] };
}

/** Discarded by an entry, or for want of one (RFC 4301 §5.1), where it is led into the tunnel; else the fence or a rule sees to it. */
function judgeDiscarded({ decides, way, fence, device }: Judging): Verdict {
  const why = decides === undefined ? 'no policy entry is for it' : 'the policy discards it';
  const led = device !== undefined && way?.reachesTunnel !== false;
  const stopped = decides !== undefined && (fence?.action === 'discard' || (way !== undefined && isDeadEnd(way)));
  if (led || stopped) return { outcome: 'dropped', verdict: `It is dropped: ${why}.`, warnings: [] };
  if (decides === undefined) {
    const verdict = `It is none of the tunnel's: ${why}, and it is not led into it${byLink(way)}.`;
    return { outcome: 'dropped', verdict, warnings: [] };
  }
  const past = way?.text ?? 'the tunnel is not active';
  const warnings = [`the policy discards this packet, but nothing that stands on this host does: ${past}`];
  return { outcome: 'not-applied', verdict: 'The policy discards it, but it goes its own way.', warnings };
}

function isDeadEnd({ link, table }: WayExplanation): boolean {
  return link === undefined && table === undefined;
}

function byLink(way: WayExplanation | undefined): string {
  return way?.link === undefined ? '' : `; its way is ${way.text}`;
}

function judgeInbound({ name, decides, sa }: Judging): Verdict {
  const done = (outcome: Outcome, verdict: string): Verdict => ({ outcome, verdict, warnings: [] });
  const action = decides?.action;
  switch (action) {
    case 'bypass':
      return done('bypassed', 'It is taken in the clear, as the policy says.');
    case 'discard':
      return done('dropped', 'It is refused: the policy discards it.');
    case undefined:
      return done('dropped', "It is none of the tunnel's: no policy entry is for it.");
    case 'protect':
      break;
    default:
      return assertNever(action, 'policy action');
  }
  if (sa === undefined) {
    const warnings = [`tunnel ${name} is not active: nothing takes it out of a tunnel now`];
    return {
      outcome: 'not-applied',
      verdict: 'The policy wants it protected, but the tunnel is not active.',
      warnings,
    };
  }
  if (sa.fate === 'carried')
    return done('protected', `It is taken out of the tunnel from ${sa.carries!.peer}, not in the clear.`);
  return done('dropped', 'It cannot come: no SA of the peer carries it.');
}
