/** The devices of a host's tunnels: several tunnels may have a share of one. The carrier sees each device once. */
import { SectunnelError } from '../base/error.ts';
import type { ControlPlane } from '../engine/control-plane.ts';
import type { Tunnel } from '../engine/tunnel.ts';
import type { DeviceCounters, PacketDevice } from '../tun/device.ts';
import type { PacketCarrier } from './carrier.ts';

export interface HostDevicesOptions {
  readonly carrier: PacketCarrier;
  readonly engine: ControlPlane;
}

export class HostDevices {
  readonly #carrier: PacketCarrier;
  readonly #engine: ControlPlane;
  /** What the engine knows devices by. */
  readonly #keys = new WeakMap<PacketDevice, string>();
  #lastKey = 0;
  /** By tunnel. BOUNDED: the owner's tunnels, both. */
  readonly #devices = new Map<string, PacketDevice>();
  readonly #taken = new Set<PacketDevice>();

  constructor({ carrier, engine }: HostDevicesOptions) {
    this.#carrier = carrier;
    this.#engine = engine;
  }

  /** @throws SectunnelError when it is another tunnel's, or its packets cannot be carried */
  check(device: PacketDevice): void {
    if (this.#taken.has(device)) {
      const how = "a device for several tunnels is given to each by SharedDevice's share()";
      throw new SectunnelError('invalid-state', `device ${device.name} belongs to another tunnel: ${how}`);
    }
    this.#carrier.checkDevice(device);
  }

  /** The same for all shares of a device: `TunnelConfig.device`. */
  keyOf(device: PacketDevice): string {
    const whole = device.shareOf ?? device;
    const key = this.#keys.get(whole) ?? String(++this.#lastKey);
    this.#keys.set(whole, key);
    return key;
  }

  /** Has the packets of a tunnel that the engine has just been given read from its device. @throws Error when that cannot be */
  open(tunnel: Tunnel, device: PacketDevice): void {
    const { index, tunnels } = this.#engine.deviceOf(tunnel);
    if (tunnels.size === 1) this.#carrier.openDevice(index, device.shareOf ?? device);
    this.#devices.set(tunnel.config.name, device);
    this.#taken.add(device);
  }

  /** Takes a tunnel out of the engine. Resolved when nothing reads or writes the device for it: then it may be closed. */
  async remove(now: number, tunnel: Tunnel): Promise<void> {
    const { name } = tunnel.config;
    const { index, tunnels } = this.#engine.deviceOf(tunnel);
    this.#engine.removeTunnel(now, name);
    const device = this.#devices.get(name);
    this.#devices.delete(name);
    if (device !== undefined) this.#taken.delete(device);
    if (tunnels.size === 0) await this.#carrier.closeDevice(index);
  }

  /** Closes all devices, of tunnels that stay in the engine. */
  async close(): Promise<void> {
    const names = [...this.#devices.keys()];
    const indexes = new Set(names.map((name) => this.#engine.deviceOf(this.#engine.tunnel(name)!).index));
    await Promise.all([...indexes].map((index) => this.#carrier.closeDevice(index)));
    await Promise.all([...this.#devices.values()].map((device) => device.close()));
  }

  get(tunnel: string): PacketDevice | undefined {
    return this.#devices.get(tunnel);
  }

  /** Each once, shares too. */
  all(): PacketDevice[] {
    return [...this.#devices.values()];
  }

  counters(name: string): Readonly<DeviceCounters> | undefined {
    const device = this.get(name);
    const tunnel = this.#engine.tunnel(name);
    if (tunnel === undefined || device === undefined) return device?.counters;
    return this.#carrier.deviceCounters(this.#engine.deviceOf(tunnel).index, device);
  }
}
