/** Events for the owner of an engine: those of IKE, with tunnels in place of connections, and without keys. */
import { formatSocketAddress, type SocketAddress } from '../base/address.ts';
import { assertNever } from '../base/assert.ts';
import type { Identity } from '../base/identity.ts';
import { formatSuite } from '../crypto/proposal-text.ts';
import type { ChildSa, DownReason, FailureReason, IkeEvent, IkeSaSummary, Path } from '../ike/events.ts';
import { type SelectorPair, simplifySelectors } from '../policy/selector.ts';

/** A CHILD SA without its keys. */
export interface ChildSummary {
  readonly id: number;
  /** As in the configuration. */
  readonly name: string;
  readonly mode: 'tunnel' | 'transport';
  readonly spiIn: number;
  readonly spiOut: number;
  /** `aes256gcm16-x25519` */
  readonly suite: string;
  readonly esn: boolean;
  readonly encapsulated: boolean;
  /** As agreed. */
  readonly selectors: SelectorPair;
  /** What is configured; of a child that is populated from packets, what one calls for. */
  readonly wanted: SelectorPair;
  /** Whether we offered. */
  readonly initiator: boolean;
  readonly path: Path;
  readonly replaces: number | undefined;
}

/** Why an attempt ended before a packet was sent. */
export type LocalFailure = 'no-route' | 'not-possible';

/**
 * What an engine tells its owner: drain it with `pollEvent`. The three `need-` events want an answer with their
 * `requestId`.
 */
export type EngineEvent =
  | {
      readonly type: 'ike-up';
      readonly tunnel: string;
      readonly ikeSa: IkeSaSummary;
      /** Id of the IKE SA that it replaces by rekeying. */
      readonly replaces: number | undefined;
      /** Id of the IKE SA whose place it is to take when it has all its CHILD SAs. */
      readonly reauthenticates: number | undefined;
    }
  | {
      readonly type: 'ike-down';
      readonly tunnel: string;
      readonly ikeSaId: number;
      readonly reason: DownReason;
      readonly detail: string;
    }
  | { readonly type: 'child-up'; readonly tunnel: string; readonly child: ChildSummary }
  | {
      readonly type: 'child-down';
      readonly tunnel: string;
      readonly childId: number;
      readonly child: string;
      readonly reason: DownReason;
    }
  /** The peer has answered a check that `check` has asked for, this many milliseconds after it was first sent. */
  | { readonly type: 'alive'; readonly tunnel: string; readonly ikeSaId: number; readonly after: number }
  /** The peer asks for a capability that is not supported here, in words. */
  | { readonly type: 'declined'; readonly tunnel: string; readonly capability: string }
  | { readonly type: 'path-changed'; readonly tunnel: string; readonly ikeSaId: number; readonly path: Path }
  | {
      readonly type: 'failed';
      readonly tunnel: string;
      readonly child: string | undefined;
      readonly reason: FailureReason | LocalFailure;
      readonly detail: string;
      readonly remote: SocketAddress;
    }
  /** Answer with `answerSecret`: the key of that connection, whatever identity the peer claims. */
  | {
      readonly type: 'need-secret';
      readonly tunnel: string;
      readonly requestId: number;
      readonly connection: string;
      readonly localId: Identity;
      readonly remoteId: Identity | undefined;
    }
  /** Answer with `answerSignature`, `answerVerification`. */
  | (Extract<IkeEvent, { readonly type: 'need-signature' | 'need-verification' }> & { readonly tunnel: string })
  | {
      readonly type: 'note';
      readonly tunnel: string | undefined;
      readonly level: 'debug' | 'info' | 'warn';
      readonly text: string;
    };

/** The engine's event for one of IKE; `undefined` for one that the owner has no use for. */
export function engineEvent(event: IkeEvent, tunnel: string | undefined): EngineEvent | undefined {
  if (event.type === 'note') return { type: 'note', tunnel, level: event.level, text: event.text };
  if (tunnel === undefined) return event.type === 'failed' ? unassociatedFailed(event) : undefined;
  switch (event.type) {
    case 'ike-up': {
      const { ikeSa, replaces, reauthenticates } = event;
      return { type: 'ike-up', tunnel, ikeSa, replaces, reauthenticates };
    }
    case 'ike-down':
      return { type: 'ike-down', tunnel, ikeSaId: event.ikeSaId, reason: event.reason, detail: event.detail };
    case 'child-up':
      return { type: 'child-up', tunnel, child: childSummary(event.child) };
    case 'child-offered':
    case 'child-send':
      return undefined;
    case 'child-down':
      return { type: 'child-down', tunnel, childId: event.childId, child: event.child, reason: event.reason };
    case 'path-changed':
      return { type: 'path-changed', tunnel, ikeSaId: event.ikeSaId, path: event.path };
    case 'alive':
      return { type: 'alive', tunnel, ikeSaId: event.ikeSaId, after: event.after };
    case 'declined':
      return { type: 'declined', tunnel, capability: event.capability };
    case 'failed':
      return {
        type: 'failed',
        tunnel,
        child: event.child,
        reason: event.reason,
        detail: event.detail,
        remote: event.remote,
      };
    case 'need-secret':
    case 'need-signature':
    case 'need-verification':
      return { ...event, tunnel };
    default:
      return assertNever(event, 'IKE event');
  }
}

/** A failed attempt of a peer that no tunnel is for. */
function unassociatedFailed({ remote, reason, detail }: Extract<IkeEvent, { type: 'failed' }>): EngineEvent {
  const text = `negotiation with ${formatSocketAddress(remote)} failed: ${reason}: ${detail}`;
  return { type: 'note', tunnel: undefined, level: 'warn', text };
}

function wantedBy({ config, offered, selectors }: ChildSa): SelectorPair {
  if (config.pfp === undefined) return config.selectors;
  // A peer that populates from packets asks for one value of many.
  if (offered === undefined) return selectors;
  return { local: simplifySelectors(offered.local), remote: simplifySelectors(offered.remote) };
}

export function childSummary(sa: ChildSa): ChildSummary {
  const suite = formatSuite(sa.suite);
  return {
    id: sa.id,
    name: sa.config.name,
    mode: sa.mode,
    spiIn: sa.spiIn,
    spiOut: sa.spiOut,
    suite: sa.dhGroup === undefined ? suite : `${suite}-${sa.dhGroup}`,
    esn: sa.esn,
    encapsulated: sa.encapsulated,
    selectors: sa.selectors,
    wanted: wantedBy(sa),
    initiator: sa.offered !== undefined,
    path: sa.path,
    replaces: sa.replaces,
  };
}
