/** From the engine's state to what `status` reports: ages instead of clock readings, text instead of binary values. */
import { formatSocketAddress } from '../base/address.ts';
import { formatIdentity } from '../base/identity.ts';
import { formatIkeSpi, formatSpi } from '../base/spi.ts';
import type { SectunnelDocument } from '../config/model.ts';
import type { ControlPlane } from '../engine/control-plane.ts';
import type { EngineChild, Tunnel } from '../engine/tunnel.ts';
import { namedDrops } from '../esp/drops.ts';
import { SaCounter } from '../esp/usage.ts';
import type { ChildSaStatus, IkeSaStatus } from '../ike/status.ts';
import { formatSelector } from '../policy/selector.ts';
import type { DeviceCounters, PacketDevice } from '../tun/device.ts';
import type { ChildStatus, DeviceStatus, FailureStatus, IkeStatus, SecretStatus, TunnelStatus } from './status.ts';

/** What is known of a running tunnel beside the engine's own state. */
export interface RunningFacts {
  readonly document: SectunnelDocument;
  secret: SecretStatus | undefined;
  /** What the peer asked for and cannot have. BOUNDED: by what is known of, and the document's rules. */
  readonly declined: Set<string>;
  lastFailure: (Omit<FailureStatus, 'secondsAgo'> & { readonly at: number }) | undefined;
}

/** A tunnel that does not run. */
export function inactiveStatus(name: string, uuid: string): TunnelStatus {
  return {
    name,
    uuid,
    active: false,
    state: 'inactive',
    device: undefined,
    degraded: [],
    nothingReceived: [],
    redundancy: undefined,
    secret: undefined,
    declined: [],
    ikeSas: [],
    drops: {},
    lastFailure: undefined,
    retryIn: undefined,
  };
}

/** A failed attempt. `at`: milliseconds of the host's clock. */
export interface HostFailure {
  readonly at: number;
  readonly reason: string;
  readonly detail: string;
}

/** What a host knows of one of its tunnels. */
export type HostTunnelStatus = Omit<TunnelStatus, 'uuid' | 'active' | 'redundancy' | 'secret' | 'declined'>;

/** What is asked of a host for its status. */
export interface StatusSource {
  readonly engine: ControlPlane;
  now(): number;
  refresh(): void;
  device(name: string): PacketDevice | undefined;
  deviceCounters(name: string): Readonly<DeviceCounters> | undefined;
  degraded(name: string): readonly string[];
  nothingReceived(name: string): readonly string[];
  lastFailure(name: string): HostFailure | undefined;
}

/** As `tunnelStatus`; `undefined` when the host has no such tunnel. */
export function hostTunnelStatus(host: StatusSource, name: string): HostTunnelStatus | undefined {
  const now = host.now();
  host.refresh();
  const device = host.device(name);
  const tunnel = host.engine.tunnel(name);
  if (device === undefined || tunnel === undefined) return undefined;
  const ikeSas = ikeSasOf(host.engine, tunnel);
  const lastFailure = host.lastFailure(name);
  return {
    name,
    state: stateOf(host.engine, tunnel, ikeSas),
    device: deviceStatus(host, tunnel, device),
    degraded: host.degraded(name),
    nothingReceived: host.nothingReceived(name),
    ikeSas: ikeSas.map((sa) => ikeStatus(now, sa, tunnel)),
    drops: {
      ...namedDrops(tunnel.drops()),
      ...bypassDrops(tunnel),
      // What a device of several loses is no tunnel's own.
      ...(isShared(host, tunnel) ? {} : deviceDrops(host.deviceCounters(name)?.dropped ?? {})),
    },
    lastFailure: lastFailure && failureStatus(now, { ...lastFailure, inDocument: [] }),
    retryIn: tunnel.retry.at === undefined ? undefined : seconds(tunnel.retry.at - now),
  };
}

function isShared({ engine }: StatusSource, tunnel: Tunnel): boolean {
  return engine.deviceOf(tunnel).tunnels.size > 1;
}

function deviceStatus(host: StatusSource, tunnel: Tunnel, { name, mtu }: PacketDevice): DeviceStatus {
  const { tunnels, drops } = host.engine.deviceOf(tunnel);
  if (tunnels.size === 1) return { name, mtu, tunnels: 1, drops: {} };
  const lost = deviceDrops(host.deviceCounters(tunnel.config.name)?.dropped ?? {});
  return { name, mtu, tunnels: tunnels.size, drops: { ...namedDrops(drops), ...lost } };
}

function ikeSasOf({ ike }: StatusSource['engine'], tunnel: Tunnel): IkeSaStatus[] {
  const sas = tunnel.config.connections.flatMap(({ name }) => ike.status(name));
  // One of the tunnel that ran before this one stays until the peer has answered its deletion.
  return sas.filter(({ state, former }) => !(state === 'deleting' && former));
}

/** As in the status; `undefined` when there is no such tunnel. */
export function tunnelState(engine: StatusSource['engine'], name: string): TunnelStatus['state'] | undefined {
  const tunnel = engine.tunnel(name);
  return tunnel && stateOf(engine, tunnel, ikeSasOf(engine, tunnel));
}

