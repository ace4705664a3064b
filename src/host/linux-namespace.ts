/**
 * One network namespace in which tunnels have their devices: the fence first, then the rules and a table that leads
 * nowhere, then the device and its routes; taken away in the reverse order.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { formatAddress, rangeContains } from '../base/address.ts';
import { SectunnelError } from '../base/error.ts';
import { messageOf } from '../base/text.ts';
import { ELSEWHERE, type FenceCounters, type LookScope } from '../hostnet/fence/fence.ts';
import { LinuxFence } from '../hostnet/fence/linux.ts';
import { linuxView } from '../hostnet/linux-view.ts';
import { wantVrf } from '../hostnet/routes/domain.ts';
import { LinuxHostNetwork } from '../hostnet/routes/linux.ts';
import { type HostNetwork, OWN_PROTOCOL, type Prefix } from '../hostnet/routes/routes.ts';
import type { RoutingPlan, TableWish } from '../hostnet/steering/plan.ts';
import { OWN_QUERY, PolicyRouting } from '../hostnet/steering/policy-routing.ts';
import { TunnelOrder } from '../hostnet/steering/tunnel-order.ts';
import type { HostView } from '../hostnet/view.ts';
import { type KernelReport, KernelWatch } from '../hostnet/watch/watch.ts';
import type { DevicePlan } from '../plan/device.ts';
import { withinNamespace } from '../sys/netns.ts';
import type { PacketDevice } from '../tun/device.ts';
import { type LinuxTun, openLinuxTun } from '../tun/linux.ts';
import type { SharedOffloads } from '../tun/offload/shared.ts';
import { SharedDevice } from '../tun/shared-device.ts';
import { ownRound } from './pace.ts';
import { fenceKey, TunnelFences } from './tunnel-fences.ts';

/**
 * Packets that wait in a device until a thread reads them. The kernel's own 500 are 4 ms of a flood of datagrams, less than a
 * thread may have to wait for a processor.
 */
const QUEUE_PACKETS = 2_000;

/** What was taken away. */
export interface Cleared {
  readonly fence: boolean;
  readonly rules: number;
  readonly routes: number;
}

/** The fence stands, so nothing passes in the clear; the rules do not. */
export class FenceAloneError extends SectunnelError {
  override readonly name = 'FenceAloneError';

  constructor(cause: unknown) {
    super('system', messageOf(cause), cause);
  }
}

/** A device that several tunnels may have. */
interface OpenDevice {
  readonly shared: SharedDevice;
  /** Of its link. */
  readonly index: number;
}

export class LinuxNamespace {
  readonly netns: string | undefined;
  readonly fence: LinuxFence;
  readonly routing: PolicyRouting;
  readonly #fences: TunnelFences;
  /** By name. BOUNDED: by the tunnels. */
  readonly #devices = new Map<string, OpenDevice>();
  readonly #network: HostNetwork;
  readonly #watch: KernelWatch;
  /** What is installed here for a tunnel; of those that a daemon before this one left it may be unknown. BOUNDED: by the tunnels. */
  readonly #installed = new Map<string, RoutingPlan | undefined>();
  #counters: ReadonlyMap<string, FenceCounters> = new Map();

