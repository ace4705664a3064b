/** How an IKE SA takes the place of another that its peer makes no CHILD SA on (`tasks/open.ts`): make before break. */

import { requestOf } from '../session/child-ask.ts';
import type { IkeSession } from '../session/session.ts';
import { closeSession } from './delete.ts';

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