/** Bytes of the CHILD SAs that a tunnel has, in both directions. */
export function tunnelTraffic(engine: StatusSource['engine'], name: string): number {
  let bytes = 0;
  for (const { received, sent } of engine.tunnel(name)?.children.values() ?? []) {
    bytes += received.counters[SaCounter.bytes]! + sent.counters[SaCounter.bytes]!;
  }
  return bytes;
}

export function tunnelStatus(
  host: StatusSource,
  { document, secret, declined, lastFailure }: RunningFacts,
): TunnelStatus {
  const { name, uuid } = document;
  const status = hostTunnelStatus(host, name);
  if (status === undefined) return inactiveStatus(name, uuid);
  return {
    ...status,
    uuid,
    active: true,
    redundancy: undefined,
    secret,
    declined: [...declined],
    lastFailure: lastFailure && failureStatus(host.now(), lastFailure),
  };
}

function failureStatus(now: number, { at, ...failure }: NonNullable<RunningFacts['lastFailure']>): FailureStatus {
  return { secondsAgo: seconds(now - at), ...failure };
}

/** Each child of the configuration has an SA. */
export function isUp(tunnel: Tunnel): boolean {
  // Those that are populated from packets are never missed, but nothing is up before the first packet.
  const idle = tunnel.children.size === 0 && [...tunnel.plans].some(({ child }) => child.pfp !== undefined);
  return tunnel.complete && !idle;
}

function stateOf(
  engine: StatusSource['engine'],
  tunnel: Tunnel,
  ikeSas: readonly IkeSaStatus[],
): TunnelStatus['state'] {
  if (isUp(tunnel)) return 'up';
  if (tunnel.children.size > 0) return 'partial';
  const leaving = ['established', 'rekeyed', 'deleting'];
  const coming =
    ikeSas.some(({ state }) => !leaving.includes(state)) || tunnel.retry.at !== undefined || engine.awaitsTurn(tunnel);
  return coming ? 'connecting' : 'waiting';
}

function ikeStatus(now: number, sa: IkeSaStatus, tunnel: Tunnel): IkeStatus {
  const { nat } = sa;
  return {
    id: sa.id,
    state: sa.state,
    initiator: sa.initiator,
    spiInitiator: formatIkeSpi(sa.spiInitiator),
    spiResponder: formatIkeSpi(sa.spiResponder),
    localId: sa.localId === undefined ? '(not yet sent)' : formatIdentity(sa.localId),
    remoteId: sa.remoteId === undefined ? undefined : formatIdentity(sa.remoteId),
    local: formatSocketAddress(sa.path.local),
    remote: formatSocketAddress(sa.path.remote),
    suite: sa.suite,
    nat: nat.local ? (nat.remote ? 'both' : 'local') : nat.remote ? 'remote' : 'none',
    age: seconds(now - sa.createdAt),
    lastHeard: sa.lastHeardAt === undefined ? undefined : seconds(now - sa.lastHeardAt),
    unanswered: sa.request && { sent: sa.request.sent, seconds: seconds(now - sa.request.since) },
    rekeyIn: until(now, sa.rekeyAt),
    children: sa.children.map((child) => childStatus(now, child, tunnel.children.get(child.id))),
  };
}

function childStatus(now: number, sa: ChildSaStatus, child: EngineChild | undefined): ChildStatus {
  const inbound = child?.received.counters;
  const outbound = child?.sent.counters;
  const away = child?.tunnel.narrowedAway(child) ?? [];
  return {
    id: sa.id,
    name: sa.name,
    mode: sa.mode,
    suite: child?.summary.suite ?? sa.suite,
    esn: child?.summary.esn ?? false,
    encapsulated: sa.encapsulated,
    spiIn: formatSpi(sa.spiIn),
    spiOut: formatSpi(sa.spiOut),
    localSelectors: sa.selectors.local.map(formatSelector),
    remoteSelectors: sa.selectors.remote.map(formatSelector),
    narrowed: away.length > 0,
    narrowedAway: away,
    age: seconds(now - sa.createdAt),
    rekeyIn: until(now, sa.rekeyAt),
    expiresIn: until(now, sa.expiresAt),
    bytesIn: inbound?.[SaCounter.bytes] ?? 0,
    packetsIn: inbound?.[SaCounter.packets] ?? 0,
    bytesOut: outbound?.[SaCounter.bytes] ?? 0,
    packetsOut: outbound?.[SaCounter.packets] ?? 0,
    dummiesIn: inbound?.[SaCounter.dummies] ?? 0,
    dummiesOut: outbound?.[SaCounter.dummies] ?? 0,
    ecnMarked: inbound?.[SaCounter.ecnMarked] ?? 0,
    ecnUnexpected: inbound?.[SaCounter.ecnUnexpected] ?? 0,
  };
}

/** Packets that the policy lets bypass, but that were routed into the device, which cannot send in the clear. */
function bypassDrops({ bypassed }: Tunnel): Record<string, number> {
  return bypassed === 0 ? {} : { 'bypass-in-tunnel': bypassed };
}

function deviceDrops(dropped: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(
    Object.entries(dropped)
      .filter(([, count]) => count > 0)
      .map(([reason, count]) => [`device-${reason}`, count]),
  );
}

function until(now: number, at: number | undefined): number | undefined {
  return at === undefined ? undefined : Math.max(0, seconds(at - now));
}

function seconds(milliseconds: number): number {
  return Math.round(milliseconds) / 1000;
}
