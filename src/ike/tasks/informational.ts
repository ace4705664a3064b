/** Answers INFORMATIONAL requests: deletes, notifies, and the empty ones that ask whether we are there (RFC 7296 §1.4). */
import type { DownReason } from '../events.ts';
import { endSession } from '../session/lifecycle.ts';
import type { IkeSession } from '../session/session.ts';
import { isLive, lifeOf } from '../session/state.ts';
import { NotifyType, notifyName, ProtocolId } from '../wire/iana.ts';
import type { Payload } from '../wire/payload.ts';
import type { Answer } from './answer.ts';
import { respondDeleteChildren } from './delete.ts';
import { settleDeleted } from './rekey-ike.ts';

export function respondInformational(session: IkeSession, now: number, payloads: readonly Payload[]): Answer {
  const answer: Payload[] = [];
  let after: (() => void) | undefined;
  for (const payload of payloads) {
    if (payload.type === 'delete' && payload.protocol === ProtocolId.IKE) {
      after = () => deleted(session, now);
    } else if (payload.type === 'delete') {
      answer.push(...respondDeleteChildren(session, payload));
    } else if (payload.type === 'notify' && rejectsAuth(session, payload.notify)) {
      const detail = `the peer rejected our authentication: ${notifyName(payload.notify)}`;
      after = () => endSession(session, now, { reason: 'failed', detail, linger: true });
    } else if (payload.type === 'notify') {
      session.note('debug', `the peer sent ${notifyName(payload.notify)}, which is ignored`);
    }
  }
  // RFC 7296 §1.4.1: with the IKE SA go its children, whatever else the message says.
  return { payloads: after === undefined ? mergeDeletes(answer) : [], after };
}

/**
 * Whether the initiator says that it has no use for our answer to IKE_AUTH, which ends the IKE SA without a Delete payload.
 * RFC 7296 §2.21.2: AUTHENTICATION_FAILED, or in the exchange that follows IKE_AUTH, of ID 2, that our answer was malformed.
 */
function rejectsAuth({ initiator, state, window }: IkeSession, notify: number): boolean {
  if (notify === NotifyType.AUTHENTICATION_FAILED) return true;
  if (notify !== NotifyType.INVALID_SYNTAX && notify !== NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD) return false;
  return !initiator && lifeOf(state)?.replaces === undefined && window.nextFromPeer === 3;
}

/** One Delete payload for all SPIs of a protocol (RFC 7296 §3.11). */
function mergeDeletes(payloads: readonly Payload[]): Payload[] {
  const spis = payloads.flatMap((payload) => (payload.type === 'delete' ? payload.spis : []));
  return spis.length === 0 ? [] : [{ type: 'delete', protocol: ProtocolId.ESP, spis }];
}

function deleted(session: IkeSession, now: number): void {
  if (settleDeleted(session, now)) return;
  const [reason, detail] = whyDeleted(session);
  endSession(session, now, { reason, detail, linger: true });
}

function whyDeleted({ state }: IkeSession): [DownReason, string] {
  if (isLive(state) && state.pendingFor !== undefined) return ['redundant', 'both sides rekeyed'];
  if (state.name === 'rekeyed') return ['rekeyed', 'replaced'];
  return ['deleted-by-peer', 'the peer deleted it'];
}
