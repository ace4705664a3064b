/** What the fence decides of a packet: the same that its rules do in the kernel, for explanations and as their measure. */
import { type IpAddress, rangeContains } from '../../base/address.ts';
import type { PortRange } from '../routes/routes.ts';
import type { FenceEntry } from './fence.ts';
import { opaqueEntries } from './readable.ts';

/** What the fence sees of a packet. */
export interface SeenPacket {
  readonly local: IpAddress;
  readonly remote: IpAddress;
  /** Of a readable packet its next-layer protocol; of an opaque one the field of its IP header. */
  readonly protocol: number;
  /** `undefined` for an opaque packet. */
  readonly transport: TransportStart | undefined;
}

/** The first four bytes of a transport header, whatever they mean to its protocol: ports, or type × 256 + code. */
export interface TransportStart {
  readonly localPort: number;
  readonly remotePort: number;
  readonly icmp: number;
}

/** The first entry that the packet fits; `undefined` when it passes because none is for it. */
export function decidingEntry(entries: readonly FenceEntry[], packet: SeenPacket): FenceEntry | undefined {
  const seen = packet.transport === undefined ? opaqueEntries(entries) : entries;
  return seen.find((entry) => fits(entry, packet));
}

function fits(entry: FenceEntry, { local, remote, protocol, transport }: SeenPacket): boolean {
  return (
    rangeContains(entry.local, local) &&
    rangeContains(entry.remote, remote) &&
    (entry.protocol === undefined || entry.protocol === protocol) &&
    within(entry.localPorts, transport?.localPort) &&
    within(entry.remotePorts, transport?.remotePort) &&
    within(entry.icmp, transport?.icmp)
  );
}

function within(range: PortRange | undefined, value: number | undefined): boolean {
  return range === undefined || (value !== undefined && range.start <= value && value <= range.end);
}