  /**
   * @param report is called with what other programs change here, and what cannot be restored
   * @throws Error when the namespace cannot be entered
   */
  constructor(network: HostNetwork | undefined, netns: string | undefined, report: (report: KernelReport) => void) {
    this.netns = netns;
    const within = <T>(work: () => T): T => this.#within(work);
    this.#network = network ?? new LinuxHostNetwork(within);
    this.fence = new LinuxFence({ start: within });
    const order = new TunnelOrder();
    this.routing = new PolicyRouting(this.#network, order);
    this.#fences = new TunnelFences(this.fence, order, this.routing);
    this.#watch = new KernelWatch({
      fence: this.fence,
      routing: this.routing,
      network: this.#network,
      netns,
      report,
    });
  }

  /** What decides about packets here, to be looked at. */
  view(): HostView {
    return linuxView(this.#network, this.fence, (work) => this.#within(work));
  }

  /** From now on hears of changes by other programs, and puts right at once what they change. */
  watch(): void {
    this.#watch.open();
  }

  /** Calls `onChange` at changes that may lead packets another way, as far as they are heard of. */
  watchNetwork(onChange: () => void): void {
    this.#watch.onNetwork = onChange;
  }

  /**
   * Fence and rules: packets that the policy protects cannot leave this host.
   * @throws FenceAloneError when the fence stands and the rules cannot be installed, as where an address is not there yet
   */
  async raise(plan: DevicePlan): Promise<void> {
    await this.#raiseFence(plan);
    await ownRound();
    try {
      this.#raiseRules(plan);
    } catch (error) {
      throw new FenceAloneError(error);
    }
  }

  /**
   * The fences of many in few commits; `raise` adds the rules of each.
   * @returns by tunnel, why its fence does not stand
   */
  raiseFences(plans: readonly DevicePlan[]): Promise<ReadonlyMap<string, unknown>> {
    return this.#fences.raiseTogether(plans);
  }

  async #raiseFence(plan: DevicePlan): Promise<void> {
    if (plan.routing === undefined) await this.release(plan.tunnel);
    else await this.#fences.raise(plan);
  }

  /** Which tunnel of its redundancy group carries what this one is for; itself where it is in none. */
  carrier(tunnel: string): string {
    return this.#fences.carrier(tunnel);
  }

  #raiseRules({ tunnel, name, routing }: DevicePlan): void {
    if (routing === undefined) return;
    checkReversePath(this.#network, routing);
    this.routing.prepare(routing, name);
    this.#installed.set(tunnel, routing);
    this.#watch.putUp(tunnel);
  }

  /** All or nothing, but for what stands of the same tunnel. A device that is there already is shared. */
  async open(plan: DevicePlan, offloads: SharedOffloads): Promise<PacketDevice> {
    const { tunnel, routing } = plan;
    await this.#raiseFence(plan);
    await ownRound();
    this.#raiseRules(plan);
    const { shared, index } = await this.#device(plan, offloads);
    const share = shared.share();
    try {
      if (routing !== undefined) this.routing.open(tunnel, index);
    } catch (error) {
      await share.close();
      throw error;
    }
    return share;
  }

  /** The policy of a tunnel that has its device is another one. @throws Error as `raise` */
  async steer(plan: DevicePlan): Promise<void> {
    await this.raise(plan);
    const device = this.#devices.get(plan.name);
    if (plan.routing !== undefined && device !== undefined) this.routing.open(plan.tunnel, device.index);
  }

  async #device(plan: DevicePlan, offloads: SharedOffloads): Promise<OpenDevice> {
    for (let known = this.#devices.get(plan.name); known !== undefined; known = this.#devices.get(plan.name)) {
      if (!known.shared.isEnded) return known;
      await known.shared.whenEnded();
      if (this.#devices.get(plan.name) === known) this.#devices.delete(plan.name);
    }
    const opened = this.#openDevice(plan, offloads);
    const device = { shared: new SharedDevice(opened), index: opened.index };
    this.#devices.set(plan.name, device);
    opened.onClosed(() => {
      if (this.#devices.get(plan.name) === device) this.#devices.delete(plan.name);
    });
    return device;
  }

  /** At once, so that no other tunnel comes between. */
  #openDevice({ name, mtu, vrf, queues = 1 }: DevicePlan, shared: SharedOffloads): LinuxTun {
    // Before the device is there: it would be in the default domain.
    const master = vrf === undefined ? undefined : wantVrf(this.#network, vrf).index;
    const device = this.#within(() => {
      const opened = openLinuxTun({ name, mtu, queues, shared });
      restrain(opened.name);
      return opened;
    });
    try {
      if (master !== undefined) this.#network.setLink(device.index, { master });
      this.#network.setLink(device.index, { up: true, queue: QUEUE_PACKETS });
    } catch (error) {
      void device.close();
      throw error;
    }
    return device;
  }

  /** What `Platform` says of it. From then on the bridge's addresses are there for guests, which tunnels must know. */
  async routeBridge(
    bridge: string,
    own: readonly Prefix[],
    tunnel: TableWish | undefined,
  ): Promise<() => Promise<void>> {
    const undo = this.routing.routeBridge(bridge, own, tunnel);
    const remove = async (): Promise<void> => {
      undo();
      await this.#guestsChanged();
    };
    try {
      await this.#guestsChanged();
    } catch (error) {
      undo();
      throw error;
    }
    return remove;
  }

  async #guestsChanged(): Promise<void> {
    this.#watch.addressesChanged();
    await this.#fences.guestsChanged();
  }

  /** A daemon before this one left this standing: it stays. @param plan where it is known */
  takeOver(tunnel: string, plan: RoutingPlan | undefined): void {
    this.#installed.set(tunnel, plan);
  }

  /** Whether anything of a tunnel stands here. */
  stands(tunnel: string): boolean {
    return this.#installed.has(tunnel) || this.#fences.has(tunnel);
  }

  /**
   * Rules before the fence: what is led into a table that leads nowhere needs none.
   * @throws Error with the rest still standing, to be released again
   */
  async release(tunnel: string): Promise<void> {
    const plan = this.#installed.get(tunnel);
    const isUnknown = plan === undefined && this.#installed.has(tunnel);
    if (plan !== undefined) this.routing.release(tunnel, plan);
    this.#watch.forget(tunnel);
    await this.#fences.remove(tunnel);
    this.#installed.delete(tunnel);
    await this.#fences.forget(tunnel);
    if (isUnknown) await this.reconcile();
  }

  /** Takes away what a daemon before this one left and what is not to stand. Rules stay while it is not known whose they are. */
  async reconcile(): Promise<void> {
    const plans = [...this.#installed.values()].filter((plan) => plan !== undefined);
    if (plans.length === this.#installed.size) this.routing.reconcile(plans);
    await this.#fences.reconcile(this.#installed.keys());
  }

  /** Removes everything of this product, also what an earlier process installed. Nothing may have been raised here. */
  async clear(): Promise<Cleared> {
    const rules = this.#network.rules().filter(({ protocol }) => protocol === OWN_PROTOCOL).length;
    const routes = this.#network.routes({ protocol: OWN_PROTOCOL }).length;
    this.routing.reconcile([]);
    this.routing.forgetBridges();
    return { rules, routes, fence: await this.fence.clear() };
  }

  /** Asks how much was dropped, and puts back what another program took away. */
  async look(scope: LookScope): Promise<void> {
    await this.#watch.look(scope);
    this.#counters = await this.fence.counters();
  }

  /** What of a tunnel is not as it should be, a sentence each. */
  degraded(tunnel: string): string[] {
    return this.#watch.degraded(tunnel);
  }

  /** Ends the watch. What stands stays. */
  async close(): Promise<void> {
    await this.#watch.close();
    await this.fence.close();
    await this.#network.close();
  }

  drops(tunnel: string): FenceCounters {
    return this.#counters.get(fenceKey(tunnel)) ?? {};
  }

  #within<T>(work: () => T): T {
    return this.netns === undefined ? work() : withinNamespace(this.netns, work);
  }
}

