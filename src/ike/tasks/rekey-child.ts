/**
 * CREATE_CHILD_SA that replaces a CHILD SA (RFC 7296 §1.3.3, §2.8, §2.8.1, §2.25.1).
 *
 * The initiator sends on the new SA at once and then deletes the old one. When both begin at the same time, both new
 * SAs come up, and the one from the exchange with the lowest of the four nonces is deleted by the side that began it.
 */

import { narrowPair } from '../../policy/narrow.ts';
import type { SelectorPair } from '../../policy/selector.ts';
import type { ChildConfig } from '../config.ts';
import type { Failure } from '../failure.ts';
import type { AgreedChild } from '../session/agreed-child.ts';
import { type ChildRecord, readChildSpi } from '../session/child.ts';
import { isPart, requestOf } from '../session/child-ask.ts';
import type { ChildAsk } from '../session/child-request.ts';
import { dropChild, installChild } from '../session/lifecycle.ts';
import type { IkeSession } from '../session/session.ts';
import { NotifyType } from '../wire/iana.ts';
import type { Payload } from '../wire/payload.ts';
import { type NotifyPayload, notifyPayload, saNotifyPayload } from '../wire/payloads/notify.ts';
import { answerOffer } from './child-exchange.ts';
import { awaitDelete, ChildTask, CreateChildTask, discard, rekeysChild } from './create-child.ts';
import { closeChild, findByOutbound } from './delete.ts';
import { supersede } from './open.ts';
import { REFUSED_WAIT, retryTime } from './waits.ts';

export class RekeyChildTask extends ChildTask {
  readonly kind = 'rekey-child' as const;
  readonly child: ChildRecord;

  constructor(child: ChildRecord) {
    super();
    this.child = child;
  }

  protected get replaced(): ChildRecord {
    return this.child;
  }

  isReplaced(child: ChildRecord): boolean {
    return child === this.child && this.collision !== undefined;
  }

  build(session: IkeSession, now: number): readonly Payload[] | undefined {
    if (this.child.state !== 'rekeying' || session.state.name !== 'established') return undefined;
    return [rekeysChild(this.child), ...this.offer(session, successorAsk(session, now, this.child))];
  }

  protected succeed(session: IkeSession, now: number, agreed: AgreedChild, deletedByPeer: boolean): void {
    const { child } = this;
    if (deletedByPeer) {
      // The peer made the new SA and deleted it before we heard of it: it wants neither.
      agreed.keys.wipe();
      this.#finishOld(session, now, 'deleted-by-peer');
      return;
    }
    // A child that was closed meanwhile wants no successor; one whose lifetime is over does.
    if (child.state === 'deleting' && !child.isExpired) {
      discard(session, now, agreed);
      return;
    }
    if (this.lost(agreed)) {
      discard(session, now, agreed);
      awaitDelete(now, child);
      return;
    }
    installChild(session, now, agreed, { sendNow: true });
    const redundant = this.collision?.child;
    if (redundant !== undefined) awaitDelete(now, redundant);
    this.#finishOld(session, now, 'rekeyed');
  }

  #finishOld(session: IkeSession, now: number, reason: 'rekeyed' | 'deleted-by-peer'): void {
    if (!this.child.usable) return;
    this.child.enter('rekeyed');
    closeChild(session, now, this.child, reason);
  }

  protected fail(session: IkeSession, now: number, notify: number | undefined, failure: Failure): void {
    const { child, collision } = this;
    // The peer's own rekeying, or its delete, came first: there is nothing left to replace.
    if (child.state !== 'rekeying' || collision !== undefined) {
      settle(now, child, collision !== undefined);
      return;
    }
    if (notify === NotifyType.CHILD_SA_NOT_FOUND) {
      dropChild(session, child, 'deleted-by-peer');
      session.enqueue(now, new CreateChildTask(requestOf(session, child)));
      return;
    }
    const [config, part] = [currentConfig(session, child), partOf(session, child)];
    session.fail(failure, { child: config, part, initiator: true });
    child.enter('installed');
    child.timers.set('rekey', now + REFUSED_WAIT);
    // Twice, or when there is no time for another attempt: a new IKE SA replaces what cannot be replaced here.
    const isLast = (child.timers.get('expire') ?? Number.POSITIVE_INFINITY) < now + 2 * REFUSED_WAIT;
    if (child.rekeyRefused || isLast) supersede(session, now, notify, requestOf(session, child));
    child.rekeyRefused = true;
  }

  protected busy(session: IkeSession, now: number): void {
    const { child, collision } = this;
    this.abandon();
    if (child.state !== 'rekeying' || collision !== undefined) {
      settle(now, child, collision !== undefined);
      return;
    }
    const at = retryTime(session, now);
    if (at === undefined) return;
    child.enter('installed');
    child.timers.set('rekey', at);
  }
}

