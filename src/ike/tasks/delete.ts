/**
 * INFORMATIONAL exchanges that delete CHILD SAs and IKE SAs (RFC 7296 §1.4.1, §2.25).
 */
import { assertNever } from '../../base/assert.ts';
import type { DownReason } from '../events.ts';
import type { Failure } from '../failure.ts';
import { type ChildRecord, childSpiBytes, readChildSpi } from '../session/child.ts';
import { dropChild, type End, endSession, reportChildDown, reportDown } from '../session/lifecycle.ts';
import type { IkeSession } from '../session/session.ts';
import { configOf, cryptoOf, lifeOf } from '../session/state.ts';
import { ExchangeType, NotifyType, ProtocolId } from '../wire/iana.ts';
import type { Payload } from '../wire/payload.ts';
import type { DeletePayload } from '../wire/payloads/delete.ts';
import { notifyPayload } from '../wire/payloads/notify.ts';
import type { Task } from './task.ts';

/** Deletes a CHILD SA of ours, or one that we agreed on and did not install: that one has only its SPI. */
export class DeleteChildTask implements Task<IkeSession> {
  readonly kind = 'delete-child' as const;
  readonly exchange: ExchangeType = ExchangeType.INFORMATIONAL;
  readonly child: ChildRecord | undefined;
  readonly spiIn: number;
  readonly reason: DownReason;

  constructor(what: ChildRecord | number, reason: DownReason) {
    this.child = typeof what === 'number' ? undefined : what;
    this.spiIn = typeof what === 'number' ? what : what.facts.spiIn;
    this.reason = reason;
  }

  build(): readonly Payload[] | undefined {
    if (this.child?.state === 'closed') return undefined;
    return [deleteChildren([this.spiIn])];
  }

  process(session: IkeSession): void {
    // Whatever SPIs the response names: any response means that the peer does not have the SA.
    if (this.child !== undefined) dropChild(session, this.child, this.reason);
  }

  abandon(): void {}
}

function deleteChildren(spis: readonly number[]): DeletePayload {
  return { type: 'delete', protocol: ProtocolId.ESP, spis: spis.map(childSpiBytes) };
}

/**
 * Begins to delete a CHILD SA. An SA that was replaced is received on until the peer has confirmed, so that nothing
 * that is under way is lost; any other is gone for the owner at once.
 */
export function closeChild(session: IkeSession, now: number, child: ChildRecord, reason: DownReason): void {
  if (child.state === 'closed') return;
  if (child.state === 'deleting') {
    // Its lifetime ended while the peer takes its time to confirm: no more packets on it.
    if (reason === 'expired') reportChildDown(session, child, reason);
    return;
  }
  child.enter('deleting');
  if (reason !== 'rekeyed' && reason !== 'redundant') reportChildDown(session, child, reason);
  session.enqueue(now, new DeleteChildTask(child, reason));
}

/** Deletes an IKE SA, or tells the peer that its authentication failed (RFC 7296 §2.21.2). */
export class DeleteIkeTask implements Task<IkeSession> {
  readonly kind = 'delete-ike' as const;
  readonly exchange: ExchangeType = ExchangeType.INFORMATIONAL;
  readonly #unauthenticated: boolean;

  constructor({ unauthenticated = false }: { readonly unauthenticated?: boolean } = {}) {
    this.#unauthenticated = unauthenticated;
  }

  build(): readonly Payload[] {
    if (this.#unauthenticated) return [notifyPayload(NotifyType.AUTHENTICATION_FAILED)];
    return [{ type: 'delete', protocol: ProtocolId.IKE, spis: [] }];
  }

  process(session: IkeSession, now: number): void {
    endSession(session, now, { reason: 'requested', detail: 'deleted' });
  }

  abandon(): void {}
}

/**
 * Begins to delete an IKE SA. The owner is told at once; the SA stays only until the peer has confirmed.
 *
 * Once our IKE_AUTH is out the peer may have the SA, whether its answer has come or not: the delete follows that answer.
 */
export function closeSession(session: IkeSession, now: number, reason: DownReason, detail: string): void {
  const { state } = session;
  switch (state.name) {
    case 'established':
    case 'rekeyed':
    case 'auth-sent':
    case 'verifying':
      beginDelete(session, now, { reason, detail }, new DeleteIkeTask());
      return;
    case 'init-sent':
    case 'credentials-wanted':
    case 'half-open':
    case 'authenticating':
      endSession(session, now, { reason, detail });
      return;
    case 'deleting':
    case 'closed':
      return;
    default:
      assertNever(state, 'closeSession');
  }
}

/** The authentication of the peer failed: it is told so, and the IKE SA ends. */
export function rejectPeer(session: IkeSession, now: number, failure: Failure): void {
  session.fail(failure, { initiator: true });
  beginDelete(session, now, { reason: 'failed', detail: failure.detail }, new DeleteIkeTask({ unauthenticated: true }));
}

/** The peer's answer to IKE_AUTH is of no use, but it has the IKE SA since it answered: it ends there too (RFC 7296 §2.21.2). */
export function declineAnswer(session: IkeSession, now: number, failure: Failure): void {
  session.fail(failure, { initiator: true });
  beginDelete(session, now, { reason: 'failed', detail: failure.detail }, new DeleteIkeTask());
}

function beginDelete(session: IkeSession, now: number, end: End, task: DeleteIkeTask): void {
  const { state } = session;
  const [crypto, config] = [cryptoOf(state), configOf(state)];
  if (crypto === undefined || config === undefined) return;
  session.abandonTasks();
  reportDown(session, end);
  session.timers.clearAll();
  session.dropFragments();
  session.enter({ name: 'deleting', config, crypto, life: lifeOf(state) });
  session.enqueue(now, task);
}

/** Answers Delete payloads for CHILD SAs; `informational.ts` handles those for the IKE SA. */
export function respondDeleteChildren(session: IkeSession, payload: DeletePayload): Payload[] {
  const ours: number[] = [];
  for (const bytes of payload.spis) {
    const spi = readChildSpi(payload.protocol, bytes);
    const child = spi === undefined ? undefined : findByOutbound(session, spi);
    if (spi === undefined) continue;
    if (child === undefined) {
      // Perhaps one whose making we have not heard of yet: the answer is still under way.
      session.active?.peerDeleted?.(spi);
      continue;
    }
    const crossed = session.active instanceof DeleteChildTask && session.active.child === child;
    // RFC 7296 §1.4.1: when both delete, neither answers with a Delete payload of its own.
    if (!crossed) ours.push(child.facts.spiIn);
    dropChild(session, child, child.state === 'rekeyed' ? 'rekeyed' : downReason(session, child));
  }
  return ours.length === 0 ? [] : [deleteChildren(ours)];
}

function downReason({ active }: IkeSession, child: ChildRecord): DownReason {
  // While our own rekeying is under way the peer replaced it, and deletes it as it should.
  if (active?.isReplaced?.(child)) return 'rekeyed';
  if (child.state !== 'deleting') return 'deleted-by-peer';
  return active instanceof DeleteChildTask && active.child === child ? active.reason : 'rekeyed';
}

/** The CHILD SA whose packets leave with this SPI, which is how the peer names it. */
export function findByOutbound(session: IkeSession, spiOut: number): ChildRecord | undefined {
  for (const child of session.children.values()) if (child.facts.spiOut === spiOut) return child;
  return undefined;
}
