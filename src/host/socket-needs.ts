/** From the configuration of a tunnel to the sockets that it needs. */
import type { TunnelConfig } from '../engine/config.ts';
import type { UdpNetwork } from '../tun/udp/udp.ts';
import type { SocketNeed } from './sockets.ts';

/**
 * Where a tunnel listens: each connection's own address, or all of the family, on its port and on the one it moves to;
 * and for ESP straight over IP, where that may come.
 */
export function socketNeeds(config: TunnelConfig, { rawEsp }: Pick<UdpNetwork, 'rawEsp'>): SocketNeed[] {
  const needs = new Map<string, SocketNeed>();
  for (const { local, remote, nat } of config.connections) {
    const fixed = local.address ?? remote.address;
    const families = fixed === undefined ? ([4, 6] as const) : [fixed.family];
    for (const family of families) {
      const optional = fixed === undefined && family === 6;
      for (const port of nat.mode === 'off' ? [local.port] : [local.port, local.natPort]) {
        const { address, vrf } = local;
        const need = { kind: 'udp', family, address, port, vrf, optional } as const;
        needs.set(`${family} ${String(address?.value)} ${port} ${vrf}`, need);
      }
      if (rawEsp !== undefined && nat.mode !== 'force') {
        needs.set(`${family} ESP ${local.vrf}`, { kind: 'esp', family, vrf: local.vrf, optional });
      }
    }
  }
  return [...needs.values()];
}
