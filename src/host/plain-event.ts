/** Events as JSON has them: addresses, identities and selectors as text, SPIs in hexadecimal digits. */
import { formatSocketAddress } from '../base/address.ts';
import { formatIdentity } from '../base/identity.ts';
import { formatIkeSpi, formatSpi } from '../base/spi.ts';
import type { ChildSummary, EngineEvent } from '../engine/events.ts';
import type { IkeSaSummary, Path } from '../ike/events.ts';
import { formatSelector, type SelectorPair } from '../policy/selector.ts';
import { isQuestion } from './answers.ts';

/** `JSON.stringify` takes it from now on. The event stays as it is otherwise. */
export function withJson(event: EngineEvent): EngineEvent {
  return Object.defineProperty(event, 'toJSON', { value: () => plainEvent(event) });
}

function plainEvent(event: EngineEvent): object {
  // What a question holds is only for the function that answers it.
  if (isQuestion(event)) return { type: event.type, tunnel: event.tunnel };
  switch (event.type) {
    case 'ike-up':
      return { ...event, ikeSa: plainIkeSa(event.ikeSa) };
    case 'child-up':
      return { ...event, child: plainChild(event.child) };
    case 'path-changed':
      return { ...event, path: plainPath(event.path) };
    case 'failed':
      return { ...event, remote: formatSocketAddress(event.remote) };
    default:
      return { ...event };
  }
}

function plainIkeSa(sa: IkeSaSummary): object {
  return {
    ...sa,
    spiInitiator: formatIkeSpi(sa.spiInitiator),
    spiResponder: formatIkeSpi(sa.spiResponder),
    localId: formatIdentity(sa.localId),
    remoteId: formatIdentity(sa.remoteId),
    path: plainPath(sa.path),
  };
}

function plainChild(child: ChildSummary): object {
  return {
    ...child,
    spiIn: formatSpi(child.spiIn),
    spiOut: formatSpi(child.spiOut),
    selectors: plainSelectors(child.selectors),
    wanted: plainSelectors(child.wanted),
    path: plainPath(child.path),
  };
}

function plainSelectors({ local, remote }: SelectorPair): object {
  return { local: local.map(formatSelector), remote: remote.map(formatSelector) };
}

function plainPath({ local, remote }: Path): object {
  return { local: formatSocketAddress(local), remote: formatSocketAddress(remote) };
}
