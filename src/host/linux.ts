/** A daemon's machine on Linux: TUN devices, routes over netlink, a fence in nftables, UDP sockets. */
import { formatAddress } from '../base/address.ts';
import { eachOf } from '../base/each.ts';
import type { LookScope } from '../hostnet/fence/fence.ts';
import { LinuxForeignRules } from '../hostnet/foreign/rules-linux.ts';
import { wantVrf } from '../hostnet/routes/domain.ts';
import { LinuxHostNetwork } from '../hostnet/routes/linux.ts';
import type { RouteQuery } from '../hostnet/routes/routes.ts';
import { OWN_QUERY } from '../hostnet/steering/policy-routing.ts';
import type { HostView } from '../hostnet/view.ts';
import type { KernelReport } from '../hostnet/watch/watch.ts';
import { LIBVIRT_CHAINS } from '../libvirt/firewall.ts';
import type { DevicePlan, InstalledTunnel } from '../plan/device.ts';
import { bootNow, watchSleep } from '../sys/boot-clock.ts';
import { namespaceExists } from '../sys/netns.ts';
import type { PacketDevice } from '../tun/device.ts';
import { SharedOffloads } from '../tun/offload/shared.ts';
import { hasLinuxUdp, linuxUdp } from '../tun/udp/linux.ts';
import { nodeUdp } from '../tun/udp/node.ts';
import { linuxRawEsp } from '../tun/udp/raw.ts';
import { LinuxNamespace } from './linux-namespace.ts';
import type { Platform } from './platform.ts';

/**
 * Devices, sockets, fences, rules and routes of this Linux host. Loads koffi; needs CAP_NET_ADMIN when a device is
 * opened.
 * @throws Error saying what is missing
 */
export function linuxPlatform(): Platform {
  const offloads = new SharedOffloads();
  const network = new LinuxHostNetwork();
  const namespaces = new Namespaces(network, offloads);
  const { home } = namespaces;
  const native = hasLinuxUdp();
  return {
    view: (netns) => namespaces.view(netns),
    allocate: offloads.memory.allocate,
    now: native ? bootNow : undefined,
    ...(native ? { watchSleep } : {}),
    whyNoWorkers: native ? undefined : 'sockets are those of dgram, as system calls cannot be made here',
    network: native ? { ...linuxUdp(), rawEsp: linuxRawEsp } : nodeUdp,
    localAddressFor: (remote, vrf) => network.routeTo(ownQuery(network, { destination: remote }, vrf))?.source,
    routeToPeer: (remote, local, vrf) => routeToPeer(network, { destination: remote, source: local }, vrf),
    watchNetwork: (onChange) => home.watchNetwork(onChange),
    pathMtuFor: (remote, local, vrf) =>
      network.routeTo(ownQuery(network, { destination: remote, source: local }, vrf))?.mtu,
    fence: home.fence,
    routeBridge: (bridge, own, tunnel) => home.routeBridge(bridge, own, tunnel),
    foreignRules: new LinuxForeignRules(LIBVIRT_CHAINS, network),
    forgetBridges: () => home.routing.forgetBridges(),
    openDevice: (plan) => namespaces.open(plan),
    steer: async (plan) => namespaces.of(plan.tunnel)?.steer(plan),
    raise: (plan) => namespaces.raise(plan),
    raiseFences: (plans) => namespaces.raiseFences(plans),
    release: (tunnel) => namespaces.release(tunnel),
    reconcile: (tunnels) => namespaces.reconcile(tunnels),
    childrenUp: (tunnel, up) => namespaces.of(tunnel)?.routing.setUp(tunnel, up),
    tableOf: (tunnel) => namespaces.of(tunnel)?.routing.tableOf(tunnel),
    carrier: (tunnel) => namespaces.of(tunnel)?.carrier(tunnel) ?? tunnel,
    watch: (report) => namespaces.watch(report),
    look: (scope) => namespaces.look(scope),
    degraded: (tunnel) => namespaces.of(tunnel)?.degraded(tunnel) ?? [],
    close: () => namespaces.close(),
    fenceDrops: (tunnel) => namespaces.of(tunnel)?.drops(tunnel) ?? {},
  };
}

/** The query for the tunnels' own packets. @throws SectunnelError when there is no such VRF */
function ownQuery(network: LinuxHostNetwork, query: RouteQuery, vrf: string | undefined): RouteQuery {
  return { ...query, ...OWN_QUERY, outputLinkIndex: vrf === undefined ? undefined : wantVrf(network, vrf).index };
}

function routeToPeer(network: LinuxHostNetwork, query: RouteQuery, vrf: string | undefined): string | undefined {
  const route = network.routeTo(ownQuery(network, query, vrf));
  if (route === undefined) return undefined;
  const link = network.link(route.linkIndex)?.name ?? `link ${route.linkIndex}`;
  return route.gateway === undefined ? `by ${link}` : `by ${link} and ${formatAddress(route.gateway)}`;
}

/** The network namespaces with tunnels, and which tunnels stand where. */
class Namespaces {
  readonly home: LinuxNamespace;
  readonly #offloads: SharedOffloads;
  /** By the namespace's name. BOUNDED: by the tunnels. */
  readonly #others = new Map<string, LinuxNamespace>();
  /** Tunnels with a fence or rules, whether they run or not. BOUNDED: by the tunnels. */
  readonly #byTunnel = new Map<string, LinuxNamespace>();
  /** Where something is about to stand. BOUNDED: by the tunnels. */
  readonly #entering = new Map<string, LinuxNamespace>();

