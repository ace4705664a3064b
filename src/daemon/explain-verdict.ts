/** What policy, SA, way and fence together come to: what happens to a packet, and what keeps the policy from being carried out. */
import { assertNever } from '../base/assert.ts';
import type { PolicyEntry } from '../policy/database.ts';
import type { AskedPacket } from './explain-packet.ts';
import type { SaAnswer } from './explain-sa.ts';
import type { FenceExplanation, Outcome, WayExplanation } from './explanation.ts';

/** What is known of a packet. */
export interface Judging {
  /** Of the tunnel. */
  readonly name: string;
  readonly packet: AskedPacket;
  readonly decides: PolicyEntry | undefined;
  readonly sa: SaAnswer | undefined;
  readonly way: WayExplanation | undefined;
  readonly fence: FenceExplanation | undefined;
  /** `undefined` for a tunnel that is not active. */
  readonly device: string | undefined;
}

export interface Verdict {
  readonly outcome: Outcome;
  readonly verdict: string;
  readonly warnings: readonly string[];
}

export function judge(judging: Judging): Verdict {
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
