/**
 * The states of an IKE SA and the transitions that there are. A state carries only what is valid in it.
 *
 * ```text
 *   initiator   init-sent → credentials-wanted → auth-sent → verifying ─┐
 *                                                                 ├→ established → rekeyed → deleting → closed
 *   responder   half-open → authenticating ───────────────────────┘
 * ```
 */

import type { SocketAddress } from '../../base/address.ts';
import { invariant } from '../../base/assert.ts';
import type { Identity } from '../../base/identity.ts';
import type { DhGroup, DhKeyPair } from '../../crypto/types.ts';
import type { Candidates } from '../candidates.ts';
import type { ConnectionConfig } from '../config.ts';
import type { Failure } from '../failure.ts';
import type { IkeCrypto } from '../keys/ike-crypto.ts';
import type { Nonces } from '../keys/keys.ts';
import type { GroupChoice } from '../proposals/groups.ts';
import type { IkeSaState } from '../status.ts';
import type { Payload } from '../wire/payload.ts';
import type { NotifyPayload } from '../wire/payloads/notify.ts';
import type { ChildOffer, ChildRequest } from './child-request.ts';
import type { Credential } from './credential.ts';

/** What AUTH is computed over and the first CHILD SA's keys are derived from (RFC 7296 §2.15, §2.17). */
export interface SetUp {
  readonly initRequest: Uint8Array;
  readonly initResponse: Uint8Array;
  readonly nonces: Nonces;
  /** The peer said CHILDLESS_IKEV2_SUPPORTED (RFC 6023). */
  readonly childless: boolean;
  /**
   * Hash algorithms that the peer verifies signatures with, where both sides sent SIGNATURE_HASH_ALGORITHMS: digital
   * signatures were agreed on (RFC 7427 §4).
   */
  readonly peerHashes: readonly number[] | undefined;
  /** Authorities that the responder asked for certificates of: SHA-1 of their keys. None as responder. */
  readonly authorities: readonly Uint8Array[];
}

/** The identities of both ends, and the kind of credential that the remote one uses. */
export interface Peers {
  readonly localId: Identity;
  readonly remoteId: Identity;
  readonly credential: Credential;
}

/** A set-up that we began. */
export interface Attempt {
  /** As it was when the set-up began. */
  readonly config: ConnectionConfig;
  /** The children that are to be brought up with the IKE SA. BOUNDED: `want`. */
  readonly wanted: ChildRequest[];
  /** Id of the IKE SA whose place this one is to take (`tasks/open.ts`). */
  readonly successorOf: number | undefined;
  /** Id of the IKE SA that this one is to replace with all its CHILD SAs (`tasks/reauthenticate.ts`). */
  readonly reauthenticates: number | undefined;
}

/** Our IKE_SA_INIT request, and what its answers have changed in it so far. */
export interface InitRequest {
  readonly nonce: Uint8Array;
  readonly groups: GroupChoice;
  group: DhGroup;
  keyPair: DhKeyPair;
  cookie: NotifyPayload | undefined;
  /** Cookies that the peer has demanded. */
  cookies: number;
  /** The message as it was sent last. */
  bytes: Uint8Array;
  /** Reported to the owner if no better response comes: no response of IKE_SA_INIT is authenticated. */
  likely: Failure | undefined;
}

/** The CHILD SA that was asked for in IKE_AUTH. */
export interface FirstChild {
  readonly request: ChildRequest;
  readonly offer: ChildOffer;
}

/** The response to our IKE_AUTH. `peers` is what the two say of themselves. */
export interface AuthResponse {
  readonly attempt: Attempt;
  readonly crypto: IkeCrypto;
  readonly setUp: SetUp;
  readonly payloads: readonly Payload[];
  readonly peers: Peers;
  readonly first: FirstChild | undefined;
}

/** Where an IKE SA comes from, through all its rekeyings: what duplicates are compared by. */
export interface Origin {
  readonly spi: bigint;
  readonly initiator: boolean;
  readonly id: number;
  /** Ids and orders of establishment come out of one counter. */
  readonly establishedOrder: number;
  /** See `shownAt` in `credential.ts`. */
  readonly shownAt: SocketAddress | undefined;
}

/** What an IKE SA knows once both ends are authenticated. */
export interface Life {
  /** As it was when the SA was made; `IkeSession.current` gives the one that holds now. */
  readonly config: ConnectionConfig;
  readonly crypto: IkeCrypto;
  readonly peers: Peers;
  /** The first of the IKE SAs that this one is the latest of; itself, when it replaced none. */
  readonly origin: Origin;
  /** `undefined` when it came out of a rekeying and is not in use yet. */
  readonly establishedAt: number | undefined;
  /** Id of the IKE SA that this one replaced. */
  readonly replaces: number | undefined;
  /** `ike-up` was reported to the owner, and `ike-down` not yet. */
  announced: boolean;
  /** Result of a simultaneous rekeying of the IKE SA with this id, and may turn out to be the redundant one. */
  pendingFor: number | undefined;
  /** When an IKE SA was last begun in the place of this one. */
  supersededAt: number | undefined;
  /** When the peer was last probed, because another IKE SA may have replaced this one. */
  probedAt: number | undefined;
  /** Since when the peer has been answering TEMPORARY_FAILURE. */
  busySince: number | undefined;
  /** It was reported to the owner that the peer sends from a port to which ESP cannot follow it. */
  toldOfPath: boolean;
}

