/** The way of the ESP packet that carries an explained one, from this host to the peer. */
import { NO_PORT } from '../base/address.ts';
import type { Path as PeerPath } from '../ike/events.ts';
import { PORT_HIDDEN } from '../policy/flow.ts';
import { makeFlow } from '../policy/flow-values.ts';
import { Protocol } from '../policy/protocols.ts';
import type { Obstacle } from './obstacle.ts';
import type { AskedPacket } from './packet.ts';
import { type PathQuestion, tracePath } from './path.ts';

export interface OuterPath {
  readonly obstacles: readonly Obstacle[];
  /** What was not looked at. */
  readonly unread: readonly string[];
}

export const NO_OUTER: OuterPath = { obstacles: [], unread: [] };

/** What stops the ESP packets of an SA on this host. @param question of where the daemon's sockets are */
export function traceOuter(question: Pick<PathQuestion, 'view' | 'foreign' | 'name'>, path: PeerPath): OuterPath {
  // NAT traversal copes with translated addresses.
  const isTreatedAlike = (): boolean => true;
  const traced = tracePath({
    ...question,
    packet: espPacket(path),
    isTreatedAlike,
    device: undefined,
    cameOut: undefined,
    fence: undefined,
  });
  const { route, filters } = traced;
  const noRoute: Obstacle = { effect: 'stop', certain: true, verdict: 'it has no route', warning: route.text };
  const obstacles = [...(route.refusal === 'no-route' ? [noRoute] : []), ...traced.obstacles];
  return { obstacles: obstacles.map(ofOuter), unread: filters?.unread ?? [] };
}

function ofOuter({ effect, certain, verdict, warning }: Obstacle): Obstacle {
  const clause = `its ESP packet ${certain ? 'does' : 'may'} not get out: `;
  return { effect, certain, verdict: clause + verdict, warning: clause + warning };
}

/** In UDP where its SA has ports (RFC 3948). */
function espPacket({ local, remote }: PeerPath): AskedPacket {
  const isInUdp = local.port !== NO_PORT;
  const protocol = isInUdp ? Protocol.udp : Protocol.esp;
  const [source, destination] = [local.address, remote.address];
  const [sourcePort, destinationPort] = isInUdp ? [local.port, remote.port] : [PORT_HIDDEN, PORT_HIDDEN];
  return {
    direction: 'out',
    source,
    destination,
    protocol,
    sourcePort: isInUdp ? sourcePort : undefined,
    destinationPort: isInUdp ? destinationPort : undefined,
    flow: makeFlow({ source, destination, protocol, sourcePort, destinationPort }),
    assumed: [],
  };
}
