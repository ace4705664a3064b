/** What the fence of a tunnel does with a packet in the clear, outside the tunnel. */
import { sameAddress } from '../base/address.ts';
import { assertNever } from '../base/assert.ts';
import { decidingEntry, type SeenPacket } from '../hostnet/fence/decision.ts';
import { type FenceEntry, ofAnyTunnel, PASS_MARK, type TunnelFence } from '../hostnet/fence/fence.ts';
import { isExtension } from '../hostnet/fence/readable.ts';
import { Protocol } from '../policy/protocols.ts';
import type { FenceExplanation } from './explanation.ts';
import type { AskedPacket } from './packet.ts';

/**
 * The first entry of the installed fence that matches the packet decides.
 *
 * @param inClear it is the host's own and leaves by no tunnel, so its source does not matter
 */
export function explainFence(
  fence: TunnelFence,
  packet: AskedPacket,
  { inClear }: { readonly inClear: boolean },
): FenceExplanation {
  const { own, outbound, inbound } = fence;
  if (isOwn(own, packet)) return { action: 'own', text: 'lets it pass: it is IKE or ESP of the tunnel itself' };
  const entries = packet.direction === 'out' ? outbound : inbound;
  const seen = seenPacket(packet);
  const decided = decidingEntry(entries, seen);
  const action = decided?.action ?? 'pass';
  const closed = isHidden(entries, seen, action) ? OPAQUE : '';
  switch (action) {
    case 'pass': {
      const whatever = inClear ? ofAnySource(fence, packet) : undefined;
      if (whatever !== undefined) return whatever;
      const why = decided === undefined ? ': none of its entries matches' : ', as the policy says';
      return { action, text: `lets it pass${why}${opaqueText(entries, seen)}` };
    }
    case 'guard': {
      const counter = packet.direction === 'out' ? 'clear-out' : 'clear-in';
      return { action, text: `would drop it outside the tunnel (counted as fence-${counter})${closed}` };
    }
    case 'discard':
      return { action, text: `drops it, as the policy says (counted as fence-discarded)${closed}` };
    default:
      return assertNever(action, 'fence action');
  }
}

/** IKE and ESP of other tunnels pass too. */
function ofAnySource({ own, anySource }: TunnelFence, packet: AskedPacket): FenceExplanation | undefined {
  if (isOwn(ofAnyTunnel(own), packet)) return undefined;
  const action = decidingEntry(anySource, seenPacket(packet))?.action ?? 'pass';
  if (action === 'pass') return undefined;
  const counter = action === 'guard' ? 'clear-out' : 'discarded';
  const text = `drops it: the policy protects its destination, and no entry is for its source (counted as fence-${counter})`;
  return { action, text };
}

const OPAQUE = '; what follows a header of this protocol cannot be read, and may be what the policy protects';
/** The next header of an IPv6 fragment. */
const FRAGMENT_HEADER = 44;

/** Whether the packet is dropped for what may follow its header, and not for its protocol. */
function isHidden(entries: readonly FenceEntry[], seen: SeenPacket, action: FenceEntry['action']): boolean {
  const transport = { localPort: 0, remotePort: 0, icmp: 0 };
  return seen.transport === undefined && decidingEntry(entries, { ...seen, transport })?.action !== action;
}

/** What the fence does with a packet like one that passes, but without a readable transport header, if that differs. */
function opaqueText(entries: readonly FenceEntry[], seen: SeenPacket): string {
  if (seen.transport === undefined) return '';
  const protocol = seen.local.family === 4 ? seen.protocol : FRAGMENT_HEADER;
  const entry = decidingEntry(entries, { ...seen, protocol, transport: undefined });
  if (entry === undefined || entry.action === 'pass') return '';
  return '; its later fragments, and other packets between these addresses without a readable transport header, are dropped';
}

function seenPacket(packet: AskedPacket): SeenPacket {
  const { local, remote, localPort, remotePort } = endsOf(packet);
  const { protocol, flow } = packet;
  const opaque = local.family === 6 && isExtension(protocol);
  // The question has no ports for a protocol without them, and no entry matches on them.
  const transport = { localPort: localPort ?? 0, remotePort: remotePort ?? 0, icmp: Math.max(0, flow.srcPort) };
  return { local, remote, protocol, transport: opaque ? undefined : transport };
}

/** What the fence marks a packet with before it is routed; `undefined` for nothing. */
export function markOf({ marked }: TunnelFence, packet: AskedPacket): number | undefined {
  if (packet.direction === 'in') return undefined;
  return decidingEntry(marked, seenPacket(packet))?.action === 'pass' ? PASS_MARK : undefined;
}

interface Ends {
  readonly local: AskedPacket['source'];
  readonly remote: AskedPacket['source'];
  readonly localPort: number | undefined;
  readonly remotePort: number | undefined;
}

function endsOf({ direction, source, destination, sourcePort, destinationPort }: AskedPacket): Ends {
  return direction === 'out'
    ? { local: source, remote: destination, localPort: sourcePort, remotePort: destinationPort }
    : { local: destination, remote: source, localPort: destinationPort, remotePort: sourcePort };
}

/** IKE and ESP between the ends of the tunnel. */
function isOwn({ peer, ports, peerPorts }: TunnelFence['own'], packet: AskedPacket): boolean {
  const { remote, localPort, remotePort } = endsOf(packet);
  if (peer !== undefined && !sameAddress(peer, remote)) return false;
  if (packet.protocol === Protocol.esp) return true;
  if (packet.protocol !== Protocol.udp) return false;
  if (localPort !== undefined && ports.includes(localPort)) return true;
  const asks = peer !== undefined && packet.direction === 'out';
  return asks && remotePort !== undefined && peerPorts.includes(remotePort);
}
