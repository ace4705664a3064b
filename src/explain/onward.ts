/** Where a packet that came out of the tunnel goes on: to the network behind this gateway, or away from it in the clear. */
import { type AddressRange, formatRange, type IpAddress, rangeContains, rangeToPrefixes } from '../base/address.ts';
import { isWhole } from '../base/ranges.ts';
import { formatPrefix, type InstalledRoute, type Prefix, prefixContains } from '../hostnet/routes/routes.ts';
import { formatSeenRule } from '../hostnet/routes/seen-rules.ts';
import { isGeneral } from '../hostnet/steering/onward.ts';
import { OWN_QUERY } from '../hostnet/steering/policy-routing.ts';
import { isOnwardRefusal } from '../hostnet/steering/priorities.ts';
import type { Routing } from '../hostnet/view.ts';
import type { Obstacle } from './obstacle.ts';
import type { AskedPacket } from './packet.ts';

/** What the tunnel says of a packet that comes out of it. */
export interface CameOut {
  /** The local network of the policy that it is for. */
  readonly network: AddressRange;
  /** Of its SA, if ESP is routed in the same network namespace. */
  readonly peer: IpAddress | undefined;
}

/** By which route it leaves. */
export interface OnwardRoute {
  readonly route: InstalledRoute;
  readonly link: string;
}

/**
 * A route for everything leads anywhere: by the link of the tunnel's own packets certainly back to where the tunnel
 * protects from. A policy for all addresses wants just that.
 */
export function exposure(
  routing: Routing,
  { network, peer }: CameOut,
  destination: IpAddress,
  { route, link }: OnwardRoute,
): Obstacle | undefined {
  if (isWhole(network) || !rangeContains(network, destination) || !isGeneral(route, peer === undefined ? [] : [peer]))
    return undefined;
  const outer = peer && routing.routeTo({ destination: peer, ...OWN_QUERY });
  const certain = outer !== undefined && routing.link(outer.linkIndex)?.name === link;
  const verdict = certain
    ? `this host sends it on in the clear by ${link}, the link of the tunnel's own packets`
    : `it may leave in the clear: no other route than the one for everything, by ${link}, leads on`;
  const name = formatPrefix(prefixAt(network, destination));
  const via = route.gateway === undefined ? '' : ` via ${formatRange({ start: route.gateway, end: route.gateway })}`;
  const warning =
    `there is no route to ${name} of its own, only ${formatPrefix(route.destination)}${via} dev ${link}; ` +
    `if its link or address is gone, bring it back, and let no packet out there without it: ip route add unreachable ${name} metric 4294967295; ` +
    `if it is reached that way, say so: ip route add ${name}${via} dev ${link}`;
  return { effect: 'lead', certain, verdict, warning };
}

function prefixAt(network: AddressRange, destination: IpAddress): Prefix {
  return rangeToPrefixes(network).find((prefix) => prefixContains(prefix, destination))!;
}

/** A packet for which the network's route is gone, and which the tunnel's own rules refuse therefore. */
export function refusedOnward(link: string, rule: string): Obstacle {
  const verdict =
    'its network has no route of its own any more, and this host refuses it rather than send it on in the clear';
  const warning = `bring the link and the address of the network back (ip route; ip address): what comes in by ${link} does not go by the default route, as rule ${rule} says`;
  return { effect: 'stop', certain: true, verdict, warning };
}

/** A packet from a network whose route is gone: it cannot come from there, and replies to it are refused. @param device the tunnel's */
export function lostSource(
  routing: Routing,
  { source, destination }: Pick<AskedPacket, 'source' | 'destination'>,
  device: string,
): Obstacle | undefined {
  const refusal = routing
    .seenRules(source.family)
    .find((rule) => isOnwardRefusal(rule) && rule.inputLink === device && rule.to && prefixContains(rule.to, source));
  if (refusal === undefined) return undefined;
  const inputLinkIndex = routing.link(device)?.index;
  if (inputLinkIndex === undefined) return undefined;
  const reply = { source: destination, destination: source, inputLinkIndex };
  if (routing.refusalOf(reply) !== 'no-route') return undefined;
  const verdict = 'the network that it comes from has no route of its own any more, and replies to it are refused';
  const warning = `bring the link and the address of ${formatPrefix(refusal.to!)} back (ip route; ip address): what comes out of the tunnel for it does not go by the default route, as rule ${formatSeenRule(refusal)} says`;
  return { effect: 'lead', certain: true, verdict, warning };
}
