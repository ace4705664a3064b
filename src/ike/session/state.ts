/**
 * The states of an IKE SA and the transitions that there are. A state carries only what is valid in it.
 *
 * ```text
 *   initiator   init-sent → proof-wanted → auth-sent → verifying ─┐
 *                                                                 ├→ established → rekeyed → deleting → closed
 *   responder   half-open → authenticating ───────────────────────┘
 * ```
 */

import type { Identity } from '../../base/identity.ts';
import type { DownReason } from '../events.ts';
import type { IkeCrypto } from '../keys/ike-crypto.ts';
import type { Nonces } from '../keys/keys.ts';
import type { IkeSaState } from '../status.ts';
import type { Payload } from '../wire/payload.ts';
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

/** Who both ends proved to be, and what the remote one proved it with. */
export interface Peers {
  readonly localId: Identity;
  readonly remoteId: Identity;
  readonly credential: Credential;
}

/** The CHILD SA that was asked for in IKE_AUTH. */
export interface FirstChild {
  readonly request: ChildRequest;
  readonly offer: ChildOffer;
}

/** The response to our IKE_AUTH. `peers` is what the two say of themselves. */
export interface AuthResponse {
  readonly crypto: IkeCrypto;
  readonly setUp: SetUp;
  readonly payloads: readonly Payload[];
  readonly peers: Peers;
  readonly first: FirstChild | undefined;
}

export type SessionState =
  /** Our IKE_SA_INIT is out. */
  | { readonly name: 'init-sent' }
  /** It was answered; the owner is asked for the secret, or for a signature. */
  | { readonly name: 'proof-wanted'; readonly crypto: IkeCrypto; readonly setUp: SetUp; readonly requestId: number }
  /** Our IKE_AUTH is out. */
  | { readonly name: 'auth-sent'; readonly crypto: IkeCrypto; readonly setUp: SetUp }
  /** It was answered; the owner is asked about the peer's proof. To the peer the IKE SA is up. */
  | {
      readonly name: 'verifying';
      readonly crypto: IkeCrypto;
      readonly requestId: number;
      readonly response: AuthResponse;
    }
  /** We answered an IKE_SA_INIT. */
  | { readonly name: 'half-open'; readonly crypto: IkeCrypto; readonly setUp: SetUp }
  /** The peer's IKE_AUTH is here; the owner is asked for the secret. */
  | {
      readonly name: 'authenticating';
      readonly crypto: IkeCrypto;
      readonly setUp: SetUp;
      readonly request: readonly Payload[];
      readonly peers: Peers;
      readonly requestId: number;
      /** What the owner is asked for: what the peer is judged by, or what we prove ourselves with. */
      readonly step: 'peer' | 'self';
    }
  | { readonly name: 'established'; readonly crypto: IkeCrypto; readonly peers: Peers; readonly since: number }
  /** Another IKE SA took over; one side deletes this one. */
  | { readonly name: 'rekeyed'; readonly crypto: IkeCrypto; readonly peers: Peers; readonly since: number }
  /** Our DELETE is out, or waits for the window. The owner was told already. */
  | { readonly name: 'deleting'; readonly crypto: IkeCrypto; readonly reason: DownReason }
  /** Gone; kept a little while to answer retransmissions from the cache. */
  | { readonly name: 'closed' };

/** From where to where. Checked at run time: a transition that is not here is a bug. */
export const TRANSITIONS: Readonly<Record<IkeSaState, readonly IkeSaState[]>> = {
  'init-sent': ['proof-wanted', 'closed'],
  'proof-wanted': ['auth-sent', 'closed'],
  'auth-sent': ['verifying', 'established', 'deleting', 'closed'],
  verifying: ['established', 'deleting', 'closed'],
  'half-open': ['authenticating', 'closed'],
  authenticating: ['authenticating', 'established', 'closed'],
  established: ['rekeyed', 'deleting', 'closed'],
  rekeyed: ['deleting', 'closed'],
  deleting: ['closed'],
  closed: [],
};

/** The states in which exchanges on an authenticated SA take place. */
export type LiveState = Extract<SessionState, { readonly name: 'established' | 'rekeyed' }>;

export function isLive(state: SessionState): state is LiveState {
  return state.name === 'established' || state.name === 'rekeyed';
}

/** The cryptography of a state that has any. */
export function cryptoOf(state: SessionState): IkeCrypto | undefined {
  return 'crypto' in state ? state.crypto : undefined;
}

/** The question to the owner that a state waits for. */
export function questionOf(state: SessionState): number | undefined {
  return 'requestId' in state ? state.requestId : undefined;
}
