/** Sizes of packets: what every link takes, and what stands before ESP. */
import type { IpFamily } from './address.ts';

/** Assumed for unknown paths: Ethernet. */
export const UNKNOWN_PATH_MTU = 1500;

/**
 * No path is assumed to be narrower. IPv6 requires it of every link (RFC 8200 §5); every IPv4 host accepts datagrams of
 * 576 bytes (RFC 1122 §3.3.2). On a narrower path such packets are fragmented outside the tunnel.
 */
export const MIN_MTU: Readonly<Record<IpFamily, number>> = { 4: 576, 6: 1280 };

/** The lowest MTU that is accepted from an ICMP error that does not prove that its sender saw our packet. */
export const MIN_REPORTED_MTU = 1280;

/** IP headers without options. */
export const IP_HEADER: Readonly<Record<IpFamily, number>> = { 4: 20, 6: 40 };
const UDP_HEADER = 8;

/** The largest ESP packet that goes over a path in one piece, in UDP (RFC 3948 §2.1) or straight in IP. */
export function espRoom(
  pathMtu: number,
  { outer, encapsulated }: { readonly outer: IpFamily; readonly encapsulated: boolean },
): number {
  return pathMtu - IP_HEADER[outer] - (encapsulated ? UDP_HEADER : 0);
}
