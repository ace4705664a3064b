/**
 * Identities (RFC 7296 §3.5) as plain values.
 */

/** IANA ID type numbers (RFC 7296 §3.5). */
export const IdType = {
  Ipv4Address: 1,
  Fqdn: 2,
  Rfc822Address: 3,
  Ipv6Address: 5,
  DerAsn1Dn: 9,
  DerAsn1Gn: 10,
  KeyId: 11,
} as const;

export interface Identity {
  /** One of `IdType`; any other number a peer may send is kept as it is. */
  readonly type: number;
  /** As on the wire: address bytes, ASCII name, DER, opaque octets. */
  readonly data: Uint8Array;
}
