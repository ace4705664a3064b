/**
 * Traffic selectors (RFC 4301 §4.4.1.1, RFC 7296 §3.13): which packets a policy or an SA speaks of.
 */
import type { AddressRange } from '../base/address.ts';

/**
 * One range of addresses with one protocol and one range of ports.
 *
 * Ports are those of TCP, UDP, SCTP and the like. For ICMP and ICMPv6 they hold type × 256 + code, as on the wire
 * (RFC 7296 §3.13.1). 0–65535 is ANY; 65535–0 is OPAQUE (matches only packets whose ports cannot be seen).
 * Protocol 0 is any protocol and then has all ports.
 */
export interface TrafficSelector {
  readonly protocol: number;
  readonly startPort: number;
  readonly endPort: number;
  readonly range: AddressRange;
}

/** The two sides of an SA or a policy entry, as seen from here. A packet fits when one selector of each side fits. */
export interface SelectorPair {
  readonly local: readonly TrafficSelector[];
  readonly remote: readonly TrafficSelector[];
}
