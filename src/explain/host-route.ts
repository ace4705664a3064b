/** The route of a packet on this host, which the kernel is asked for, and the routing rule that selected it. */
import { formatAddress, type IpAddress, sameAddress } from '../base/address.ts';
import { assertNever } from '../base/assert.ts';
import type { SeenRule } from '../hostnet/routes/routes.ts';
import {
  type InstalledRoute,
  OWN_PROTOCOL,
  prefixContains,
  type RouteAnswer,
  type RouteQuery,
  type RouteRefusal,
} from '../hostnet/routes/routes.ts';
import { formatSeenRule, seenRuleFits } from '../hostnet/routes/seen-rules.ts';
import { isOnwardRefusal } from '../hostnet/steering/priorities.ts';
import type { Routing } from '../hostnet/view.ts';
import { hasPorts } from '../policy/protocols.ts';
import type { RouteExplanation } from './explanation.ts';
import type { AskedPacket } from './packet.ts';

/** The link that the host's own packets come from, in rules. */
const OWN = 'lo';

/** Protocol number of the rules that every host has (RTPROT_KERNEL). */
const KERNEL_PROTOCOL = 2;

/** Where a packet comes from: this host itself, or a link. */
export interface Origin {
  readonly own: boolean;
  /** `lo` for the host's own. */
  readonly cameBy: string;
  readonly inputLinkIndex: number | undefined;
}

export interface HostRoute extends RouteExplanation {
  /** It is for this host. */
  readonly toHost: boolean;
  /** Why there is no route. */
  readonly refusal: RouteRefusal | undefined;
  /** It came out of the tunnel, and the rule lets it take no other way than its network's own. */
  readonly refusedOnward: boolean;
  /** The rule is another program's. */
  readonly foreign: boolean;
  /** Earlier rules that may match the packet and have another route: they have conditions on what is not known of it. */
  readonly doubtful: readonly string[];
}

/**
 * A packet that leaves may be the host's own; others arrive on the link that leads to their sender, or came out of a tunnel.
 *
 * @param cameBy the tunnel's device, for what came out of it
 */
export function originOf(routing: Routing, { direction, source }: AskedPacket, cameBy: string | undefined): Origin {
  const host: Origin = { own: true, cameBy: OWN, inputLinkIndex: undefined };
  if (direction === 'out' && isOfHost(routing, source)) return host;
  const inputLinkIndex =
    cameBy === undefined ? routing.routeTo({ destination: source })?.linkIndex : routing.link(cameBy)?.index;
  if (inputLinkIndex === undefined) return host;
  return { own: false, cameBy: linkName(routing, inputLinkIndex), inputLinkIndex };
}

export function isOfHost(routing: Routing, address: IpAddress): boolean {
  return routing.addresses().some((one) => sameAddress(one.address, address));
}

/** @param mark that the packet bears when it is routed */
export function explainRoute(
  routing: Routing,
  packet: AskedPacket,
  origin: Origin,
  device: string | undefined,
  mark: number | undefined,
): HostRoute {
  const query = queryOf(routing, packet, origin, mark);
  const answer = routing.routeTo(query);
  const refusal = answer === undefined ? routing.refusalOf(query) : undefined;
  const toHost = answer?.local === true;
  const decided = toHost || refusal === 'source' ? undefined : decidingRule(routing, query, origin, answer);
  const rule = decided?.rule;
  const link = answer === undefined || toHost ? undefined : linkName(routing, answer.linkIndex);
  const gateway = answer?.gateway && formatAddress(answer.gateway);
  return {
    text: routeText(packet, refusal, origin, link, gateway),
    link,
    gateway,
    table: answer?.table,
    rule: rule && formatSeenRule(rule),
    reachesTunnel: link !== undefined && link === device,
    toHost,
    refusal,
    refusedOnward: refusal === 'no-route' && rule !== undefined && isOnwardRefusal(rule),
    foreign: rule !== undefined && rule.protocol !== OWN_PROTOCOL && rule.protocol !== KERNEL_PROTOCOL,
    doubtful: (decided?.doubtful ?? []).map((other) => formatSeenRule(other)),
  };
}

/** The route that decides, as it is set. @param mark as with `explainRoute` */
export function routeOf(
  routing: Routing,
  packet: AskedPacket,
  origin: Origin,
  mark: number | undefined,
): InstalledRoute | undefined {
  return routing.routeFor(queryOf(routing, packet, origin, mark));
}

