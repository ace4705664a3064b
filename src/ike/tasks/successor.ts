/**
 * How an IKE SA takes the place of another, make before break: of one that its peer makes no CHILD SA on (`tasks/open.ts`), or that
 * is reauthenticated (`tasks/reauthenticate.ts`).
 */

import { type ChildRecord, carrySameTraffic } from '../session/child.ts';
import { requestOf } from '../session/child-ask.ts';
import type { IkeSession } from '../session/session.ts';
import { ExchangeType } from '../wire/iana.ts';
import { closeSession } from './delete.ts';
import type { Task } from './task.ts';

/** How long a CHILD SA that the peer has put off is waited for, before it is looked again, in milliseconds. */
const LOOK_AGAIN = 1_000;

/** The new IKE SA is up: with its CHILD SA it takes over, without one it was of no use. */
export function settleSuccessor(session: IkeSession, now: number, successorOf: number): void {
  const old = session.registry.session(successorOf);
  if (old?.state.name !== 'established') return;
  if (![...session.children.values()].some(({ usable }) => usable)) {
    closeSession(session, now, 'redundant', 'the peer refuses the CHILD SA on this IKE SA too');
    return;
  }
  const requests = [...old.children.values()].map((child) => requestOf(old, child));
  closeSession(old, now, 'redundant', `IKE SA ${session.id} has taken its place`);
  session.registry.bringUp(now, session, requests);
}

/** In line behind the requests for the CHILD SAs: closes the old IKE SA, or the new one where that lacks any of them. */
export class TakeOverTask implements Task<IkeSession> {
  readonly kind = 'take-over' as const;
  /** Of those that it waits for, in which it is in line. */
  readonly exchange: ExchangeType = ExchangeType.CREATE_CHILD_SA;
  readonly old: number;

  constructor(old: number) {
    this.old = old;
  }

  build(session: IkeSession, now: number): undefined {
    if (session.queue.some(({ exchange }) => exchange === this.exchange)) session.queue.push(this);
    else if (session.deferred.length > 0) session.defer(now + LOOK_AGAIN, this);
    else this.#settle(session, now);
    return undefined;
  }

  #settle(session: IkeSession, now: number): void {
    const old = session.registry.session(this.old);
    if (old?.state.name !== 'established' || session.state.name !== 'established') return;
    const lacking = usableChildren(old).filter(
      (child) => !usableChildren(session).some((other) => carrySameTraffic(other, child)),
    );
    if (lacking.length === 0) {
      closeSession(old, now, 'redundant', `IKE SA ${session.id} has taken its place`);
      return;
    }
    const names = [...new Set(lacking.map(({ facts }) => facts.config.name))].join(', ');
    closeSession(session, now, 'redundant', `the peer refuses CHILD SAs on it that IKE SA ${old.id} has: ${names}`);
  }

  process(): void {}

  abandon(): void {}
}

export function usableChildren({ children }: IkeSession): ChildRecord[] {
  return [...children.values()].filter(({ usable }) => usable);
}
