/**
 * What one side is willing to use, in order of preference: the form that documents are turned into and that
 * proposals on the wire (RFC 7296 §3.3) are made from.
 */
import type { DhGroup, EncryptionAlgorithm, IntegrityAlgorithm, PrfAlgorithm } from './types.ts';

/** One proposal for an IKE SA. Either all ciphers are AEADs and `integrity` is empty, or none is. */
export interface IkeProposal {
  readonly encryption: readonly EncryptionAlgorithm[];
  readonly integrity: readonly IntegrityAlgorithm[];
  readonly prf: readonly PrfAlgorithm[];
  readonly dh: readonly DhGroup[];
}

/** One proposal for a CHILD SA. */
export interface EspProposal {
  readonly encryption: readonly EncryptionAlgorithm[];
  readonly integrity: readonly IntegrityAlgorithm[];
  /** Groups for a key exchange of its own (PFS); empty for none. Not used in IKE_AUTH (RFC 7296 §1.2). */
  readonly dh: readonly DhGroup[];
  /** Acceptable values of the ESN transform, the preferred one first. */
  readonly esn: readonly boolean[];
}