/** Our rekeying came to nothing, the peer's did not: the old SA is the peer's to delete. */
function settle(now: number, child: ChildRecord, replaced: boolean): void {
  if (replaced) awaitDelete(now, child);
}

/** The child as it is configured now, or as it was when it is not any more. */
function currentConfig(session: IkeSession, { facts: { config } }: ChildRecord): ChildConfig {
  return session.connectionConfig?.children.find(({ name }) => name === config.name) ?? config;
}

/** As the answer to a peer's request: for the same packets, if it is for some alone. */
function successorConfig(session: IkeSession, child: ChildRecord): ChildConfig {
  const current = currentConfig(session, child);
  return current.pfp === undefined ? current : { ...current, selectors: child.facts.selectors };
}

function partOf(session: IkeSession, child: ChildRecord): SelectorPair | undefined {
  return isPart(session, child) ? child.facts.selectors : undefined;
}

/** Where the SA is for a part of what is configured, so is its successor (RFC 7296 §2.9.2). */
function successorAsk(session: IkeSession, now: number, child: ChildRecord): ChildAsk {
  const config = currentConfig(session, child);
  const part = partOf(session, child);
  const common = part && narrowPair(part, config.selectors);
  if (common?.ok !== true) return { config, selectors: config.selectors, part };
  const { free = common.selectors } = session.registry.claim(session, now, config.name, common.selectors);
  return { config, selectors: free, part };
}

/** Answers a request to replace a CHILD SA. */
export function respondRekeyChild(
  session: IkeSession,
  now: number,
  payloads: readonly Payload[],
  rekey: NotifyPayload,
): readonly Payload[] {
  const spi = readChildSpi(rekey.protocol, rekey.spi);
  const child = spi === undefined ? undefined : findByOutbound(session, spi);
  if (child === undefined) {
    // Perhaps the one that the peer has just made for us, and whose answer is still under way. RFC 7296 §2.25.1 has the peer
    // forget what is not found, and we would send on it.
    if (session.active instanceof ChildTask) return [notifyPayload(NotifyType.TEMPORARY_FAILURE)];
    return [saNotifyPayload(NotifyType.CHILD_SA_NOT_FOUND, rekey.protocol, rekey.spi.slice())];
  }
  // Being deleted, or replaced already.
  if (!child.usable) return [notifyPayload(NotifyType.TEMPORARY_FAILURE)];
  // While they are replaced there are two of each; more of the old ones only a peer has that never deletes them.
  if (session.children.size >= 2 * session.env.limits.maxChildrenPerIkeSa) {
    return [notifyPayload(NotifyType.TEMPORARY_FAILURE)];
  }
  const configs = [successorConfig(session, child)];
  const answer = answerOffer(session, now, configs, { payloads, replaces: child.id });
  if (!answer.ok) {
    if (answer.notify.notify !== NotifyType.INVALID_KE_PAYLOAD) {
      session.fail(answer.failure, { child: child.facts.config, initiator: false });
    }
    return [answer.notify];
  }
  const successor = installChild(session, now, answer.child, { sendNow: false });
  const { active } = session;
  if (active instanceof RekeyChildTask && active.child === child) {
    active.collision = { child: successor, nonces: answer.child.nonces };
  } else awaitDelete(now, child);
  return answer.payloads;
}

/** Begins to replace a CHILD SA. */
export function rekeyChild(session: IkeSession, now: number, child: ChildRecord): void {
  if (child.state !== 'installed') return;
  child.enter('rekeying');
  session.enqueue(now, new RekeyChildTask(child));
}
