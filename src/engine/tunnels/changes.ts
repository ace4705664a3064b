/** Tunnels come, change and go: what IKE, the tables and the data plane are told of it, and in which order. */
import type { IkeEndpoint } from '../../ike/endpoint.ts';
import type { CounterMemory, DataPlane } from '../commands.ts';
import type { TunnelConfig } from '../config.ts';
import { DEFAULT_HOLD } from '../hold.ts';
import type { SaTable } from '../sa-table.ts';
import type { Tunnel } from '../tunnel.ts';
import type { DeviceTable } from './device-table.ts';
import type { TunnelTable } from './tunnel-table.ts';

export interface TunnelChangesParts {
  readonly ike: IkeEndpoint;
  readonly plane: DataPlane;
  readonly tunnels: TunnelTable;
  readonly devices: DeviceTable;
  readonly sas: SaTable;
  readonly memory: CounterMemory;
  readonly random: () => number;
}

/** Which SAs of a tunnel go when its configuration changes: all, or those of some children, by name. */
export type ClosedSas = 'all' | ReadonlySet<string>;

export class TunnelChanges {
  readonly #parts: TunnelChangesParts;

  constructor(parts: TunnelChangesParts) {
    this.#parts = parts;
  }

  /** @throws RangeError, with nothing changed, when a name is taken or the configuration cannot be worked with */
  add(config: TunnelConfig): void {
    const { ike, plane, tunnels, devices, memory, random } = this.#parts;
    const tunnel = tunnels.make(config, { memory, random });
    ike.addConnections(config.connections);
    tunnels.add(tunnel);
    const { index, policy, counters } = tunnel;
    const { hold = DEFAULT_HOLD } = config;
    const { index: device } = devices.join(tunnel);
    plane.commandSender({ type: 'add-tunnel', tunnel: index, device, policy, counters, hold });
    this.#guardAnew(devices.rivals(tunnel));
  }

  /**
   * Gives a tunnel another configuration, with connections of the same names, on the same device. SAs that it has stay as they
   * are; what is negotiated from now on follows the new one.
   * @param close called when nothing can fail any more, before the change: closes what does not fit the new configuration
   * @throws RangeError, with nothing changed, when it cannot be worked with
   */
  change(tunnel: Tunnel, config: TunnelConfig, close: () => void): void {
    const { ike, plane, devices } = this.#parts;
    const adopt = tunnel.prepare(config);
    ike.replaceConnections(config.connections, close);
    const before = devices.rivals(tunnel);
    adopt();
    devices.claim(tunnel);
    plane.commandSender({ type: 'policy', tunnel: tunnel.index, policy: tunnel.policy });
    this.#guardAnew(new Set([tunnel, ...before, ...devices.rivals(tunnel)]));
  }

  /** Its SAs are closed already, as far as the peers can be told. */
  remove(tunnel: Tunnel): void {
    const { plane, tunnels, devices, sas } = this.#parts;
    sas.removeAllOf(tunnel);
    plane.refresh?.();
    const rivals = devices.rivals(tunnel);
    plane.commandSender({ type: 'remove-tunnel', tunnel: tunnel.index });
    devices.leave(tunnel);
    tunnels.delete(tunnel);
    this.#guardAnew(rivals);
  }

  #guardAnew(tunnels: Iterable<Tunnel>): void {
    for (const tunnel of tunnels) this.#parts.sas.guardAnew(tunnel);
  }
}