function routeText(
  { source, destination }: AskedPacket,
  refusal: RouteRefusal | undefined,
  { own, cameBy }: Origin,
  link: string | undefined,
  gateway: string | undefined,
): string {
  const enters = own ? '' : `in by ${cameBy}, `;
  switch (refusal) {
    case 'no-route':
      return `${enters}there is no route to ${formatAddress(destination)}, or a route forbids it`;
    case 'source':
      return `in by ${cameBy}, where packets from ${formatAddress(source)} are not accepted`;
    case undefined:
      break;
    default:
      return assertNever(refusal, 'route refusal');
  }
  if (link === undefined) return `${enters}${formatAddress(destination)} is this host`;
  return `${enters}out by ${link}${gateway === undefined ? '' : ` to the router ${gateway}`}`;
}

function linkName(routing: Routing, index: number): string {
  return routing.link(index)?.name ?? `link ${index}`;
}

/** The route query for this packet. A source that is not an address of this host is left out. */
function queryOf(
  routing: Routing,
  packet: AskedPacket,
  { own, inputLinkIndex }: Origin,
  mark: number | undefined,
): RouteQuery {
  const { direction, source, destination, protocol, sourcePort, destinationPort } = packet;
  const ports = hasPorts(protocol) ? { sourcePort, destinationPort } : {};
  const known = !own || (direction === 'out' && isOfHost(routing, source));
  return { destination, source: known ? source : undefined, ipProtocol: protocol, ...ports, inputLinkIndex, mark };
}

interface Decided {
  readonly rule: SeenRule | undefined;
  readonly doubtful: readonly SeenRule[];
}

/** The rule whose table had the route. */
function decidingRule(
  routing: Routing,
  query: RouteQuery,
  { cameBy }: Origin,
  answer: RouteAnswer | undefined,
): Decided {
  const rules = routing.seenRules(query.destination.family);
  const maybe: SeenRule[] = [];
  const decided = (rule: SeenRule | undefined): Decided => ({
    rule,
    doubtful: maybe.filter((other) => other !== rule && hasAnotherRoute(routing, other, query, answer)),
  });
  let from = 0;
  for (const rule of rules) {
    if (rule.priority < from) continue;
    const fit = seenRuleFits(rule, query, cameBy);
    if (fit === 'no') continue;
    if (fit === 'maybe') {
      maybe.push(rule);
      continue;
    }
    const { action } = rule;
    switch (action.type) {
      case 'goto':
        if (rules.some(({ priority }) => priority === action.priority)) from = action.priority;
        break;
      case 'nop':
        break;
      case 'unreachable':
      case 'blackhole':
      case 'prohibit':
        if (answer === undefined) return decided(rule);
        break;
      case 'table':
        if (leadsThere(routing, rule, action.table, query, answer)) return decided(rule);
        break;
      default:
        assertNever(action, 'rule action');
    }
  }
  // The kernel found that this one matches.
  return decided(maybe.find(({ action }) => action.type === 'table' && action.table === answer?.table));
}

/** Whether packets would have another route if the rule matched them. */
function hasAnotherRoute(
  routing: Routing,
  { action }: SeenRule,
  { destination }: RouteQuery,
  answer: RouteAnswer | undefined,
): boolean {
  if (action.type === 'nop') return false;
  if (action.type !== 'table') return answer !== undefined;
  const best = bestRoute(routing, action.table, destination);
  return best !== undefined && best.type !== 'throw' && (answer === undefined || action.table !== answer.table);
}

/** Whether the best route of a table is the answer, or forbids the packet. */
function leadsThere(
  routing: Routing,
  { suppressedLength, suppressedGroup }: SeenRule,
  table: number,
  { destination }: RouteQuery,
  answer: RouteAnswer | undefined,
): boolean {
  if (answer !== undefined && answer.table !== table) return false;
  if (answer !== undefined && suppressedGroup !== undefined) {
    return routing.link(answer.linkIndex)?.group !== suppressedGroup;
  }
  if (answer !== undefined && suppressedLength === undefined) return true;
  const best = bestRoute(routing, table, destination);
  if (best !== undefined && suppressedLength !== undefined && best.destination.prefixLength <= suppressedLength)
    return false;
  return answer === undefined ? best?.type === 'unreachable' || best?.type === 'blackhole' : best !== undefined;
}

function bestRoute(routing: Routing, table: number, destination: IpAddress): InstalledRoute | undefined {
  const [best] = routing
    .routes({ family: destination.family, table })
    .filter((route) => prefixContains(route.destination, destination))
    .sort((a, b) => b.destination.prefixLength - a.destination.prefixLength || a.metric - b.metric);
  return best;
}
