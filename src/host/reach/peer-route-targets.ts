/** The routes from an engine's tunnels to their peers: one for each IKE SA, and for each connection that has none. */
import type { ControlPlane } from '../../engine/control-plane.ts';
import type { EngineEvent } from '../../engine/events.ts';
import { trafficKeyOf } from '../../engine/tunnel.ts';
import { SaCounter } from '../../esp/usage.ts';
import type { ConnectionConfig } from '../../ike/config.ts';
import type { Path } from '../../ike/events.ts';
import { isUnspecified } from '../../tun/udp/udp.ts';
import type { PeerRoutes, PeerRouteTarget } from './peer-routes.ts';
import type { SendTarget } from './send-refusals.ts';
import type { ChildTarget } from './unheard-children.ts';

interface IkeSaEnds {
  readonly id: number;
  readonly path: Path;
}

/** The established IKE SAs of these tunnels, and their connections that have none. */
export function peerRouteTargets(engine: ControlPlane, tunnels: Iterable<string>): PeerRouteTarget[] {
  return [...tunnels].flatMap((tunnel) =>
    (engine.tunnel(tunnel)?.config.connections ?? []).flatMap((connection) => {
      const sas = engine.ike.status(connection.name).filter(({ state }) => state === 'established');
      if (sas.length === 0) return connectionTarget(tunnel, connection) ?? [];
      return sas.map((sa) => ikeSaTarget(tunnel, connection, sa));
    }),
  );
}

function ikeSaTarget(tunnel: string, { local, remote }: ConnectionConfig, { id, path }: IkeSaEnds): PeerRouteTarget {
  return {
    key: `SA ${id}`,
    tunnel,
    local: isUnspecified(path.local.address) ? undefined : path.local.address,
    remote: path.remote.address,
    vrf: local.vrf,
    ikeSa: id,
    movable: local.address === undefined && remote.address !== undefined,
  };
}

/** `undefined` where the peer has to call. */
function connectionTarget(tunnel: string, { name, local, remote }: ConnectionConfig): PeerRouteTarget | undefined {
  if (remote.address === undefined) return undefined;
  return {
    key: name,
    tunnel,
    local: local.address,
    remote: remote.address,
    vrf: local.vrf,
    ikeSa: undefined,
    movable: false,
  };
}

/** The IKE SAs of these tunnels, and attempts at such. */
export function sendTargets(engine: ControlPlane, tunnels: Iterable<string>): SendTarget[] {
  return [...tunnels].flatMap((tunnel) =>
    (engine.tunnel(tunnel)?.config.connections ?? [])
      .flatMap(({ name }) => engine.ike.status(name))
      .map(({ id, state, path: { local, remote }, request, lastHeardAt }) => {
        const established = state === 'established';
        return { ikeSa: id, tunnel, local, remote, unanswered: request, lastHeardAt, established };
      }),
  );
}

/** The CHILD SAs of these tunnels. */
export function childTargets(engine: ControlPlane, tunnels: Iterable<string>): ChildTarget[] {
  return [...tunnels].flatMap((tunnel) =>
    [...(engine.tunnel(tunnel)?.children.values() ?? [])].map(({ summary, path, sent, received, receivesBare }) => {
      const { id, name, spiIn, encapsulated } = summary;
      return {
        ...{ tunnel, id, name, traffic: trafficKeyOf(summary), spiIn, encapsulated, path },
        sent: sent.counters[SaCounter.packets]!,
        receivesBare,
        heard: received.counters[SaCounter.lastUsed]! >= 0,
      };
    }),
  );
}

/** Notes the route of an IKE SA that came up or went down; later changes are compared with it. */
export function notePeerRoute(routes: PeerRoutes, engine: ControlPlane, event: EngineEvent): void {
  if (event.type !== 'ike-up' && event.type !== 'ike-down') return;
  for (const connection of engine.tunnel(event.tunnel)?.config.connections ?? []) {
    if (event.type === 'ike-down') {
      const target = connectionTarget(event.tunnel, connection);
      if (target !== undefined) routes.note(target);
    } else if (event.ikeSa.connection === connection.name) {
      routes.note(ikeSaTarget(event.tunnel, connection, event.ikeSa));
    }
  }
}
