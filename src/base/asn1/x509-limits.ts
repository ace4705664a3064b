/**
 * Sizes and counts that X.509 may have here, in one place: a peer has proved nothing when its certificate is read,
 * so that its cost is bounded before anything is built from it, in elements and not only in bytes.
 *
 * The figures are those of real certificates with room above: a leaf of a public authority has at most 100 names (Let's
 * Encrypt) and 10 extensions; authorities of governments have up to 200 name constraints; a DN of Active Directory has
 * some 15 attributes; keys and signatures of RSA with 8,192 bits are the largest, with 1 KiB each.
 */

/** Certificates from a peer's own to the trusted one, both included; so many may come in one message. */
export const MAX_CHAIN = 10;
/** Bytes of a certificate: one with 100 long names has a third of it. */
export const MAX_CERTIFICATE: number = 20 * 1024;
/** Bytes of all certificates that one message brings: ten of RSA-8192, or three of the largest. */
export const MAX_CHAIN_BYTES: number = 64 * 1024;
/**
 * DER elements of a certificate, those within its extensions included, and of all that one message brings. A bare
 * certificate has 40, an extension 4, 128 names 130, 256 name constraints 515.
 */
export const MAX_CERTIFICATE_ELEMENTS = 1_024;
export const MAX_CHAIN_ELEMENTS = 2_048;
/** Octets of a serial number (RFC 5280 §4.1.2.2). */
export const MAX_SERIAL = 20;
/** Bytes of an AlgorithmIdentifier; RSASSA-PSS has 67, and RFC 7427 §3 sends its length in one byte. */
export const MAX_ALGORITHM = 255;
/** Bytes of a SubjectPublicKeyInfo: RSA of 16,384 bits, which is read to be refused by its size. */
export const MAX_KEY_INFO = 2_304;
export const MAX_EXTENSIONS = 32;
/** Names in a subject alternative name, or in a distribution point. */
export const MAX_GENERAL_NAMES = 128;
/** Name constraints, permitted and excluded together. */
export const MAX_SUBTREES = 256;
/** Purposes in an extended key usage. */
export const MAX_KEY_PURPOSES = 32;
/** Bytes of a distinguished name, also of one in an ID payload, and the attributes in it. */
export const MAX_NAME = 4_096;
export const MAX_NAME_ATTRIBUTES = 64;
/** Octets of a subject or authority key identifier: a SHA-512 hash at most. */
export const MAX_KEY_ID = 64;
/** Revocation lists that one message brings, the bytes of each and of all: those are long, but are read last. */
export const MAX_PEER_CRLS = 10;
export const MAX_PEER_CRL: number = 64 * 1024;
export const MAX_PEER_CRL_BYTES: number = 128 * 1024;
