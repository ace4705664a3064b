/** Sizes of packets: what every link takes, and what stands before ESP. */
import type { IpFamily } from './address.ts';

/** What is assumed of a path that nothing is known of: Ethernet. */
export const UNKNOWN_PATH_MTU = 1500;

/**
 * No tunnel is taken to be narrower. IPv6 demands it of every link (RFC 8200 §5); every IPv4 host takes datagrams of
 * 576 bytes (RFC 1122 §3.3.2). On a path that takes less, such packets are fragmented outside the tunnel.
 */
export const MIN_MTU: Readonly<Record<IpFamily, number>> = { 4: 576, 6: 1280 };

/** What a report of a narrow link is believed to at the least, when it does not show that its sender saw a packet. */
export const MIN_REPORTED_MTU = 1280;

/** IP headers without options. */
export const IP_HEADER: Readonly<Record<IpFamily, number>> = { 4: 20, 6: 40 };
const UDP_HEADER = 8;

/** The largest ESP packet that goes over a path in one piece, in UDP (RFC 3948 §2.1) or straight in IP. */
export function espRoom(pathMtu: number, outer: IpFamily, encapsulated: boolean): number {
  return pathMtu - IP_HEADER[outer] - (encapsulated ? UDP_HEADER : 0);
}
