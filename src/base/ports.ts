/** UDP ports of IKE (RFC 7296 §2.23, RFC 3948 §4). */

/** IKE alone: no ESP in UDP, and no non-ESP marker before IKE. */
export const IKE_PORT = 500;
/** IKE behind a non-ESP marker, and ESP in UDP. */
export const NAT_PORT = 4500;
