/**
 * What an IKE endpoint tells its owner. Events are drained with `pollEvent` after every call that changes the endpoint.
 */
import type { IpAddress, SocketAddress } from '../base/address.ts';
import type { Identity } from '../base/identity.ts';
import type { CipherKeys, CipherSuite } from '../crypto/types.ts';
import type { SelectorPair } from '../policy/selector.ts';
import type { TransportHosts } from '../policy/transport.ts';
import type { ChildConfig } from './config.ts';

/** The pair of UDP end points that an IKE SA and its children use. */
export interface Path {
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
}

/** Why something ended or did not come about: a notify's name, or a reason of our own. */
export type FailureReason =
  | 'NO_PROPOSAL_CHOSEN'
  | 'INVALID_KE_PAYLOAD'
  | 'AUTHENTICATION_FAILED'
  | 'TS_UNACCEPTABLE'
  | 'SINGLE_PAIR_REQUIRED'
  | 'NO_ADDITIONAL_SAS'
  | 'INTERNAL_ADDRESS_FAILURE'
  | 'FAILED_CP_REQUIRED'
  | 'INVALID_SYNTAX'
  | 'INVALID_MAJOR_VERSION'
  | 'INVALID_SELECTORS'
  | 'UNSUPPORTED_CRITICAL_PAYLOAD'
  | 'TEMPORARY_FAILURE'
  | 'CHILD_SA_NOT_FOUND'
  | 'timeout'
  /** ESP would not get out, in UDP or straight over IP. */
  | 'no-esp-path'
  | 'no-secret'
  | 'no-signature'
  | 'no-verdict'
  | 'peer-misbehaved'
  | 'other-error-notify';

/** Why an SA that was up went away. */
export type DownReason =
  | 'requested'
  | 'deleted-by-peer'
  | 'rekeyed'
  | 'redundant'
  | 'expired'
  | 'peer-dead'
  /** Nothing can be sent from its local address any more. */
  | 'path-lost'
  | 'peer-restarted'
  | 'ike-down'
  | 'failed';

/** A CHILD SA pair, ready to be given to ESP. The receiver owns the keys and wipes them. */
export interface ChildSa {
  /** Unique in the endpoint for its life. */
  readonly id: number;
  readonly ikeSaId: number;
  readonly connection: string;
  readonly config: ChildConfig;
  readonly mode: 'tunnel' | 'transport';
  /** In transport mode: between whom. */
  readonly transport: TransportHosts | undefined;
  readonly suite: CipherSuite;
  /** Name of the group of the CHILD SA's own key exchange, if there was one. */
  readonly dhGroup: string | undefined;
  readonly esn: boolean;
  /** SPI of packets to us. */
  readonly spiIn: number;
  /** SPI of packets to the peer. */
  readonly spiOut: number;
  readonly keysIn: CipherKeys;
  readonly keysOut: CipherKeys;
  /** As agreed, which may be narrower than `config.selectors`. */
  readonly selectors: SelectorPair;
  /** What we offered, which the peer may have narrowed; `undefined` when the offer was the peer's. */
  readonly offered: SelectorPair | undefined;
  /** UDP encapsulation (RFC 3948). */
  readonly encapsulated: boolean;
  /** The peer takes packets with padding for traffic flow confidentiality (RFC 7296 §1.3.1, RFC 4303 §2.7). */
  readonly takesPadding: boolean;
  readonly path: Path;
  /** Id of the CHILD SA that this one replaces. */
  readonly replaces: number | undefined;
}

/** Numbers of an IKE SA that stand in logs and status. */
export interface IkeSaSummary {
  readonly id: number;
  readonly connection: string;
  readonly spiInitiator: bigint;
  readonly spiResponder: bigint;
  readonly initiator: boolean;
  readonly localId: Identity;
  readonly remoteId: Identity;
  /** `aes256gcm16-prfsha384-ecp384` */
  readonly suite: string;
  readonly path: Path;
}

/** The signatures that a peer accepts. */
export interface SignatureMethods {
  /** Authentication methods (RFC 7296 §3.8): 14 alone where both sides have RFC 7427, else those from before it. */
  readonly authMethods: readonly number[];
  /** With 14, hash algorithms of which the signature must have one (RFC 7427 §4, RFC 8420). */
  readonly hashes: readonly number[];
}

/** The owner's answer to `need-signature`. */
export type SignatureAnswer =
  | {
      readonly ok: true;
      readonly authMethod: number;
      /** With method 14 the AlgorithmIdentifier, DER, at most 255 bytes. */
      readonly algorithm: Uint8Array | undefined;
      readonly signature: Uint8Array;
      /** DER, our own first; what the peer is to be sent. */
      readonly certificates: readonly Uint8Array[];
    }
  /** `detail` says, for a person, why there is none. */
  | { readonly ok: false; readonly detail: string };

