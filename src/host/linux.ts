/** A daemon's machine on Linux: TUN devices, routes over netlink, a fence in nftables, UDP sockets. */
import { formatAddress, type IpAddress } from '../base/address.ts';
import { eachOf } from '../base/each.ts';
import { LinuxForeignRules } from '../hostnet/foreign/rules-linux.ts';
import { LinuxHostNetwork } from '../hostnet/routes/linux.ts';
import { OWN_QUERY } from '../hostnet/steering/policy-routing.ts';
import type { HostView } from '../hostnet/view.ts';
import type { KernelReport } from '../hostnet/watch/watch.ts';
import { LIBVIRT_CHAINS } from '../libvirt/firewall.ts';
import type { DevicePlan, StandingTunnel } from '../plan/device.ts';
import { bootNow, watchSleep } from '../sys/boot-clock.ts';
import { namespaceExists } from '../sys/netns.ts';
import type { PacketDevice } from '../tun/device.ts';
import { SharedOffloads } from '../tun/offload/shared.ts';
import { hasLinuxUdp, linuxUdp } from '../tun/udp/linux.ts';
import { nodeUdp } from '../tun/udp/node.ts';
import { linuxRawEsp } from '../tun/udp/raw.ts';
import { LinuxPlace } from './linux-place.ts';
import type { Platform } from './platform.ts';

/**
 * Devices, sockets, fences, rules and routes of this Linux host. Loads koffi; needs CAP_NET_ADMIN when a device is
 * opened.
 * @throws Error saying what is missing
 */
export function linuxPlatform(): Platform {
  const offloads = new SharedOffloads();
  const network = new LinuxHostNetwork();
  const places = new Places(network, offloads);
  const { home } = places;
  const native = hasLinuxUdp();
  return {
    view: (netns) => places.view(netns),
    allocate: offloads.memory.allocate,
    now: native ? bootNow : undefined,
    ...(native ? { watchSleep } : {}),
    whyNoWorkers: native ? undefined : 'sockets are those of dgram, as system calls cannot be made here',
    network: native ? { ...linuxUdp(), rawEsp: linuxRawEsp } : nodeUdp,
    localAddressFor: (remote) => network.routeTo({ destination: remote, ...OWN_QUERY })?.source,
    wayTo: (remote, local) => wayTo(network, remote, local),
    watchNetwork: (onChange) => home.watchNetwork(onChange),
    pathMtuFor: (remote, local) => network.routeTo({ destination: remote, source: local, ...OWN_QUERY })?.mtu,
    fence: home.fence,
    routeBridge: (bridge, own, table) => home.routeBridge(bridge, own, table),
    foreignRules: new LinuxForeignRules(LIBVIRT_CHAINS, network),
    forgetBridges: () => home.routing.forgetBridges(),
    openDevice: (plan) => places.open(plan),
    raise: (plan) => places.raise(plan),
    release: (tunnel) => places.release(tunnel),
    reconcile: (tunnels) => places.reconcile(tunnels),
    childrenUp: (tunnel, up) => places.of(tunnel)?.routing.setUp(tunnel, up),
    carrier: (tunnel) => places.of(tunnel)?.carrier(tunnel) ?? tunnel,
    watch: (report) => places.watch(report),
    look: (thorough) => places.look(thorough),
    degraded: (tunnel) => places.of(tunnel)?.degraded(tunnel) ?? [],
    close: () => places.close(),
    fenceDrops: (tunnel) => places.of(tunnel)?.drops(tunnel) ?? {},
  };
}

function wayTo(network: LinuxHostNetwork, remote: IpAddress, local?: IpAddress): string | undefined {
  const way = network.routeTo({ destination: remote, source: local, ...OWN_QUERY });
  if (way === undefined) return undefined;
  const link = network.link(way.linkIndex)?.name ?? `link ${way.linkIndex}`;
  return way.gateway === undefined ? `by ${link}` : `by ${link} and ${formatAddress(way.gateway)}`;
}

