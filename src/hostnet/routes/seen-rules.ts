/**
 * Rules of policy routing of all programs with all their conditions, to find the rule that decides about a packet. The rules
 * of tunnels are the simpler ones of `routes.ts`.
 */
import { assertNever } from '../../base/assert.ts';
import { protocolName } from '../../policy/protocols.ts';
import {
  formatPrefix,
  type InstalledRule,
  OWN_PROTOCOL,
  type PortRange,
  type RouteQuery,
  type Rule,
  ruleFits,
  type SeenRule,
} from './routes.ts';

/** `maybe`: by what is known. @param cameBy the name of the link that the packet comes in by, `lo` for the host's own */
export function seenRuleFits(rule: SeenRule, query: RouteQuery, cameBy: string): 'yes' | 'no' | 'maybe' {
  const { marked, inverted, others, action, ...rest } = rule;
  const plain = ruleFits({ ...rest, action: { type: 'nop' } }, query, cameBy);
  const isMarked = marked === undefined || ((query.mark ?? 0) & marked.mask) >>> 0 === marked.value;
  const fits = plain && isMarked;
  if (!fits) return inverted ? 'yes' : 'no';
  if (others.length > 0) return 'maybe';
  return inverted ? 'no' : 'yes';
}

/** `7000: from all to 10.2.0.0/24 ipproto udp dport 5000 lookup 7001`, as `ip rule` prints it. */
export function formatSeenRule(rule: SeenRule): string {
  const { from, to, marked, inputLink, ipProtocol, sourcePorts, destinationPorts, suppressedLength, suppressedGroup } =
    rule;
  const parts = [
    `${rule.priority}:`,
    ...(rule.inverted ? ['not'] : []),
    `from ${from === undefined ? 'all' : formatPrefix(from)}`,
    ...(to === undefined ? [] : [`to ${formatPrefix(to)}`]),
    ...(marked === undefined ? [] : [`fwmark ${markText(marked)}`]),
    ...(inputLink === undefined ? [] : [`iif ${inputLink}`]),
    ...rule.others,
    ...(ipProtocol === undefined ? [] : [`ipproto ${protocolName(ipProtocol)}`]),
    ...(sourcePorts === undefined ? [] : [`sport ${span(sourcePorts)}`]),
    ...(destinationPorts === undefined ? [] : [`dport ${span(destinationPorts)}`]),
    actionText(rule.action),
    ...(suppressedLength === undefined ? [] : [`suppress_prefixlength ${suppressedLength}`]),
    ...(suppressedGroup === undefined ? [] : [`suppress_ifgroup ${suppressedGroup}`]),
  ];
  return parts.join(' ');
}

/** Without the mask where it is all bits, as iproute2 does. */
function markText({ value, mask }: { readonly value: number; readonly mask: number }): string {
  const hex = (number: number): string => `0x${number.toString(16)}`;
  return mask === 0xffff_ffff ? hex(value) : `${hex(value)}/${hex(mask)}`;
}

/** Tables that have a name everywhere. */
const TABLE_NAMES: Readonly<Record<number, string>> = { 253: 'default', 254: 'main', 255: 'local' };

function actionText(action: SeenRule['action']): string {
  switch (action.type) {
    case 'table':
      return `lookup ${TABLE_NAMES[action.table] ?? action.table}`;
    case 'goto':
      return `goto ${action.priority}`;
    case 'nop':
    case 'unreachable':
    case 'blackhole':
    case 'prohibit':
      return action.type;
    default:
      return assertNever(action, 'rule action');
  }
}

function span({ start, end }: PortRange): string {
  return start === end ? String(start) : `${start}-${end}`;
}

/** One of those that are described simply. */
export function seenRule({ mark, ...rule }: InstalledRule): SeenRule {
  return { ...rule, marked: mark === undefined ? undefined : { value: mark, mask: mark }, inverted: false, others: [] };
}

/** As `ip rule` prints it. */
export function formatRule(rule: Rule): string {
  return formatSeenRule(seenRule({ ...rule, protocol: OWN_PROTOCOL }));
}
