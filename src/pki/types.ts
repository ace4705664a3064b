/**
 * The interfaces to what holds private keys and verifies certificates: the two objects that answer an
 * IKE SA's requests. Both are asynchronous, so that a hardware module or a service can stand behind them.
 *
 * They know the methods of RFC 7296 §3.8 by IANA's numbers and those of RFC 7427 by the DER of their AlgorithmIdentifier,
 * so that the protocol needs to know neither keys nor ASN.1: it copies both from and to the AUTH payload.
 */

/** One way to sign. */
export interface SignatureMethod {
  /** For people: `ecdsa-sha256`, `rsa-pss-sha384`, `rsa-pkcs1-sha1`, `ecdsa-256` … */
  readonly name: string;
  /** IKEv2 authentication method (RFC 7296 §3.8): 14 for RFC 7427, 1 for RSA, 9 to 11 for RFC 4754. */
  readonly authMethod: number;
  /**
   * With 14, what the peer must have announced in SIGNATURE_HASH_ALGORITHMS: 1 SHA-1, 2 SHA-256, 3 SHA-384, 4 SHA-512,
   * 5 the identity (RFC 8420). `undefined` with the other methods.
   */
  readonly hash: number | undefined;
  /** With 14, DER of the AlgorithmIdentifier that stands before the signature (RFC 7427 §3). */
  readonly algorithm: Uint8Array | undefined;
}

/**
 * Holds a private key. Asynchronous, so that a hardware module can stand behind it. `keySigner` makes one of a Node
 * `KeyObject`.
 */
export interface Signer {
  /** What the key can do, the preferred first. */
  readonly methods: readonly SignatureMethod[];
  /**
   * Signs the octets of RFC 7296 §2.15, which are not hashed yet.
   * @returns the signature as the method has it on the wire, without AlgorithmIdentifier
   * @throws Error, for people, when the key cannot be used
   */
  sign(method: SignatureMethod, octets: Uint8Array): Promise<Uint8Array>;
}

/** How one side authenticates. */
export interface Credentials {
  /** DER, the one of the key first, then those that lead to, without, a trust anchor. */
  readonly certificates: readonly Uint8Array[];
  readonly signer: Signer;
}

/** An identity as in an ID payload (RFC 7296 §3.5). */
export interface PeerIdentity {
  readonly type: number;
  readonly data: Uint8Array;
}

/** The authentication credentials that a peer sent. Not to be trusted. */
export interface PeerAuth {
  /** Contents of the CERT payloads of encoding 4, DER, in the order they came: the first is the peer's own. */
  readonly certificates: readonly Uint8Array[];
  /** Contents of the CERT payloads of encoding 7, DER. */
  readonly crls: readonly Uint8Array[];
  readonly id: PeerIdentity;
  /** As in `SignatureMethod`. */
  readonly authMethod: number;
  readonly algorithm: Uint8Array | undefined;
  readonly signature: Uint8Array;
  /** What must have been signed (RFC 7296 §2.15). */
  readonly octets: Uint8Array;
  /** Wall clock, milliseconds since 1970. */
  readonly now: number;
  /** Where it came from: peers of one source share one queue. Default: all are one source. */
  readonly source?: string | undefined;
}

/** Why a peer is refused. Stable: they become counter names. */
export type RefusalReason =
  | 'malformed-certificate'
  | 'too-many-certificates'
  | 'no-certificate'
  | 'untrusted'
  | 'expired'
  | 'not-yet-valid'
  | 'revoked'
  | 'revocation-unknown'
  | 'not-an-authority'
  | 'path-too-long'
  | 'key-usage'
  | 'name-constraint'
  | 'unknown-critical-extension'
  | 'weak-algorithm'
  | 'weak-key'
  | 'bad-certificate-signature'
  | 'identity-mismatch'
  | 'not-allowed'
  | 'method-refused'
  | 'bad-signature'
  | 'overloaded'
  | 'took-too-long';

/** Whether a peer is who it says it is, and if not, why. */
export type Verdict = {
  /** Milliseconds of processor time that it took, where that is known. */
  readonly spent?: number | undefined;
} & (
  | {
      readonly ok: true;
      /** The subject, as text. */
      readonly subject: string;
      /** Milliseconds since 1970: when the first certificate of the path expires. */
      readonly validUntil: number;
    }
  | {
      readonly ok: false;
      readonly reason: RefusalReason;
      /** For people: what was found, what was wanted. */
      readonly detail: string;
    }
);

/** Judges what a peer proves itself with. `pathVerifier` makes one of trust anchors. */
export interface Verifier {
  /** Contents of a CERTREQ payload: SHA-1 of each trust anchor's SubjectPublicKeyInfo (RFC 7296 §3.7). */
  readonly authorities: readonly Uint8Array[];
  /** A promise that is rejected counts as a refusal. */
  verify(auth: PeerAuth): Promise<Verdict>;
}
