/** The devices of an engine's tunnels, and which tunnels share one. Only their numbers and policies are known here. */
import { Numbered } from '../../base/numbered.ts';
import { type DropCounters, newDropCounters } from '../../esp/drops.ts';
import { ClaimsIndex } from '../../policy/claims-index.ts';
import { type Claims, claimsOf } from '../../policy/precedence.ts';
import type { CounterMemory, DataPlane } from '../commands.ts';
import type { Tunnel } from '../tunnel.ts';

/** A device as the data plane knows it. */
export interface TunnelDevice {
  readonly index: number;
  /** Those that share it, with what they claim. BOUNDED: by the engine's tunnels. */
  readonly tunnels: Map<Tunnel, Claims>;
  readonly claims: ClaimsIndex<Tunnel>;
  /** Packets from a device of several tunnels that are for none of them. */
  readonly drops: DropCounters;
}

export class DeviceTable {
  readonly #plane: DataPlane;
  readonly #memory: CounterMemory;
  readonly #fragmentSeed: number;
  // BOUNDED: the owner's configuration, all three.
  readonly #numbered = new Numbered<TunnelDevice>();
  /** By `TunnelConfig.device`. */
  readonly #named = new Map<string, TunnelDevice>();
  readonly #byTunnel = new Map<Tunnel, TunnelDevice>();

  constructor(plane: DataPlane, memory: CounterMemory, fragmentSeed: number) {
    this.#plane = plane;
    this.#memory = memory;
    this.#fragmentSeed = fragmentSeed;
  }

  /** Gives the tunnel the device that it names, or one of its own. To be called before the data plane hears of it. */
  join(tunnel: Tunnel): TunnelDevice {
    const { device: name } = tunnel.config;
    const device = (name === undefined ? undefined : this.#named.get(name)) ?? this.#make(name);
    this.#byTunnel.set(tunnel, device);
    this.claim(tunnel);
    return device;
  }

  /** The policy of a tunnel that has joined is another one. */
  claim(tunnel: Tunnel): void {
    const device = this.of(tunnel);
    const claims = claimsOf(tunnel.policy);
    device.tunnels.set(tunnel, claims);
    device.claims.set(tunnel, claims);
  }

  #make(name: string | undefined): TunnelDevice {
    const device = {
      index: this.#numbered.next,
      tunnels: new Map<Tunnel, Claims>(),
      claims: new ClaimsIndex<Tunnel>(),
      drops: new Float64Array(this.#memory(newDropCounters().byteLength)),
    };
    this.#numbered.add(device);
    if (name !== undefined) this.#named.set(name, device);
    const { index, drops } = device;
    this.#plane.commandSender({ type: 'add-device', device: index, drops, fragmentSeed: this.#fragmentSeed });
    return device;
  }

  /** To be called after the data plane has forgotten the tunnel. */
  leave(tunnel: Tunnel): void {
    const device = this.of(tunnel);
    this.#byTunnel.delete(tunnel);
    device.tunnels.delete(tunnel);
    device.claims.delete(tunnel);
    if (device.tunnels.size > 0) return;
    const { device: name } = tunnel.config;
    if (name !== undefined) this.#named.delete(name);
    this.#numbered.remove(device.index);
    this.#plane.commandSender({ type: 'remove-device', device: device.index });
  }

  /** @param tunnel that has joined */
  of(tunnel: Tunnel): TunnelDevice {
    return this.#byTunnel.get(tunnel)!;
  }

  /** Any tunnel of the device that the data plane knows by this number. */
  anyOf(index: number): Tunnel | undefined {
    for (const tunnel of this.#numbered.get(index)?.tunnels.keys() ?? []) return tunnel;
    return undefined;
  }

  /** Other tunnels of its device that claim addresses which the tunnel claims. */
  rivals(tunnel: Tunnel): Tunnel[] {
    const { tunnels, claims } = this.of(tunnel);
    if (tunnels.size === 1) return [];
    return [...claims.near(tunnels.get(tunnel)!)].filter((other) => other !== tunnel);
  }
}
