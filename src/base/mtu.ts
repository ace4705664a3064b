/** Sizes of packets: what every link takes, and what UDP encapsulation adds. */
import type { IpFamily } from './address.ts';

/** What is assumed of a path that nothing is known of: Ethernet. */
export const UNKNOWN_PATH_MTU = 1500;

/**
 * No tunnel is taken to be narrower. IPv6 demands it of every link (RFC 8200 §5); every IPv4 host takes datagrams of
 * 576 bytes (RFC 1122 §3.3.2). On a path that takes less, such packets are fragmented outside the tunnel.
 */
export const MIN_MTU: Readonly<Record<IpFamily, number>> = { 4: 576, 6: 1280 };

/** The headers before UDP-encapsulated ESP: outer IP without options, and UDP (RFC 3948 §2.1). */
const UDP_ENCAPSULATION: Readonly<Record<IpFamily, number>> = { 4: 20 + 8, 6: 40 + 8 };

/** The largest ESP packet that goes in UDP over a path in one piece. */
export function espRoom(pathMtu: number, outer: IpFamily): number {
  return pathMtu - UDP_ENCAPSULATION[outer];
}
