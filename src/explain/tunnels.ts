/** Which tunnel of this host gets a packet: the policies of several may match it, and routing rules ask them in order. */
import type { Tunnel } from '../engine/tunnel.ts';
import { type InstalledRule, OWN_PROTOCOL, ownerOf } from '../hostnet/routes/routes.ts';
import { explainFlow } from '../policy/explain.ts';
import type { TunnelSay } from './explanation.ts';
import type { AskedPacket } from './packet.ts';
import { explainSa, type SaAnswer } from './sa.ts';

/** One that runs. */
export interface HostTunnel {
  readonly name: string;
  readonly device: string;
  /** Its routing table; `undefined` when nothing is routed into it. */
  readonly table: number | undefined;
  readonly tunnel: Tunnel;
}

/** The tunnel that a packet is routed into. */
export interface Carrier extends Pick<HostTunnel, 'name' | 'tunnel'> {
  /** `undefined` when its policy does not protect the packet: it drops it. */
  readonly sa: SaAnswer | undefined;
}

export interface TunnelsAnswer {
  readonly says: readonly TunnelSay[];
  /** `undefined` when it leaves by no tunnel's device. */
  readonly carrier: Carrier | undefined;
}

/** BOUNDED: tunnels that are listed. */
const MAX_LISTED = 8;

/**
 * The order in which this host asks tunnels: that of their rules. The one place that knows; those without rules come last.
 *
 * @param rules in their order
 */
function inAskedOrder(tunnels: readonly HostTunnel[], rules: readonly InstalledRule[]): HostTunnel[] {
  const owners = rules.filter(({ protocol }) => protocol === OWN_PROTOCOL).map(ownerOf);
  const places = new Map([...new Set(owners)].map((owner, at) => [owner, at]));
  const placeOf = ({ table }: HostTunnel): number => places.get(table) ?? Number.POSITIVE_INFINITY;
  return [...tunnels].sort((a, b) => (placeOf(a) === placeOf(b) ? 0 : placeOf(a) - placeOf(b)));
}

/**
 * @param now by the engine's clock
 * @param link by which the packet leaves
 */
export function explainTunnels(
  now: number,
  tunnels: readonly HostTunnel[],
  rules: readonly InstalledRule[],
  packet: AskedPacket,
  link: string | undefined,
): TunnelsAnswer {
  const { direction, flow } = packet;
  if (direction === 'in') return { says: [], carrier: undefined };
  let carrier: Carrier | undefined;
  const getter = ownerOnDevice(tunnels, link, packet);
  const says = inAskedOrder(tunnels, rules).flatMap(({ name, tunnel }): TunnelSay[] => {
    const { decides } = explainFlow({ direction, entries: tunnel.policy }, flow, 0);
    const gets = name === getter;
    if (gets) {
      const sa = decides?.action === 'protect' ? explainSa(now, tunnel, decides, packet) : undefined;
      carrier = { name, tunnel, sa };
    }
    if (decides === undefined) return gets ? [{ name, gets, decision: 'no entry matches it' }] : [];
    return [{ name, gets, decision: `${DONE[decides.action]} by '${decides.name}'` }];
  });
  return { says: says.length > 1 ? says.slice(0, MAX_LISTED) : [], carrier };
}

/**
 * The tunnel that a packet in a device is for, or may come out of: of those that share the device the one whose entry has the
 * highest priority (RFC 4301 §4.4.1); `undefined` where no entry of several matches. A device of one tunnel is for that.
 */
export function ownerOnDevice(
  tunnels: readonly HostTunnel[],
  device: string | undefined,
  { direction, flow }: AskedPacket,
): string | undefined {
  const sharers = tunnels.filter((tunnel) => tunnel.device === device);
  if (sharers.length < 2) return sharers[0]?.name;
  let owner: string | undefined;
  let highest = Number.NEGATIVE_INFINITY;
  for (const { name, tunnel } of sharers) {
    const entries = direction === 'out' ? tunnel.policy : tunnel.inbound;
    const { decides } = explainFlow({ direction, entries }, flow, 0);
    if (decides === undefined || decides.action === 'bypass' || decides.priority <= highest) continue;
    [owner, highest] = [name, decides.priority];
  }
  return owner;
}

const DONE = { protect: 'protected', bypass: 'let pass in the clear', discard: 'discarded' } as const;
