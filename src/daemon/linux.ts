/** A daemon's machine on Linux: TUN devices, routes over netlink, UDP sockets. */
import { readFileSync, writeFileSync } from 'node:fs';
import { addressBits, formatAddress, type IpAddress, rangeContains } from '../base/address.ts';
import type { PacketDevice } from '../tun/device.ts';
import { LinuxFence } from '../tun/fence-linux.ts';
import { LinuxHostNetwork } from '../tun/linux-routes.ts';
import { type LinuxTun, openLinuxTun } from '../tun/linux-tun.ts';
import { SharedOffloads } from '../tun/offload/shared.ts';
import { linuxRawEsp } from '../tun/raw-linux.ts';
import { formatPrefix, type HostNetwork, MAIN_TABLE, type Route, type Rule, samePrefix } from '../tun/routes.ts';
import { hasLinuxUdp, linuxUdp } from '../tun/udp-linux.ts';
import { nodeUdp } from '../tun/udp-node.ts';
import type { DevicePlan, Platform, RoutePlan, TransportPlan } from './platform.ts';
import { OWN_QUERY, Steering } from './steering.ts';

/** Before the main table (32766), behind what an administrator is likely to have. */
const RULE_PRIORITY = 7000;

export function linuxPlatform(): Platform {
  const network = new LinuxHostNetwork();
  const offloads = new SharedOffloads();
  const steering = new Steering(network);
  const native = hasLinuxUdp();
  return {
    hostNetwork: network,
    allocate: offloads.memory.allocate,
    whyNoWorkers: native ? undefined : 'sockets are those of dgram, as system calls cannot be made here',
    network: native ? { ...linuxUdp(), rawEsp: linuxRawEsp } : nodeUdp,
    localAddressFor: (remote) => network.routeTo({ destination: remote, ...OWN_QUERY })?.source,
    pathMtuFor: (remote, local) => network.routeTo({ destination: remote, source: local, ...OWN_QUERY })?.mtu,
    fence: new LinuxFence(),
    leadBridge: (bridge, table) => steering.leadBridge(bridge, table),
    forgetBridges: (keep) => steering.forgetBridges(keep),
    openDevice: (plan) => Promise.resolve(openDevice(network, steering, offloads, plan)),
  };
}

/** The interface and its routes go with the descriptor; rules do not, and are removed when the device is closed. */
function openDevice(network: HostNetwork, steering: Steering, shared: SharedOffloads, plan: DevicePlan): PacketDevice {
  const device = openLinuxTun({ name: plan.name, mtu: plan.mtu, queues: plan.queues ?? 1, shared });
  const undo: (() => void)[] = [];
  const close = device.close.bind(device);
  device.close = () => {
    for (const step of undo.splice(0)) step();
    return close();
  };
  try {
    silence(device.name);
    network.setLink(device.index, { up: true });
    for (const route of plan.routes) addRoute(network, device, plan.table, route);
    if (plan.transport !== undefined) {
      checkReversePath(network, plan.transport);
      undo.push(steering.lead(plan.transport, device.index));
    } else if (plan.table !== undefined) undo.push(...leadIntoTable(network, plan, plan.table));
  } catch (error) {
    void device.close();
    throw error;
  }
  return device;
}

/**
 * A strict reverse path filter looks at the sender of an ARP request as at that of a packet without a protocol: where all
 * protocols are led into the device, it drops the peer's requests, and the peer cannot find this host.
 * @throws Error saying what to do
 */
function checkReversePath(network: HostNetwork, { remote, flows }: TransportPlan): void {
  if (remote.family !== 4 || flows.every(({ protocol }) => protocol !== undefined)) return;
  const way = network.routeTo({ destination: remote, ...OWN_QUERY });
  const link = way === undefined ? undefined : network.link(way.linkIndex)?.name;
  if (way === undefined || link === undefined || way.gateway !== undefined) return;
  if (Math.max(...['all', link].map(reversePathFilter)) !== STRICT) return;
  throw new Error(
    `transport mode for all protocols with ${formatAddress(remote)} on the link ${link}, whose reverse path filter is strict and would drop its ARP requests: ` +
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

/** Rules for a table of the tunnel's own. Returns how to take away what does not go with the device. */
function leadIntoTable(network: HostNetwork, { routes, peer }: DevicePlan, table: number): (() => void)[] {
  const undo: (() => void)[] = [];
  if (peer !== undefined) {
    const prefixLength = addressBits(peer.family);
    const around: Route = { type: 'throw', destination: { address: peer, prefixLength }, table };
    network.addRoute(around);
    undo.push(() => void network.deleteRoute(around));
  }
  for (const { address, prefixLength } of routes) {
    const to = { address, prefixLength };
    const rule: Rule = { family: address.family, priority: RULE_PRIORITY, to, action: { type: 'table', table } };
    network.addRule(rule);
    undo.push(() => void network.deleteRule(rule));
  }
  return undo;
}

/** No link-local address: the kernel's own discovery packets have no business in a tunnel, and would count as drops. */
function silence(name: string): void {
  try {
    writeFileSync(`/proc/sys/net/ipv6/conf/${name}/addr_gen_mode`, '1');
  } catch (error) {
    // A host without IPv6, or whose /proc may not be written: nothing is lost but the silence.
    if (!(error instanceof Error && 'code' in error)) throw error;
  }
}

function addRoute(network: HostNetwork, device: LinuxTun, table: number | undefined, route: RoutePlan): void {
  const { address, prefixLength } = route;
  const taken = routeOfOurs(network, table, route);
  if (taken !== undefined) {
    throw new Error(
      `${formatPrefix(route)} is led to ${taken} by another tunnel already; stop that one, narrow one of the two, or give this one a <device table='…'>`,
    );
  }
  network.addRoute({
    type: 'unicast',
    destination: { address, prefixLength },
    linkIndex: device.index,
    table,
    source: preferredSource(network, route),
  });
}

/** The interface that a tunnel of this or another daemon leads the same destination to. */
function routeOfOurs(network: HostNetwork, table: number | undefined, route: RoutePlan): string | undefined {
  const routes = network.routes({ family: route.address.family, table: table ?? MAIN_TABLE, own: true });
  const taken = routes.find(({ destination }) => samePrefix(destination, route));
  return taken?.linkIndex === undefined ? undefined : network.link(taken.linkIndex)?.name;
}

/** An address of this host that the policy lets into the tunnel; without one the kernel picks. */
function preferredSource(network: HostNetwork, route: RoutePlan): IpAddress | undefined {
  return network
    .addresses()
    .map(({ address }) => address)
    .filter(({ family }) => family === route.address.family)
    .filter((address) => route.sources.some((range) => rangeContains(range, address)))
    .sort((a, b) => (formatAddress(a) < formatAddress(b) ? -1 : 1))[0];
}
