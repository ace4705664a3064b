/**
 * Next-layer protocols: their names, and which of them carry what a selector calls a port
 * (RFC 4301 §4.4.1.1, IANA "Protocol Numbers").
 */

/** The protocols that the program itself speaks of. */
export const Protocol = {
  any: 0,
  icmp: 1,
  tcp: 6,
  udp: 17,
  dccp: 33,
  esp: 50,
  ah: 51,
  icmpv6: 58,
  noNextHeader: 59,
  sctp: 132,
  mobility: 135,
  udplite: 136,
} as const;

/** What `any` protocol with a port means when it is spelled out (RFC 7296 §3.13.1 cannot say it in one selector). */
export const PORT_PROTOCOLS: readonly number[] = [Protocol.tcp, Protocol.udp, Protocol.sctp];

/** The first name of a number is the one that is printed. */
const NAMES: readonly (readonly [name: string, protocol: number])[] = [
  ['any', 0],
  ['all', 0],
  ['icmp', 1],
  ['igmp', 2],
  ['ipencap', 4],
  ['ipip', 4],
  ['ipv4', 4],
  ['tcp', 6],
  ['egp', 8],
  ['igp', 9],
  ['udp', 17],
  ['dccp', 33],
  ['ipv6', 41],
  ['rsvp', 46],
  ['gre', 47],
  ['esp', 50],
  ['ah', 51],
  ['icmpv6', 58],
  ['ipv6-icmp', 58],
  ['icmp6', 58],
  ['ipv6-nonxt', 59],
  ['eigrp', 88],
  ['ospf', 89],
  ['ipip-encap', 94],
  ['etherip', 97],
  ['pim', 103],
  ['ipcomp', 108],
  ['vrrp', 112],
  ['l2tp', 115],
  ['isis', 124],
  ['sctp', 132],
  ['mh', 135],
  ['ipv6-mh', 135],
  ['mobility-header', 135],
  ['udplite', 136],
  ['mpls-in-ip', 137],
  ['hip', 139],
];

const numberOf: ReadonlyMap<string, number> = new Map(NAMES);
const nameOf: ReadonlyMap<number, string> = new Map([...NAMES].reverse().map(([name, protocol]) => [protocol, name]));

/** The number of a protocol by name (any case) or by decimal number 0–255; `undefined` when it is neither. */
export function protocolByName(text: string): number | undefined {
  if (/^[0-9]{1,3}$/.test(text)) {
    const value = Number(text);
    return value <= 255 ? value : undefined;
  }
  return numberOf.get(text.toLowerCase());
}

/** `udp`, `any` for 0, or the number in decimal when it has no name here. */
export function protocolName(protocol: number): string {
  return nameOf.get(protocol) ?? String(protocol);
}

/** The names that `protocolByName` knows, for messages. */
export function protocolNames(): string[] {
  return [...numberOf.keys()];
}

/** Whether the protocol starts with a source and a destination port of 16 bits each. */
export function hasPorts(protocol: number): boolean {
  switch (protocol) {
    case Protocol.tcp:
    case Protocol.udp:
    case Protocol.sctp:
    case Protocol.dccp:
    case Protocol.udplite:
      return true;
    default:
      return false;
  }
}

/** Whether a type and a code stand where others have ports. */
export function isIcmp(protocol: number): boolean {
  return protocol === Protocol.icmp || protocol === Protocol.icmpv6;
}

/**
 * Whether the protocol has one "port" for both ends: ICMP type and code, or the Mobility Header's type
 * (RFC 4301 §4.4.1.3).
 */
export function hasSinglePort(protocol: number): boolean {
  return isIcmp(protocol) || protocol === Protocol.mobility;
}
