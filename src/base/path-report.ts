/** A packet of ours was too large for a link on its way, as ICMP says (RFC 1191 §4, RFC 8201 §4). */
import type { SocketAddress } from './address.ts';

/** Not authenticated: anyone can send ICMP, with any content. Plain data, good in all threads. */
export interface PathReport {
  /** Where the packet was sent to. */
  readonly remote: SocketAddress;
  /** What the link takes, in bytes with the IP header; 0 when the router does not say. */
  readonly mtu: number;
  /** How the packet begins behind its IP and UDP header; as much of it as is quoted, some tens of bytes at most. */
  readonly quote: Uint8Array;
}
