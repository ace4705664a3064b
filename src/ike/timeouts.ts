/**
 * What happens to an IKE SA when time passes: retransmission and its end, lifetimes, liveness, NAT keepalives, attempts
 * that are given up (RFC 7296 §2.4, §2.8, §2.23).
 */
import { assertNever } from '../base/assert.ts';
import { resolveDuplicates } from './duplicates.ts';
import type { Failure } from './failure.ts';
import type { ChildRecord, ChildTimer } from './session/child.ts';
import { endSession, failSession } from './session/lifecycle.ts';
import type { IkeSession, SessionTimer } from './session/session.ts';
import { isInUse } from './session/state.ts';
import { expireAuth } from './tasks/auth-responder.ts';
import { expireVerification } from './tasks/auth-response.ts';
import { closeChild, closeSession } from './tasks/delete.ts';
import { LivenessTask } from './tasks/liveness.ts';
import { rekeyChild } from './tasks/rekey-child.ts';
import { rekeyIkeSa, settleExpired } from './tasks/rekey-ike.ts';

export function handleSessionTimeout(session: IkeSession, now: number): void {
  retransmit(session, now);
  for (;;) {
    const timer = session.timers.takeDue(now);
    if (timer === undefined) break;
    fire(session, now, timer);
  }
  for (const child of [...session.children.values()]) {
    for (;;) {
      const timer = child.timers.takeDue(now);
      if (timer === undefined) break;
      fireChild(session, child, now, timer);
    }
  }
}

function retransmit(session: IkeSession, now: number): void {
  const again = session.window.retransmit(now);
  if (again === undefined) return;
  if (again !== 'dead') {
    session.env.count('retransmissions');
    session.transmit(session.path, again);
    return;
  }
  const { state } = session;
  const waited = `no answer for ${Math.round((now - (session.window.waitingSince ?? now)) / 1_000)} s`;
  switch (state.name) {
    case 'init-sent':
    case 'auth-sent':
      failSession(session, now, likelyReason(session) ?? { reason: 'timeout', detail: waited });
      return;
    default:
      endSession(session, now, { reason: 'peer-dead', detail: waited });
      return;
  }
}

/** Of the answers to IKE_SA_INIT, none of which was authentic. */
function likelyReason({ state }: IkeSession): Failure | undefined {
  return state.name === 'init-sent' ? state.init.likely : undefined;
}

function fire(session: IkeSession, now: number, timer: SessionTimer): void {
  switch (timer) {
    case 'rekey':
      rekeyIkeSa(session, now);
      return;
    case 'expire': {
      const successor = settleExpired(session, now);
      if (successor === undefined) closeSession(session, now, 'expired', 'its lifetime is over');
      else probeLiveness(successor, now);
      return;
    }
    case 'dpd':
      checkLiveness(session, now);
      return;
    case 'keepalive':
      keepAlive(session, now);
      return;
    case 'give-up':
      giveUp(session, now);
      return;
    case 'deferred':
      resume(session, now);
      return;
    case 'duplicate':
      resolveDuplicates(session, now);
      return;
    case 'fragments':
      session.env.count('fragments-expired');
      session.dropFragments();
      return;
    case 'exhausted':
      endSession(session, now, { reason: 'expired', detail: 'its message IDs are used up' });
      return;
    default:
      assertNever(timer, 'fire');
      return;
  }
}

/** Any authentic packet of the peer shows that it lives; only its silence is a reason to ask (RFC 7296 §2.4). */
function checkLiveness(session: IkeSession, now: number): void {
  const interval = session.connectionConfig?.dpd.interval ?? 0;
  if (interval <= 0 || session.state.name !== 'established') return;
  const quietSince = session.lastHeardAt ?? now;
  if (now - quietSince < interval) {
    session.timers.set('dpd', quietSince + interval);
    return;
  }
  session.timers.set('dpd', now + interval);
  // A request that is out asks the same.
  if (session.window.idle) session.enqueue(now, new LivenessTask());
}

/**
 * Asks now whether the peer, which may have given us up meanwhile, is still there. A request that is out asks the same, and
 * is sent again. A peer that we can call is given up after some seconds; one that has to call us keeps its full time.
 */
export function probeLiveness(session: IkeSession, now: number): void {
  if (!session.window.idle) session.window.hurry(now);
  else if (isInUse(session.state)) {
    session.enqueue(now, new LivenessTask());
  }
  if (session.connectionConfig?.remote.address !== undefined) session.window.doubt();
}

function keepAlive(session: IkeSession, now: number): void {
  const interval = session.connectionConfig?.nat.keepalive ?? 0;
  if (interval <= 0 || session.state.name !== 'established') return;
  session.env.keepalive(session.path);
  session.timers.set('keepalive', now + interval);
}

function giveUp(session: IkeSession, now: number): void {
  const { state, env, registry } = session;
  switch (state.name) {
    case 'init-sent':
      failSession(session, now, likelyReason(session) ?? { reason: 'timeout', detail: 'no answer' });
      return;
    case 'credentials-wanted':
      failSession(
        session,
        now,
        state.attempt.config.local.auth === 'signature'
          ? { reason: 'no-signature', detail: 'the signature did not arrive in time' }
          : { reason: 'no-secret', detail: 'the pre-shared key did not arrive in time' },
      );
      return;
    case 'verifying':
      expireVerification(session, now, state);
      return;
    case 'authenticating':
      expireAuth(session, now, state);
      return;
    case 'half-open':
      env.count('half-open-expired');
      endSession(session, now, { reason: 'failed', detail: 'the set-up was not finished in time' });
      return;
    case 'established':
    case 'rekeyed':
      // The redundant one of two: the side that created it should have deleted it, and may never have completed it.
      if (state.pendingFor !== undefined)
        endSession(session, now, { reason: 'redundant', detail: 'both sides rekeyed' });
      else closeSession(session, now, 'rekeyed', 'replaced, and not deleted by the peer');
      return;
    case 'closed':
      registry.removeSession(session);
      return;
    case 'auth-sent':
    case 'deleting':
      return;
    default:
      assertNever(state, 'giveUp');
      return;
  }
}

function resume(session: IkeSession, now: number): void {
  const due = session.deferred.filter((entry) => entry.at <= now);
  session.deferred = session.deferred.filter((entry) => entry.at > now);
  session.armDeferred();
  for (const { task } of due) session.enqueue(now, task);
}

function fireChild(session: IkeSession, child: ChildRecord, now: number, timer: ChildTimer): void {
  switch (timer) {
    case 'rekey':
      if (isIdle(session, child, now)) closeChild(session, now, child, 'expired');
      else rekeyChild(session, now, child);
      return;
    case 'expire':
      child.isExpired = true;
      closeChild(session, now, child, 'expired');
      return;
    case 'linger':
      closeChild(session, now, child, 'rekeyed');
      return;
    default:
      assertNever(timer, 'fireChild');
      return;
  }
}

/** Of SAs that packets call for, those that none has used for half of their time make room for others. */
function isIdle({ env }: IkeSession, { id, createdAt, facts: { config } }: ChildRecord, now: number): boolean {
  if (config.pfp === undefined) return false;
  return now - (env.lastUsed(id) ?? createdAt) > config.lifetime.soft / 2;
}