  #report: ((report: KernelReport) => void) | undefined;

  constructor(network: LinuxHostNetwork, offloads: SharedOffloads) {
    this.#offloads = offloads;
    this.home = new LinuxNamespace(network, undefined, (report) => this.#report?.(report));
  }

  watch(report: (report: KernelReport) => void): void {
    this.#report = report;
    for (const namespace of this.#all()) namespace.watch();
  }

  async close(): Promise<void> {
    for (const namespace of this.#all()) await namespace.close();
    this.#others.clear();
  }

  #all(): LinuxNamespace[] {
    return [this.home, ...this.#others.values()];
  }

  of(tunnel: string): LinuxNamespace | undefined {
    return this.#byTunnel.get(tunnel);
  }

  /** Of another namespace than the daemon's, while a tunnel stands there. */
  view(netns: string | undefined): HostView | undefined {
    return (netns === undefined ? this.home : this.#others.get(netns))?.view();
  }

  async open(plan: DevicePlan): Promise<PacketDevice> {
    const before = this.of(plan.tunnel);
    const namespace = this.#namespace(plan.netns);
    try {
      const device = await this.#enter(plan.tunnel, namespace, async () => {
        const opened = await namespace.open(plan, this.#offloads);
        this.#byTunnel.set(plan.tunnel, namespace);
        return opened;
      });
      // Of a document that was changed meanwhile.
      if (before !== undefined && before !== namespace) {
        await before.release(plan.tunnel);
        await this.#leave(before);
      }
      return device;
    } catch (error) {
      if (before === namespace) throw error;
      const isReleased = await namespace.release(plan.tunnel).then(
        () => true,
        () => false,
      );
      if (isReleased) await this.#leave(namespace);
      // The next release of the tunnel then reports why that fails.
      else this.#byTunnel.set(plan.tunnel, before ?? namespace);
      throw error;
    }
  }

  async raise(plan: DevicePlan): Promise<void> {
    const before = this.of(plan.tunnel);
    const namespace = this.#namespace(plan.netns);
    try {
      await this.#enter(plan.tunnel, namespace, () => namespace.raise(plan));
    } finally {
      // The fence may stand without the rules.
      if (namespace.stands(plan.tunnel)) this.#byTunnel.set(plan.tunnel, namespace);
      await this.#leave(namespace);
    }
    if (before === undefined || before === namespace) return;
    await before.release(plan.tunnel);
    await this.#leave(before);
  }

  /** Of tunnels that stand nowhere else. */
  async raiseFences(plans: readonly DevicePlan[]): Promise<ReadonlyMap<string, unknown>> {
    // BOUNDED: by the tunnels, as the other.
    const problems = new Map<string, unknown>();
    const places = new Map<LinuxNamespace, DevicePlan[]>();
    for (const plan of plans) {
      try {
        const namespace = this.#namespace(plan.netns);
        places.set(namespace, [...(places.get(namespace) ?? []), plan]);
      } catch (error) {
        problems.set(plan.tunnel, error);
      }
    }
    for (const [namespace, here] of places) {
      for (const [tunnel, problem] of await namespace.raiseFences(here)) problems.set(tunnel, problem);
      for (const { tunnel } of here) if (namespace.stands(tunnel)) this.#byTunnel.set(tunnel, namespace);
      await this.#leave(namespace);
    }
    return problems;
  }

  /** @throws Error when the fence or the rules cannot be taken away: the tunnel stands, and may be released again */
  async release(tunnel: string): Promise<void> {
    const namespace = this.of(tunnel);
    if (namespace === undefined) return;
    await namespace.release(tunnel);
    this.#byTunnel.delete(tunnel);
    await this.#leave(namespace);
  }

  async reconcile(tunnels: readonly InstalledTunnel[]): Promise<void> {
    for (const { tunnel, netns, routing } of tunnels) {
      // Nothing stands in a namespace that is not there yet.
      if (netns !== undefined && !namespaceExists(netns)) continue;
      const namespace = this.#namespace(netns);
      namespace.takeOver(tunnel, routing);
      this.#byTunnel.set(tunnel, namespace);
    }
    await eachOf(this.#all(), (namespace) => namespace.reconcile());
  }

  async look(scope: LookScope): Promise<void> {
    for (const namespace of this.#all()) await namespace.look(scope);
  }

  /** Keeps a namespace open for a tunnel that stands nowhere yet. */
  async #enter<T>(tunnel: string, namespace: LinuxNamespace, work: () => Promise<T>): Promise<T> {
    this.#entering.set(tunnel, namespace);
    try {
      return await work();
    } finally {
      this.#entering.delete(tunnel);
    }
  }

  /** A namespace without tunnels is not held open. */
  async #leave(namespace: LinuxNamespace): Promise<void> {
    if (namespace === this.home) return;
    for (const used of [this.#byTunnel, this.#entering]) if ([...used.values()].includes(namespace)) return;
    if (this.#others.get(namespace.netns!) === namespace) this.#others.delete(namespace.netns!);
    await namespace.close();
  }

  #namespace(netns: string | undefined): LinuxNamespace {
    if (netns === undefined) return this.home;
    const known = this.#others.get(netns);
    if (known !== undefined) return known;
    const namespace = new LinuxNamespace(undefined, netns, (report) => this.#report?.(report));
    this.#others.set(netns, namespace);
    if (this.#report !== undefined) namespace.watch();
    return namespace;
  }
}
