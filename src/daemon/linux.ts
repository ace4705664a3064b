/** A daemon's machine on Linux: TUN devices, routes over netlink, a fence in nftables, UDP sockets. */
import { bootNow, watchSleep } from '../tun/boot-clock.ts';
import type { PacketDevice } from '../tun/device.ts';
import { LinuxHostNetwork } from '../tun/linux-routes.ts';
import { SharedOffloads } from '../tun/offload/shared.ts';
import { linuxRawEsp } from '../tun/raw-linux.ts';
import { hasLinuxUdp, linuxUdp } from '../tun/udp-linux.ts';
import { nodeUdp } from '../tun/udp-node.ts';
import { LinuxPlace } from './linux-place.ts';
import type { DevicePlan, Platform, StandingTunnel } from './platform.ts';
import { OWN_QUERY } from './steering.ts';

export function linuxPlatform(): Platform {
  const offloads = new SharedOffloads();
  const network = new LinuxHostNetwork();
  const places = new Places(network, offloads);
  const { home } = places;
  const native = hasLinuxUdp();
  return {
    hostNetwork: network,
    allocate: offloads.memory.allocate,
    now: native ? bootNow : undefined,
    ...(native ? { watchSleep } : {}),
    whyNoWorkers: native ? undefined : 'sockets are those of dgram, as system calls cannot be made here',
    network: native ? { ...linuxUdp(), rawEsp: linuxRawEsp } : nodeUdp,
    localAddressFor: (remote) => network.routeTo({ destination: remote, ...OWN_QUERY })?.source,
    pathMtuFor: (remote, local) => network.routeTo({ destination: remote, source: local, ...OWN_QUERY })?.mtu,
    fence: home.fence,
    leadBridge: (bridge, own, table) => home.steering.leadBridge(bridge, own, table),
    forgetBridges: () => home.steering.forgetBridges(),
    openDevice: (plan) => places.open(plan),
    raise: (plan) => places.raise(plan),
    release: (tunnel) => places.release(tunnel),
    reconcile: (tunnels) => places.reconcile(tunnels),
    childrenUp: (tunnel, up) => places.of(tunnel)?.steering.setUp(tunnel, up),
    lookAtFences: () => places.look(),
    fenceDrops: (tunnel) => places.of(tunnel)?.drops(tunnel) ?? {},
  };
}

/** The network namespaces with tunnels, and which tunnels stand where. */
class Places {
  readonly home: LinuxPlace;
  readonly #offloads: SharedOffloads;
  /** By the namespace's name. BOUNDED: by the tunnels. */
  readonly #others = new Map<string, LinuxPlace>();
  /** Tunnels with a fence or rules, whether they run or not. BOUNDED: by the tunnels. */
  readonly #standing = new Map<string, LinuxPlace>();

  constructor(network: LinuxHostNetwork, offloads: SharedOffloads) {
    this.#offloads = offloads;
    this.home = new LinuxPlace(network, undefined);
  }

  of(tunnel: string): LinuxPlace | undefined {
    return this.#standing.get(tunnel);
  }

  async open(plan: DevicePlan): Promise<PacketDevice> {
    const before = this.of(plan.tunnel);
    const place = this.#place(plan.netns);
    try {
      const device = await place.open(plan, this.#offloads);
      this.#standing.set(plan.tunnel, place);
      // Of a document that was changed meanwhile.
      if (before !== undefined && before !== place) await before.release(plan.tunnel);
      return device;
    } catch (error) {
      if (before !== place) await place.release(plan.tunnel);
      throw error;
    }
  }

  async raise(plan: DevicePlan): Promise<void> {
    const place = this.#place(plan.netns);
    await place.raise(plan);
    this.#standing.set(plan.tunnel, place);
  }

  async release(tunnel: string): Promise<void> {
    const place = this.of(tunnel);
    this.#standing.delete(tunnel);
    await place?.release(tunnel);
  }

  async reconcile(tunnels: readonly StandingTunnel[]): Promise<void> {
    for (const { tunnel, netns, table } of tunnels) {
      const place = this.#place(netns);
      place.stands(tunnel, table);
      this.#standing.set(tunnel, place);
    }
    for (const place of [this.home, ...this.#others.values()]) await place.reconcile();
  }

  async look(): Promise<void> {
    for (const place of new Set([this.home, ...this.#standing.values()])) await place.look();
  }

  #place(netns: string | undefined): LinuxPlace {
    if (netns === undefined) return this.home;
    // A namespace of that name may be another one than it was.
    const known = [...this.#standing.values()].find((place) => place.netns === netns);
    const place = known ?? new LinuxPlace(undefined, netns);
    this.#others.set(netns, place);
    return place;
  }
}
