/**
 * Authentication of the IKE SA (RFC 7296 §2.15): the octets that either side signs, and the shared-key method.
 */
import { concatBytes, equalBytes } from '../../base/bytes.ts';
import type { Identity } from '../../base/identity.ts';
import { isSharedKey } from '../../base/key-strength.ts';
import { utf8 } from '../../base/text.ts';
import type { CryptoProvider, PrfAlgorithm } from '../../crypto/types.ts';
import { idPayloadBody } from '../wire/payloads/id.ts';
import { prfOnce } from './keys.ts';

/** What the AUTH payload of one side rests on. */
export interface SignedParts {
  /** The side's own IKE_SA_INIT message as it went over the wire, without non-ESP marker; the last one, after any retry. */
  readonly initMessage: Uint8Array;
  /** The other side's nonce. */
  readonly peerNonce: Uint8Array;
  /** SK_pi for the initiator, SK_pr for the responder. */
  readonly skP: Uint8Array;
  readonly identity: Identity;
}

/** `RealMessage | NoncePeerData | prf(SK_p, RestOfIDPayload)` */
export function signedOctets(crypto: CryptoProvider, algorithm: PrfAlgorithm, parts: SignedParts): Uint8Array {
  const macedId = prfOnce(crypto, algorithm, parts.skP, idPayloadBody(parts.identity));
  return concatBytes(parts.initMessage, parts.peerNonce, macedId);
}

/** 17 ASCII characters without terminator. */
const KEY_PAD = utf8('Key Pad for IKEv2');

/** `prf(prf(Shared Secret, "Key Pad for IKEv2"), <SignedOctets>)` */
export function pskAuth(
  crypto: CryptoProvider,
  algorithm: PrfAlgorithm,
  secret: Uint8Array,
  parts: SignedParts,
): Uint8Array {
  const key = prfOnce(crypto, algorithm, secret, KEY_PAD);
  const value = prfOnce(crypto, algorithm, key, signedOctets(crypto, algorithm, parts));
  key.fill(0);
  return value;
}

/** Whether `received` is what the holder of `secret` would have sent, in constant time. What is no key never fits. */
export function verifyPskAuth(
  crypto: CryptoProvider,
  algorithm: PrfAlgorithm,
  secret: Uint8Array,
  parts: SignedParts,
  received: Uint8Array,
): boolean {
  return isSharedKey(secret) && equalBytes(pskAuth(crypto, algorithm, secret, parts), received);
}
