/** Matches of nft(8) for the packets of an entry. */
import { type AddressRange, formatRange, type IpFamily } from '../../base/address.ts';
import { isWhole } from '../../base/ranges.ts';
import type { Direction } from '../../policy/direction.ts';
import type { PortRange } from '../routes/routes.ts';
import type { PacketBox } from './fence.ts';
import { word } from './nft-words.ts';

/** `any`: out, whatever the source. */
export type Course = Direction | 'any';

/** By the protocol field of the IP header itself. */
export function headerMatch(family: IpFamily, protocol: number | undefined): string[] {
  if (protocol === undefined) return [];
  return [family === 4 ? `ip protocol ${protocol}` : `ip6 nexthdr ${protocol}`];
}

export function packetMatch(
  direction: Course,
  { local, remote, protocol, localPorts, remotePorts, icmp }: PacketBox,
): string[] {
  const { family } = local.start;
  const [source, destination] = direction === 'in' ? [remote, local] : [local, remote];
  const [sourcePorts, destinationPorts] = direction === 'in' ? [remotePorts, localPorts] : [localPorts, remotePorts];
  return [
    ...addressMatch(family, 'saddr', source),
    ...addressMatch(family, 'daddr', destination),
    ...(isWhole(source) && isWhole(destination) ? [`meta nfproto ipv${family}`] : []),
    ...(protocol === undefined ? [] : [`meta l4proto ${protocol}`]),
    ...portMatch('sport', sourcePorts),
    ...portMatch('dport', destinationPorts),
    ...icmpMatch(icmp),
  ];
}

function addressMatch(family: IpFamily, field: 'saddr' | 'daddr', range: AddressRange): string[] {
  return isWhole(range) ? [] : [`${word(family)} ${field} ${formatRange(range)}`];
}

function portMatch(field: 'sport' | 'dport', ports: PortRange | undefined): string[] {
  return ports === undefined ? [] : [`th ${field} ${span(ports)}`];
}

/** Type and code as the one number that they are on the wire. */
export function icmpMatch(icmp: PortRange | undefined): string[] {
  return icmp === undefined ? [] : [`@th,0,16 ${span(icmp)}`];
}

function span({ start, end }: PortRange): string {
  return start === end ? String(start) : `${start}-${end}`;
}
