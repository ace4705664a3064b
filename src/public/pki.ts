/**
 * Certificates and signatures (RFC 5280, RFC 7427): parse them, sign with a key, judge what a peer proves itself with.
 *
 * @module sectunnel/pki
 */
export { type FetchOptions, httpFetch } from '../host/fetch.ts';
export { type Certificate, type CertificateExtensions, parseCertificate } from '../pki/certificate.ts';
export type { GeneralName, NameSubtrees } from '../pki/general-name.ts';
export { MalformedCertificateError } from '../pki/malformed.ts';
export { type MethodOptions, methodsOf } from '../pki/methods.ts';
export type { PathOptions } from '../pki/path.ts';
export { type Crl, parseCrl, type RevocationStatus } from '../pki/revocation/crl.ts';
export {
  type Fetch,
  type FetchRequest,
  type Occasion,
  type OnlineOptions,
  OnlineRevocation,
} from '../pki/revocation/online.ts';
export type { OnlineSources } from '../pki/revocation/revocation.ts';
export { keySigner } from '../pki/signer.ts';
export { VerifierPool, type VerifierPoolOptions } from '../pki/threads/pool.ts';
export type {
  Credentials,
  PeerAuth,
  PeerIdentity,
  RefusalReason,
  SignatureMethod,
  Signer,
  Verdict,
  Verifier,
} from '../pki/types.ts';
export { pathVerifier, type VerifierOptions } from '../pki/verifier.ts';