/** The network namespaces with tunnels, and which tunnels stand where. */
class Places {
  readonly home: LinuxPlace;
  readonly #offloads: SharedOffloads;
  /** By the namespace's name. BOUNDED: by the tunnels. */
  readonly #others = new Map<string, LinuxPlace>();
  /** Tunnels with a fence or rules, whether they run or not. BOUNDED: by the tunnels. */
  readonly #standing = new Map<string, LinuxPlace>();

  #report: ((report: KernelReport) => void) | undefined;

  constructor(network: LinuxHostNetwork, offloads: SharedOffloads) {
    this.#offloads = offloads;
    this.home = new LinuxPlace(network, undefined, (report) => this.#report?.(report));
  }

  watch(report: (report: KernelReport) => void): void {
    this.#report = report;
    for (const place of this.#all()) place.watch();
  }

  async close(): Promise<void> {
    for (const place of this.#all()) await place.close();
    this.#others.clear();
  }

  #all(): LinuxPlace[] {
    return [this.home, ...this.#others.values()];
  }

  of(tunnel: string): LinuxPlace | undefined {
    return this.#standing.get(tunnel);
  }

  /** Of another namespace than the daemon's, while a tunnel stands there. */
  view(netns: string | undefined): HostView | undefined {
    return (netns === undefined ? this.home : this.#others.get(netns))?.view();
  }

  async open(plan: DevicePlan): Promise<PacketDevice> {
    const before = this.of(plan.tunnel);
    const place = this.#place(plan.netns);
    try {
      const device = await place.open(plan, this.#offloads);
      this.#standing.set(plan.tunnel, place);
      // Of a document that was changed meanwhile.
      if (before !== undefined && before !== place) {
        await before.release(plan.tunnel);
        await this.#leave(before);
      }
      return device;
    } catch (error) {
      if (before === place) throw error;
      const isReleased = await place.release(plan.tunnel).then(
        () => true,
        () => false,
      );
      if (isReleased) await this.#leave(place);
      // The next release of the tunnel then reports why that fails.
      else this.#standing.set(plan.tunnel, before ?? place);
      throw error;
    }
  }

  async raise(plan: DevicePlan): Promise<void> {
    const before = this.of(plan.tunnel);
    const place = this.#place(plan.netns);
    try {
      await place.raise(plan);
    } finally {
      // The fence may stand without the rules.
      if (place.stands(plan.tunnel)) this.#standing.set(plan.tunnel, place);
      await this.#leave(place);
    }
    if (before === undefined || before === place) return;
    await before.release(plan.tunnel);
    await this.#leave(before);
  }

  /** @throws Error when the fence or the rules cannot be taken away: the tunnel stands, and may be released again */
  async release(tunnel: string): Promise<void> {
    const place = this.of(tunnel);
    if (place === undefined) return;
    await place.release(tunnel);
    this.#standing.delete(tunnel);
    await this.#leave(place);
  }

  async reconcile(tunnels: readonly StandingTunnel[]): Promise<void> {
    for (const { tunnel, netns, table } of tunnels) {
      // Nothing stands in a namespace that is not there yet.
      if (netns !== undefined && !namespaceExists(netns)) continue;
      const place = this.#place(netns);
      place.takeOver(tunnel, table);
      this.#standing.set(tunnel, place);
    }
    await eachOf(this.#all(), (place) => place.reconcile());
  }

  async look(thorough: boolean): Promise<void> {
    for (const place of this.#all()) await place.look(thorough);
  }

  /** A namespace without tunnels is not held open. */
  async #leave(place: LinuxPlace): Promise<void> {
    if (place === this.home || [...this.#standing.values()].includes(place)) return;
    if (this.#others.get(place.netns!) === place) this.#others.delete(place.netns!);
    await place.close();
  }

  #place(netns: string | undefined): LinuxPlace {
    if (netns === undefined) return this.home;
    const known = this.#others.get(netns);
    if (known !== undefined) return known;
    const place = new LinuxPlace(undefined, netns, (report) => this.#report?.(report));
    this.#others.set(netns, place);
    if (this.#report !== undefined) place.watch();
    return place;
  }
}