/** Of an IKE SA that was just made. */
export function newLife(
  facts: Omit<Life, 'announced' | 'pendingFor' | 'supersededAt' | 'probedAt' | 'busySince' | 'toldOfPath'>,
): Life {
  return {
    ...facts,
    announced: false,
    pendingFor: undefined,
    supersededAt: undefined,
    probedAt: undefined,
    busySince: undefined,
    toldOfPath: false,
  };
}

export type SessionState =
  /** Our IKE_SA_INIT is out. */
  | { readonly name: 'init-sent'; readonly attempt: Attempt; readonly init: InitRequest }
  /** It was answered; the owner is asked for the secret, or for a signature. */
  | {
      readonly name: 'credentials-wanted';
      readonly attempt: Attempt;
      readonly crypto: IkeCrypto;
      readonly setUp: SetUp;
      readonly requestId: number;
    }
  /** Our IKE_AUTH is out. */
  | { readonly name: 'auth-sent'; readonly attempt: Attempt; readonly crypto: IkeCrypto }
  /** It was answered; the owner is asked about the peer's credentials. To the peer the IKE SA is up. */
  | {
      readonly name: 'verifying';
      readonly attempt: Attempt;
      readonly crypto: IkeCrypto;
      readonly requestId: number;
      readonly response: AuthResponse;
    }
  /** We answered an IKE_SA_INIT. */
  | {
      readonly name: 'half-open';
      readonly crypto: IkeCrypto;
      readonly setUp: SetUp;
      /** The connections that the peer may turn out to mean, as they were then. */
      readonly candidates: Candidates;
      /** What the peer asked for in IKE_SA_INIT, and cannot have: in words, until it is authenticated. */
      readonly capabilities: readonly string[];
    }
  /** The peer's IKE_AUTH is here; the owner is asked for the secret, for a verdict on the peer, or for a signature. */
  | {
      readonly name: 'authenticating';
      readonly config: ConnectionConfig;
      readonly crypto: IkeCrypto;
      readonly setUp: SetUp;
      readonly capabilities: readonly string[];
      readonly request: readonly Payload[];
      readonly peers: Peers;
      /** `undefined` before the owner is asked. */
      readonly requestId: number | undefined;
      /** What the owner is asked for: what the peer is judged by, or what we prove ourselves with. */
      readonly step: 'peer' | 'self';
    }
  | ({ readonly name: 'established' } & Life)
  /** Another IKE SA took over; one side deletes this one. */
  | ({ readonly name: 'rekeyed' } & Life)
  /** Our DELETE was sent, or waits for the window. `ike-down` was reported already. */
  | {
      readonly name: 'deleting';
      readonly config: ConnectionConfig;
      readonly crypto: IkeCrypto;
      /** When it was up before. */
      readonly life: Life | undefined;
    }
  /** Gone; kept a little while to answer retransmissions from the cache. */
  | { readonly name: 'closed' };

/** The members of the union with these names. */
export type StateOf<N extends IkeSaState> = Extract<SessionState, { readonly name: N }>;

/** From where to where. Checked at run time: a transition that is not here is a bug. */
export const TRANSITIONS: Readonly<Record<IkeSaState, readonly IkeSaState[]>> = {
  'init-sent': ['credentials-wanted', 'closed'],
  'credentials-wanted': ['auth-sent', 'closed'],
  'auth-sent': ['verifying', 'established', 'deleting', 'closed'],
  verifying: ['established', 'deleting', 'closed'],
  'half-open': ['authenticating', 'closed'],
  authenticating: ['authenticating', 'established', 'closed'],
  // An IKE SA that came out of a rekeying comes into use.
  established: ['established', 'rekeyed', 'deleting', 'closed'],
  rekeyed: ['deleting', 'closed'],
  deleting: ['closed'],
  closed: [],
};

/** The states in which exchanges on an authenticated SA take place. */
export type LiveState = StateOf<'established' | 'rekeyed'>;

export type Established = StateOf<'established'>;

export function isLive(state: SessionState): state is LiveState {
  return state.name === 'established' || state.name === 'rekeyed';
}

/** The state of an IKE SA that is up. @throws AssertionError for one that is not */
export function liveOf(state: SessionState): LiveState {
  invariant(isLive(state), `an IKE SA that is up is ${state.name}`);
  return state;
}

/** What is known of an IKE SA that is up, or was before its delete. */
export function lifeOf(state: SessionState): Life | undefined {
  if (isLive(state)) return state;
  return state.name === 'deleting' ? state.life : undefined;
}

/** In use: established, and not the one too many of a rekeying from both sides. */
export function isInUse(state: SessionState): state is Established {
  return state.name === 'established' && state.pendingFor === undefined;
}

/** The configuration that a state goes by, once it is known which connection the IKE SA is of. */
export function configOf(state: SessionState): ConnectionConfig | undefined {
  if ('attempt' in state) return state.attempt.config;
  return 'config' in state ? state.config : undefined;
}

/** The cryptography of a state that has any. */
export function cryptoOf(state: SessionState): IkeCrypto | undefined {
  return 'crypto' in state ? state.crypto : undefined;
}

/** The question to the owner that a state waits for. */
export function questionOf(state: SessionState): number | undefined {
  return 'requestId' in state ? state.requestId : undefined;
}