/** The credentials of a peer. Nothing in them is believed before it is verified. */
export interface ReceivedAuth {
  /** X.509, DER, in the order they came: the first is the peer's own. At most 10, of
   * 20 KiB each and 64 KiB in all; none where none was sent. */
  readonly certificates: readonly Uint8Array[];
  /** DER. */
  readonly crls: readonly Uint8Array[];
  /** The identity that it claims, which the certificate must contain. */
  readonly id: Identity;
  /** As in `SignatureMethods`. */
  readonly authMethod: number;
  /** With method 14 the AlgorithmIdentifier, DER, as it came. */
  readonly algorithm: Uint8Array | undefined;
  readonly signature: Uint8Array;
  /** What must have been signed (RFC 7296 §2.15). */
  readonly octets: Uint8Array;
  /** The address that answered us in IKE_SA_INIT, or to which our answer went: another could be forged. */
  readonly from: IpAddress;
}

/** The owner's answer to `need-verification`. */
export type VerificationAnswer = {
  /** Milliseconds of processor time that it took, if the owner knows: they are charged to the peer's address. */
  readonly spent?: number | undefined;
} & (
  | { readonly ok: true }
  /** `reason` is a word or two (`not-trusted`, `identity-mismatch`, …), `detail` for a person. */
  | { readonly ok: false; readonly reason: string; readonly detail: string }
);

/**
 * What an endpoint tells its owner. The three `need-` events want an answer with their `requestId`; `child-up` has
 * the keys.
 */
export type IkeEvent =
  | {
      readonly type: 'ike-up';
      readonly ikeSa: IkeSaSummary;
      /** Id of the IKE SA that it replaces by rekeying: its children are those of this one. */
      readonly replaces: number | undefined;
      /** Id of the IKE SA whose place it is to take when it has all its CHILD SAs. */
      readonly reauthenticates: number | undefined;
    }
  | {
      readonly type: 'ike-down';
      readonly ikeSaId: number;
      readonly connection: string;
      readonly reason: DownReason;
      readonly detail: string;
    }
  /** A CHILD SA with this SPI of ours is asked for: the peer may send on it before its answer is here (RFC 7296 §2.8). */
  | { readonly type: 'child-offered'; readonly connection: string; readonly spiIn: number }
  /** Install both directions for receiving; send on it at once if `sendNow`, else when `child-send` follows. */
  | { readonly type: 'child-up'; readonly child: ChildSa; readonly sendNow: boolean }
  /**
   * From now on packets leave on this SA, instead of whichever carried the child of that name with that peer before
   * (RFC 7296 §2.8). Comes also when that one goes away and another is there.
   */
  | { readonly type: 'child-send'; readonly childId: number }
  | {
      readonly type: 'child-down';
      readonly childId: number;
      readonly connection: string;
      readonly child: string;
      readonly reason: DownReason;
      /** The same peer has another SA for its packets. */
      readonly replaced: boolean;
    }
  /** The peer moved, as an authenticated packet showed (RFC 7296 §2.23): the children's packets go there from now on. */
  | { readonly type: 'path-changed'; readonly ikeSaId: number; readonly path: Path }
  /** The peer has answered a check that `checkIkeSa` has asked for, this many milliseconds after it was first sent. */
  | { readonly type: 'alive'; readonly ikeSaId: number; readonly connection: string; readonly after: number }
  /** The peer asks for what is not here: `a virtual address (…), which is not supported: …`. */
  | { readonly type: 'declined'; readonly connection: string; readonly capability: string }
  /** An attempt to set something up ended without success. `detail` says what was offered and wanted, for a person. */
  | {
      readonly type: 'failed';
      readonly connection: string;
      readonly child: string | undefined;
      /** Of the one SA that it was about, where that was for a part of the child's. */
      readonly selectors: SelectorPair | undefined;
      readonly reason: FailureReason;
      readonly detail: string;
      readonly remote: SocketAddress;
      readonly initiator: boolean;
      /** The next attempt goes another way, and need not wait. */
      readonly again: boolean;
    }
  /** Answer with `answerSecret(now, requestId, …)`; the negotiation waits (bounded) and nothing else does. */
  | {
      readonly type: 'need-secret';
      readonly requestId: number;
      readonly connection: string;
      readonly localId: Identity;
      readonly remoteId: Identity | undefined;
    }
  /** Answer with `answerSignature(now, requestId, …)`: `octets` signed with the key of a certificate for `localId`. */
  | {
      readonly type: 'need-signature';
      readonly requestId: number;
      readonly connection: string;
      readonly localId: Identity;
      readonly remoteId: Identity | undefined;
      readonly octets: Uint8Array;
      readonly accepted: SignatureMethods;
      /** SHA-1 of the SubjectPublicKeyInfo of authorities that the peer trusts; none where it did not say. */
      readonly authorities: readonly Uint8Array[];
    }
  /** Answer with `answerVerification(now, requestId, …)`. Until then the peer has proved nothing and gets nothing. */
  | {
      readonly type: 'need-verification';
      readonly requestId: number;
      readonly connection: string;
      readonly localId: Identity;
      readonly auth: ReceivedAuth;
    }
  /** Something worth a log line that changes no SA: an unknown notify, a refused message. */
  | {
      readonly type: 'note';
      readonly connection: string | undefined;
      readonly level: 'debug' | 'info' | 'warn';
      readonly text: string;
    };
