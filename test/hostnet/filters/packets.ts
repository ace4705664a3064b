/** Packets at hooks, and tables as nft prints them. */
import { type IpAddress, parseAddress } from '../../../src/base/address.ts';
import { parseTable, type Table } from '../../../src/hostnet/filters/listing.ts';
import type { HookPacket } from '../../../src/hostnet/filters/packet.ts';
import { Protocol } from '../../../src/policy/protocols.ts';

export function at(text: string): IpAddress {
  return parseAddress(text)!;
}

/** TCP from 10.1.0.9 behind lan0 to 10.2.0.1:443, on its way to tun0. */
export function packet(change: Partial<HookPacket> = {}): HookPacket {
  return {
    source: at('10.1.0.9'),
    destination: at('10.2.0.1'),
    protocol: Protocol.tcp,
    sourcePort: 40_000,
    destinationPort: 443,
    icmpType: undefined,
    icmpCode: undefined,
    inputLink: 'lan0',
    outputLink: 'tun0',
    mark: 0,
    redirected: false,
    toHost: false,
    ...change,
  };
}

export function ping(change: Partial<HookPacket> = {}): HookPacket {
  const ports = { sourcePort: undefined, destinationPort: undefined };
  return packet({ protocol: Protocol.icmp, ...ports, icmpType: 8, icmpCode: 0, ...change });
}

export const V6: Pick<HookPacket, 'source' | 'destination'> = { source: at('fd01::9'), destination: at('fd02::1') };

export function table(text: string): Table {
  const found = parseTable(text);
  if (found === undefined) throw new Error(`no table in ${text}`);
  return found;
}
