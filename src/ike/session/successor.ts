/** How an IKE SA takes the place of another that its peer makes no CHILD SA on (`open-session.ts`): make before break. */

import { closeSession } from '../tasks/delete.ts';
import { requestOf } from './child-request.ts';
import type { IkeSession } from './session.ts';

/** The new IKE SA is up: with its CHILD SA it takes over, without one it was of no use. */
export function settleSuccessor(session: IkeSession, now: number): void {
  const old = session.successorOf;
  session.successorOf = undefined;
  if (old?.state.name !== 'established') return;
  if (![...session.children.values()].some(({ usable }) => usable)) {
    closeSession(session, now, 'redundant', 'the peer refuses the CHILD SA on this IKE SA too');
    return;
  }
  const requests = [...old.children.values()].map(requestOf);
  closeSession(old, now, 'redundant', `IKE SA ${session.id} has taken its place`);
  session.host.bringUp(now, session, requests);
}
