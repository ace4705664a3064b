/** Which packets belong between two networks, told without the code that is tested. */
import { toHex } from '../../src/base/bytes.ts';

const ICMP = 1;
const ICMP_V6 = 58;

/**
 * Whether an IP packet goes from one prefix to another, or is an ICMP error about one that went the other way: any router
 * may send it (RFC 4301 §6).
 * @param from @param to the first bytes of addresses, hexadecimal, of either family
 */
export function isBetween(packet: Uint8Array, from: readonly string[], to: readonly string[]): boolean {
  if (goes(packet, from, to)) return true;
  const quoted = quoteIn(packet);
  return quoted !== undefined && goes(quoted, to, from);
}

function goes(packet: Uint8Array, from: readonly string[], to: readonly string[]): boolean {
  const [at, length] = packet[0]! >>> 4 === 4 ? [12, 4] : [8, 16];
  const source = toHex(packet.subarray(at, at + length));
  const destination = toHex(packet.subarray(at + length, at + 2 * length));
  const starts = (address: string, prefixes: readonly string[]): boolean =>
    prefixes.some((prefix) => address.length === 2 * length && address.startsWith(prefix));
  return starts(source, from) && starts(destination, to);
}

/** The packet that an ICMP error quotes; of IPv6 only where ICMP follows the header directly. */
function quoteIn(packet: Uint8Array): Uint8Array | undefined {
  const isV4 = packet[0]! >>> 4 === 4;
  if (packet[isV4 ? 9 : 6] !== (isV4 ? ICMP : ICMP_V6)) return undefined;
  const at = isV4 ? 4 * (packet[0]! & 0xf) : 40;
  const isError = isV4 ? [3, 4, 5, 11, 12].includes(packet[at]!) : packet[at]! < 128;
  return isError && packet.length >= at + 28 ? packet.subarray(at + 8) : undefined;
}