/**
 * A strict reverse path filter looks at the sender of an ARP request as at that of a packet without a protocol: where all
 * protocols are routed into the device, it drops those of the router, or of a peer on the same link, and they cannot find this
 * host.
 *
 * @throws SectunnelError with what to change
 */
function checkReversePath(network: HostNetwork, { own, outbound }: RoutingPlan): void {
  const { peer } = own;
  if (peer?.family !== 4 || own === ELSEWHERE) return;
  const route = network.routeTo({ destination: peer, ...OWN_QUERY });
  const link = route === undefined ? undefined : network.link(route.linkIndex)?.name;
  if (route === undefined || link === undefined) return;
  const neighbour = route.gateway ?? peer;
  const here = network.addresses(route.linkIndex).map(({ address }) => address);
  const led = outbound.some(
    ({ action, protocol, local, remote }) =>
      action === 'protect' &&
      protocol === undefined &&
      rangeContains(remote, neighbour) &&
      here.some((address) => rangeContains(local, address)),
  );
  if (!led || Math.max(...['all', link].map(reversePathFilter)) !== STRICT) return;
  throw new SectunnelError(
    'system',
    `all protocols to ${formatAddress(neighbour)} on the link ${link} are routed into the tunnel, and the strict reverse path filter of that link would drop its ARP requests: ` +
      `set net.ipv4.conf.${link}.rp_filter (and net.ipv4.conf.all.rp_filter) to 2 or 0, or name protocols in <upperspec>`,
  );
}

/** Of net.ipv4.conf.*.rp_filter. */
const STRICT = 1;

function reversePathFilter(name: string): number {
  try {
    return Number(readFileSync(`/proc/sys/net/ipv4/conf/${name}/rp_filter`, 'utf8'));
  } catch (error) {
    if (!(error instanceof Error && 'code' in error)) throw error;
    return 0;
  }
}

/**
 * What the kernel sends by itself on the device, as sysctls of IPv6. No link-local address: its own discovery packets
 * have no business in a tunnel, and would count as drops. Sources of what has none are chosen among the device's addresses,
 * of which there are none: a packet gets the preferred source of the tunnel's route, or is refused.
 */
const OWN_ACCORD = { addr_gen_mode: '1', use_oif_addrs_only: '1' } as const;

function restrain(name: string): void {
  for (const [setting, value] of Object.entries(OWN_ACCORD)) {
    try {
      writeFileSync(`/proc/sys/net/ipv6/conf/${name}/${setting}`, value);
    } catch (error) {
      // A host without IPv6.
      if (!(error instanceof Error && 'code' in error)) throw error;
    }
  }
}
