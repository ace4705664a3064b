/** What an IKE endpoint shows of itself: the state of its SAs, and what it counted. */

import type { Identity } from '../base/identity.ts';
import type { SelectorPair } from '../policy/selector.ts';
import type { Path } from './events.ts';

/** Times are milliseconds of the owner's clock, as it was handed in. */
export interface ChildSaStatus {
  readonly id: number;
  readonly name: string;
  /** `installed` carries traffic; `rekeying` does and is being replaced; the others are on their way out. */
  readonly state: 'installed' | 'rekeying' | 'rekeyed' | 'deleting';
  readonly mode: 'tunnel' | 'transport';
  /** `aes256gcm16-x25519`, with `-esn` where extended sequence numbers were agreed. */
  readonly suite: string;
  readonly spiIn: number;
  readonly spiOut: number;
  readonly selectors: SelectorPair;
  readonly encapsulated: boolean;
  readonly createdAt: number;
  readonly rekeyAt: number | undefined;
  readonly expiresAt: number | undefined;
}

/** The states of an IKE SA, see `session/state.ts`. */
export type IkeSaState =
  | 'init-sent'
  | 'credentials-wanted'
  | 'auth-sent'
  | 'verifying'
  | 'half-open'
  | 'authenticating'
  | 'established'
  | 'rekeyed'
  | 'deleting'
  | 'closed';

/** An IKE SA as it stands. Times are milliseconds of the owner's clock. */
export interface IkeSaStatus {
  readonly id: number;
  /** `undefined` until the peer that opened the SA has identified itself. */
  readonly connection: string | undefined;
  /** It was made for a connection that was removed since; another may have its name now. */
  readonly former: boolean;
  readonly state: IkeSaState;
  readonly initiator: boolean;
  readonly spiInitiator: bigint;
  readonly spiResponder: bigint;
  readonly localId: Identity | undefined;
  readonly remoteId: Identity | undefined;
  /** `aes256gcm16-prfsha384-ecp384`; `undefined` until it is agreed. */
  readonly suite: string | undefined;
  readonly path: Path;
  /** Who is behind a NAT, as detection found (RFC 7296 §2.23). */
  readonly nat: { readonly local: boolean; readonly remote: boolean };
  readonly createdAt: number;
  readonly establishedAt: number | undefined;
  readonly rekeyAt: number | undefined;
  readonly expiresAt: number | undefined;
  /** When the last authentic message or packet of the peer came. */
  readonly lastHeardAt: number | undefined;
  /** The request of ours that waits for its answer: how often it was sent, and when first. */
  readonly request: { readonly sent: number; readonly since: number } | undefined;
  readonly children: readonly ChildSaStatus[];
}

/** Why a datagram was refused, and what was done to hold off others. */
const COUNTER_NAMES = [
  'datagrams-in',
  'datagrams-out',
  'retransmissions',
  'malformed-truncated',
  'malformed-trailing-bytes',
  'malformed-bad-length',
  'malformed-bad-value',
  'malformed-bad-version',
  'malformed-too-many',
  'malformed-bad-order',
  'major-version',
  'unknown-spi',
  'unexpected-exchange',
  'bad-sk',
  'rule-violation',
  'old-message-id',
  'replayed-request',
  'unexpected-response',
  'unauthenticated-notify',
  'init-ignored',
  'reflected',
  'fragment-ignored',
  'fragment-refused',
  'fragments-expired',
  'cookie-demanded',
  'cookie-bad',
  'half-open-full',
  'half-open-displaced',
  'half-open-expired',
  'rate-limited',
  'path-refused',
  'invalid-key-exchange',
  'authentication-failed',
  'authentication-deferred',
  'bug',
] as const;

/** The name of a counter of an endpoint. Stable: they stand in logs and status. */
export type IkeCounterName = (typeof COUNTER_NAMES)[number];

/** Messages that were refused, dropped or limited since the endpoint was made, by reason. */
export type IkeCounters = Readonly<Record<IkeCounterName, number>>;

export function noCounts(): Record<IkeCounterName, number> {
  return Object.fromEntries(COUNTER_NAMES.map((name) => [name, 0])) as Record<IkeCounterName, number>;
}
