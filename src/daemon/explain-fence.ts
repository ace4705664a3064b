/** What the fence of a tunnel does with a packet that goes past the tunnel, in the clear. */
import { rangeContains, sameAddress } from '../base/address.ts';
import { assertNever } from '../base/assert.ts';
import { hasPorts, isIcmp, Protocol } from '../policy/protocols.ts';
import { type FenceEntry, PASS_MARK, type TunnelFence } from '../tun/fence.ts';
import type { PortRange } from '../tun/routes.ts';
import type { AskedPacket } from './explain-packet.ts';
import type { FenceExplanation } from './explanation.ts';

/** As the fence was told it: its first entry that a packet fits decides. */
export function explainFence({ own, outbound, inbound }: TunnelFence, packet: AskedPacket): FenceExplanation {
  if (isOwn(own, packet)) return { action: 'own', text: 'lets it pass: it belongs to the tunnel itself' };
  const entries = packet.direction === 'out' ? outbound : inbound;
  const action = entries.find((entry) => fits(entry, packet))?.action;
  switch (action) {
    case undefined:
      return { action: 'pass', text: 'lets it pass: it is not for such packets' };
    case 'pass':
      return { action, text: 'lets it pass, as the policy says' };
    case 'guard': {
      const counter = packet.direction === 'out' ? 'clear-out' : 'clear-in';
      return { action, text: `would drop it outside of the tunnel (counted as fence-${counter})` };
    }
    case 'discard':
      return { action, text: 'drops it, as the policy says (counted as fence-discarded)' };
    default:
      return assertNever(action, 'fence action');
  }
}

/** What the fence marks a packet with before it is routed; `undefined` for nothing. */
export function markOf({ marked }: TunnelFence, packet: AskedPacket): number | undefined {
  if (packet.direction === 'in') return undefined;
  return marked.find((entry) => fits(entry, packet))?.action === 'pass' ? PASS_MARK : undefined;
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
function isOwn({ peer, ports }: TunnelFence['own'], packet: AskedPacket): boolean {
  const { remote, localPort } = endsOf(packet);
  if (peer !== undefined && !sameAddress(peer, remote)) return false;
  if (packet.protocol === Protocol.esp) return true;
  return packet.protocol === Protocol.udp && localPort !== undefined && ports.includes(localPort);
}

function fits(entry: FenceEntry, packet: AskedPacket): boolean {
  const { local, remote, localPort, remotePort } = endsOf(packet);
  const { protocol, flow } = packet;
  return (
    rangeContains(entry.local, local) &&
    rangeContains(entry.remote, remote) &&
    (entry.protocol === undefined || entry.protocol === protocol) &&
    (!hasPorts(protocol) || (within(entry.localPorts, localPort) && within(entry.remotePorts, remotePort))) &&
    (!isIcmp(protocol) || within(entry.icmp, flow.srcPort))
  );
}

function within(range: PortRange | undefined, port: number | undefined): boolean {
  return range === undefined || (port !== undefined && range.start <= port && port <= range.end);
}
