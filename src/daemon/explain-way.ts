/** Which way a packet takes on this host: the kernel is asked for its route, and the rule is found that led to it. */
import { formatAddress, sameAddress } from '../base/address.ts';
import { assertNever } from '../base/assert.ts';
import { hasPorts, protocolName } from '../policy/protocols.ts';
import {
  formatPrefix,
  type HostNetwork,
  type InstalledRule,
  type PortRange,
  prefixContains,
  type RouteAnswer,
  type RouteQuery,
  type Rule,
  ruleFits,
} from '../tun/routes.ts';
import type { AskedPacket } from './explain-packet.ts';
import type { WayExplanation } from './explanation.ts';

/** The link that the host's own packets come from, in rules. */
const OWN = 'lo';

/** What of a host's network is read. */
export type Routing = Pick<HostNetwork, 'addresses' | 'link' | 'routes' | 'routeTo' | 'rules'>;

/**
 * @param device the tunnel's, while it is active
 * @param mark that the packet bears when it is routed
 */
export function explainWay(
  routing: Routing,
  packet: AskedPacket,
  device: string | undefined,
  mark: number | undefined,
): WayExplanation {
  const { query: unmarked, cameBy } = questionOf(routing, packet, device);
  const query = { ...unmarked, mark };
  const answer = routing.routeTo(query);
  const rule = answer?.local === true ? undefined : decidingRule(routing, query, cameBy, answer);
  const ruleText = rule && formatRule(rule);
  const link = answer === undefined || answer.local ? undefined : linkName(routing, answer.linkIndex);
  const gateway = answer?.gateway && formatAddress(answer.gateway);
  return {
    text: wayText(packet, answer, cameBy, link, gateway),
    link,
    gateway,
    table: answer?.table,
    rule: ruleText,
    reachesTunnel: link !== undefined && link === device,
  };
}

function wayText(
  { destination }: AskedPacket,
  answer: RouteAnswer | undefined,
  cameBy: string,
  link: string | undefined,
  gateway: string | undefined,
): string {
  const enters = cameBy === OWN ? '' : `in by ${cameBy}, `;
  if (answer === undefined) {
    const forwarding = cameBy === OWN ? '' : ', or this host does not forward';
    return `${enters}there is no way to ${formatAddress(destination)}, or a route forbids it${forwarding}`;
  }
  if (link === undefined) return `${enters}${formatAddress(destination)} is this host`;
  return `${enters}out by ${link}${gateway === undefined ? '' : ` to the router ${gateway}`}`;
}

function linkName(routing: Routing, index: number): string {
  return routing.link(index)?.name ?? `link ${index}`;
}

/**
 * As the kernel would be asked for this packet: one that leaves may be the host's own or come in by the link that leads to
 * its sender; one that arrives came out of the tunnel.
 */
function questionOf(
  routing: Routing,
  packet: AskedPacket,
  device: string | undefined,
): { readonly query: RouteQuery; readonly cameBy: string } {
  const { direction, source, destination, protocol, sourcePort, destinationPort } = packet;
  const ports = hasPorts(protocol) ? { sourcePort, destinationPort } : {};
  const query: RouteQuery = { destination, source, ipProtocol: protocol, ...ports };
  const own = routing.addresses().some(({ address }) => sameAddress(address, source));
  if (direction === 'out' && own) return { query, cameBy: OWN };
  const inputLinkIndex =
    direction === 'in' && device !== undefined
      ? routing.link(device)?.index
      : routing.routeTo({ destination: source })?.linkIndex;
  if (inputLinkIndex === undefined) return { query: { ...query, source: undefined }, cameBy: OWN };
  return { query: { ...query, inputLinkIndex }, cameBy: linkName(routing, inputLinkIndex) };
}

/** The rule whose table had the route. Rules with parts that are not read (masks of marks) are passed over. */
function decidingRule(
  routing: Routing,
  query: RouteQuery,
  cameBy: string,
  answer: RouteAnswer | undefined,
): InstalledRule | undefined {
  const rules = routing.rules(query.destination.family);
  let from = 0;
  for (const rule of rules) {
    if (rule.priority < from || !ruleFits(rule, query, cameBy)) continue;
    const { action } = rule;
    switch (action.type) {
      case 'goto':
        if (rules.some(({ priority }) => priority === action.priority)) from = action.priority;
        break;
      case 'nop':
        break;
      case 'unreachable':
      case 'blackhole':
        if (answer === undefined) return rule;
        break;
      case 'table':
        if (answer === undefined ? forbids(routing, action.table, query) : action.table === answer.table) return rule;
        break;
      default:
        assertNever(action, 'rule action');
    }
  }
  return undefined;
}

/** Whether the best route of a table is one that leads nowhere. */
function forbids(routing: Routing, table: number, { destination }: RouteQuery): boolean {
  const [best] = routing
    .routes({ family: destination.family, table })
    .filter((route) => prefixContains(route.destination, destination))
    .sort((a, b) => b.destination.prefixLength - a.destination.prefixLength || a.metric - b.metric);
  return best?.type === 'unreachable' || best?.type === 'blackhole';
}

/** `7000: from all to 10.2.0.0/24 ipproto udp dport 5000 lookup 7001`, as `ip rule` prints it. */
export function formatRule(rule: Rule): string {
  const parts = [
    `${rule.priority}:`,
    `from ${rule.from === undefined ? 'all' : formatPrefix(rule.from)}`,
    ...(rule.to === undefined ? [] : [`to ${formatPrefix(rule.to)}`]),
    ...(rule.mark === undefined ? [] : [`fwmark 0x${rule.mark.toString(16)}/0x${rule.mark.toString(16)}`]),
    ...(rule.inputLink === undefined ? [] : [`iif ${rule.inputLink}`]),
    ...(rule.ipProtocol === undefined ? [] : [`ipproto ${protocolName(rule.ipProtocol)}`]),
    ...(rule.sourcePorts === undefined ? [] : [`sport ${span(rule.sourcePorts)}`]),
    ...(rule.destinationPorts === undefined ? [] : [`dport ${span(rule.destinationPorts)}`]),
    actionText(rule.action),
  ];
  return parts.join(' ');
}

/** Tables that have a name everywhere. */
const TABLE_NAMES: Readonly<Record<number, string>> = { 253: 'default', 254: 'main', 255: 'local' };

function actionText(action: Rule['action']): string {
  switch (action.type) {
    case 'table':
      return `lookup ${TABLE_NAMES[action.table] ?? action.table}`;
    case 'goto':
      return `goto ${action.priority}`;
    case 'nop':
    case 'unreachable':
    case 'blackhole':
      return action.type;
    default:
      return assertNever(action, 'rule action');
  }
}

function span({ start, end }: PortRange): string {
  return start === end ? String(start) : `${start}-${end}`;
}
