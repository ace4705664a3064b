/**
 * What a daemon needs of the machine that it runs on. Linux provides it with TUN devices and UDP sockets; tests and
 * hosts without privileges with devices in memory.
 */
import type { IpAddress } from '../base/address.ts';
import type { FenceCounters, FenceKeeper, LookScope } from '../hostnet/fence/fence.ts';
import type { ForeignRules } from '../hostnet/foreign/rules.ts';
import type { Prefix } from '../hostnet/routes/routes.ts';
import type { TableWish } from '../hostnet/steering/plan.ts';
import type { HostView } from '../hostnet/view.ts';
import type { KernelReport } from '../hostnet/watch/watch.ts';
import type { DevicePlan, InstalledTunnel } from '../plan/device.ts';
import type { PacketDevice } from '../tun/device.ts';
import type { UdpNetwork } from '../tun/udp/udp.ts';

/**
 * The machine that tunnels run on: its sockets, devices, routes and fences. `linuxPlatform` makes the one of Linux.
 */
export interface Platform {
  readonly network: UdpNetwork;
  /**
   * What of a network namespace decides about packets there, for explanations; `undefined` where it cannot be looked at.
   * @param netns by name or path; left out: that of the daemon
   * @internal
   */
  view?(netns: string | undefined): HostView | undefined;
  /** Memory for batches in which its devices work best. Default: the heap. */
  readonly allocate?: (bytes: number) => Uint8Array;
  /** Keeps packets from passing in the clear. Machines in memory may have none. @internal */
  readonly fence?: FenceKeeper | undefined;
  /**
   * Leads what comes in by a bridge into a tunnel's routing table, if one is given, and nowhere else: where the table knows
   * no way there is none. What is for the bridge's own networks is not led into any tunnel. The bridge need not exist yet;
   * what was said of it before is replaced. Returns how to undo it. @throws Error
   * @internal
   */
  routeBridge?(bridge: string, own: readonly Prefix[], tunnel: TableWish | undefined): Promise<() => Promise<void>>;
  /** The number of the routing table by which packets of a tunnel are routed. @internal */
  tableOf?(tunnel: string): number | undefined;
  /** What other programs' rules say of bridges. Left out where they cannot be seen. @internal */
  readonly foreignRules?: ForeignRules | undefined;
  /** Takes away what a daemon that died led out of other bridges than those that are led now. @internal */
  forgetBridges?(): void;
  /** A monotonic clock in milliseconds that counts the time that the machine sleeps; left out: one that does not. */
  readonly now?: (() => number) | undefined;
  /** Calls `onWake` with the milliseconds that the machine slept, when it woke up. Returns how to end it. */
  watchSleep?(onWake: (asleep: number) => void): { close(): Promise<void> };
  /** Why its devices and sockets cannot be used by worker threads; `undefined` when they can. */
  readonly whyNoWorkers?: string | undefined;
  /** The local address from which packets to `remote` leave; `undefined` when there is no route. */
  localAddressFor(remote: IpAddress, vrf?: string): IpAddress | undefined;
  /** By which link and router packets from `local` to `remote` leave, in words; `undefined` when they do not. @throws Error */
  routeToPeer?(remote: IpAddress, local?: IpAddress, vrf?: string): string | undefined;
  /** From now on calls `onChange` when addresses, links or routes of this host change. */
  watchNetwork?(onChange: () => void): void;
  /** How large IP packets from `local` to `remote` may be, as far as the system knows; `undefined` without a route. */
  pathMtuFor(remote: IpAddress, local?: IpAddress, vrf?: string): number | undefined;
  /**
   * Puts up the fence and the rules, opens the device, brings it up and leads packets into it; all or nothing, but for what
   * an earlier device of the same tunnel left standing. Closing the device leaves fence and rules, so that nothing passes
   * in the clear until the tunnel has another, or `release` is called. @throws Error saying what is missing
   */
  openDevice(plan: DevicePlan): Promise<PacketDevice>;
  /**
   * The policy of a tunnel that has this device is another one: fence, rules and routes follow it. @throws Error with what stands
   * then keeping protected packets from passing in the clear
   */
  steer?(plan: DevicePlan): Promise<void>;
  /**
   * Puts up fence and rules alone, for a tunnel that is to run as soon as it can. The fence first: it stands also where rules
   * cannot be installed yet. @throws Error saying what is missing
   */
  raise?(plan: DevicePlan): Promise<void>;
  /**
   * The fences of many tunnels that are to run, which stand nowhere else, in far less time than one after the other; the event
   * loop waits meanwhile. `raise` or `openDevice` adds the rules of each. @returns by tunnel, why its fence could not be put up
   */
  raiseFences?(plans: readonly DevicePlan[]): Promise<ReadonlyMap<string, unknown>>;
  /** Takes away what stands for a tunnel that is not to run any more. */
  release?(tunnel: string): Promise<void>;
  /** Takes away what a daemon before this one left standing, but for these tunnels. */
  reconcile?(tunnels: readonly InstalledTunnel[]): Promise<void>;
  /** Which children of level `use` have an SA: what they protect is led into the device then. */
  childrenUp?(tunnel: string, up: ReadonlySet<string>): void;
  /** Which tunnel of its redundancy group carries the packets that this one is for; itself where it is in none. */
  carrier?(tunnel: string): string;
  /**
   * From now on puts back at once what other programs change of fences, rules and routes, and tells what was found.
   * @internal
   */
  watch?(report: (report: KernelReport) => void): void;
  /**
   * Asks fences what they dropped, and puts back what other programs took.
   * @internal
   */
  look?(scope: LookScope): Promise<void>;
  /** What of fence, rules and routes of a tunnel is not as it should be and could not be put right, a sentence each. */
  degraded?(tunnel: string): readonly string[];
  /** Packets that the fence of a tunnel dropped, by reason, when it was looked at. */
  fenceDrops?(tunnel: string): FenceCounters;
  /** Ends the watch. What stands stays. */
  close?(): Promise<void>;
}
