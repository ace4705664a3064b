/**
 * What a daemon needs of the machine that it runs on. Linux provides it with TUN devices and UDP sockets; tests and
 * hosts without privileges with devices in memory.
 */
import type { IpAddress } from '../base/address.ts';
import type { PacketDevice } from '../tun/device.ts';
import type { FenceKeeper } from '../tun/fence.ts';
import type { PortRange } from '../tun/routes.ts';
import type { UdpNetwork } from '../tun/udp.ts';
import type { Routing } from './explain-way.ts';

/** A destination whose traffic is led into the tunnel. */
export interface RoutePlan {
  readonly address: IpAddress;
  readonly prefixLength: number;
  /** Addresses that the packets may come from: a local one among them becomes the preferred source. */
  readonly sources: readonly { readonly start: IpAddress; readonly end: IpAddress }[];
}

/** What is led into a device in transport mode: packets from this host to its peer, for which there is no other route. */
export interface TransportPlan {
  readonly local: IpAddress;
  readonly remote: IpAddress;
  /** What is to be protected; never empty. */
  readonly flows: readonly FlowPlan[];
  /** Local UDP ports of IKE, and of ESP in UDP: what comes from there is the tunnel's own. */
  readonly ownPorts: readonly number[];
  /** Routing table; the tunnel's alone. */
  readonly table: number;
}

/** What is left out fits everything. */
export interface FlowPlan {
  readonly protocol: number | undefined;
  readonly sourcePorts: PortRange | undefined;
  readonly destinationPorts: PortRange | undefined;
}

export interface DevicePlan {
  /** For as many as read and write it; one when left out. */
  readonly queues?: number;
  readonly name: string;
  readonly mtu: number;
  /** Routing table; the main one when left out. */
  readonly table: number | undefined;
  readonly routes: readonly RoutePlan[];
  readonly transport: TransportPlan | undefined;
  /** The other end of the tunnel: packets to it never enter the table, or the tunnel would lead into itself. */
  readonly peer: IpAddress | undefined;
}

export interface Platform {
  readonly network: UdpNetwork;
  /** Links, addresses, routes and rules of the host, to tell which way a packet takes; left out where they cannot be read. */
  readonly hostNetwork?: Routing | undefined;
  /** Memory for batches in which its devices work best. Default: the heap. */
  readonly allocate?: (bytes: number) => Uint8Array;
  /** Keeps packets from passing in the clear. Machines in memory may have none. */
  readonly fence?: FenceKeeper | undefined;
  /**
   * Leads what comes in by a bridge into a tunnel's routing table, and nowhere else: where the table knows no way there is
   * none. The bridge need not exist yet. Returns how to undo it. @throws Error, with nothing changed
   */
  leadBridge?(bridge: string, table: number): () => void;
  /** Takes away what a daemon that died led out of other bridges than these. */
  forgetBridges?(keep: readonly string[]): void;
  /** Why its devices and sockets cannot be used by worker threads; `undefined` when they can. */
  readonly whyNoWorkers?: string | undefined;
  /** The local address from which packets to `remote` leave; `undefined` when there is no route. */
  localAddressFor(remote: IpAddress): IpAddress | undefined;
  /** How large IP packets from `local` to `remote` may be, as far as the system knows; `undefined` without a route. */
  pathMtuFor(remote: IpAddress, local?: IpAddress): number | undefined;
  /** Opens the device, brings it up and sets its routes; all or nothing. @throws Error saying what is missing */
  openDevice(plan: DevicePlan): Promise<PacketDevice>;
}
