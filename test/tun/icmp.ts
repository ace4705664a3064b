/** The least of ICMP that a test needs: echo requests, and answering them in place (RFC 792, RFC 4443). */
import type { IpAddress } from '../../src/base/address.ts';
import { addressToBytes } from '../../src/base/address.ts';

const ICMP = 1;
const ICMPV6 = 58;

/** Where the ICMP message starts, when the packet is one of `type` (IPv4) or `type6` (IPv6). */
function icmpAt(packet: Uint8Array, type: number, type6: number): number | undefined {
  if (packet[0]! >>> 4 === 4) return packet[9] === ICMP && packet[20] === type ? 20 : undefined;
  return packet[6] === ICMPV6 && packet[40] === type6 ? 40 : undefined;
}

export const isEchoRequest = (packet: Uint8Array): boolean => icmpAt(packet, 8, 128) !== undefined;
export const isEchoReply = (packet: Uint8Array): boolean => icmpAt(packet, 0, 129) !== undefined;

/** Turns an echo request into its reply: the addresses change places, which no checksum sees; the type changes. */
export function answerEcho(packet: Uint8Array): void {
  const at = icmpAt(packet, 8, 128)!;
  const [source, size] = at === 20 ? [12, 4] : [8, 16];
  const from = packet.slice(source, source + size);
  packet.copyWithin(source, source + size, source + 2 * size);
  packet.set(from, source + size);
  const request = packet[at]!;
  const reply = at === 20 ? 0 : 129;
  packet[at] = reply;
  // RFC 1624: HC' = ~(~HC + ~m + m')
  const word = (at16: number): number => (packet[at16]! << 8) | packet[at16 + 1]!;
  let sum = (~word(at + 2) & 0xffff) + (~(request << 8) & 0xffff) + (reply << 8);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  packet[at + 2] = (~sum >>> 8) & 0xff;
  packet[at + 3] = ~sum & 0xff;
}

/** An echo request with `payload` bytes. */
export function echoRequest(from: IpAddress, to: IpAddress, payload: number): Uint8Array {
  const icmp = new Uint8Array(8 + payload).fill(0x5a, 8);
  icmp.set([from.family === 4 ? 8 : 128, 0, 0, 0, 0x12, 0x34, 0, 1]);
  const addresses = [...addressToBytes(from), ...addressToBytes(to)];
  if (from.family === 4) {
    icmp.set(checksum(icmp), 2);
    const length = 20 + icmp.length;
    const header = Uint8Array.of(0x45, 0, length >>> 8, length & 0xff, 0, 0, 0, 0, 64, ICMP, 0, 0, ...addresses);
    header.set(checksum(header), 10);
    return Uint8Array.of(...header, ...icmp);
  }
  const pseudo = Uint8Array.of(...addresses, 0, 0, icmp.length >>> 8, icmp.length & 0xff, 0, 0, 0, ICMPV6, ...icmp);
  icmp.set(checksum(pseudo), 2);
  return Uint8Array.of(0x60, 0, 0, 0, icmp.length >>> 8, icmp.length & 0xff, ICMPV6, 64, ...addresses, ...icmp);
}

/** RFC 1071, big-endian. */
function checksum(bytes: Uint8Array): [number, number] {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return [(~sum >>> 8) & 0xff, ~sum & 0xff];
}
