/** What a host has counted that belongs to no tunnel, and what its sockets and devices use of the system. */
import type { TunnelHost } from '../host/host.ts';

/** Datagrams and packets that belong to no tunnel, by reason. */
export function hostCounters(host: TunnelHost): Record<string, number> {
  host.refresh();
  const { engine } = host;
  const counters: Record<string, number> = { ...host.strayCounters(), ...engine.ike.counters() };
  for (const [reason, count] of Object.entries(engine.strayDrops())) counters[`esp-${reason}`] = count;
  if (host.sockets.homeless > 0) counters['send-no-socket'] = host.sockets.homeless;
  for (const { receiveErrors, sendErrors } of host.socketCounters()) {
    if (receiveErrors > 0) counters['receive-error'] = (counters['receive-error'] ?? 0) + receiveErrors;
    for (const [error, count] of Object.entries(sendErrors)) {
      if (count > 0) counters[`send-${error}`] = (counters[`send-${error}`] ?? 0) + count;
    }
  }
  return counters;
}

/** The features that open sockets and devices use, by part; a part of which none is open is left out. */
export function hostFeatures(host: TunnelHost): Record<string, readonly string[]> {
  const parts = { udp: host.sockets.sockets(), tun: host.devices() };
  const used = Object.entries(parts).map(([part, users]) => {
    return [part, [...new Set([...users].flatMap(({ features }) => features))]] as const;
  });
  return Object.fromEntries(used.filter(([, features]) => features.length > 0));
}
