/**
 * What routing netlink messages say of rules (ip-rule(8), linux/fib_rules.h). Pure, as `rtnetlink.ts`.
 */
import type { IpFamily } from '../../base/address.ts';
import { addressToBytes } from '../../base/address.ts';
import { assertNever } from '../../base/assert.ts';
import { toHex } from '../../base/bytes.ts';
import { utf8 } from '../../base/text.ts';
import type { InstalledRule, PortRange, Rule, RuleAction, SeenRule } from '../routes/routes.ts';
import { OWN_PROTOCOL, ownerOf } from '../routes/routes.ts';
import type { Attributes } from './netlink.ts';
import { NetlinkRequest, NLM_F, parseAttributes, readHostU32, readName } from './netlink.ts';
import { familyOf, fixed, prefix, ROUTE_SIZE, routeHeader } from './rtnetlink.ts';

export const RTM_RULE = { NEWRULE: 32, DELRULE: 33, GETRULE: 34 } as const;
const FRA = {
  DST: 1,
  SRC: 2,
  IIFNAME: 3,
  GOTO: 4,
  PRIORITY: 6,
  FWMARK: 10,
  SUPPRESS_IFGROUP: 13,
  SUPPRESS_PREFIXLEN: 14,
  TABLE: 15,
  FWMASK: 16,
  OIFNAME: 17,
  PADDING: 18,
  L3MDEV: 19,
  UID_RANGE: 20,
  PROTOCOL: 21,
  IP_PROTO: 22,
  SPORT_RANGE: 23,
  DPORT_RANGE: 24,
  SPORT_MASK: 28,
  DPORT_MASK: 29,
} as const;
const FR_ACT: Readonly<Record<RuleAction['type'], number>> = {
  table: 1,
  goto: 2,
  nop: 3,
  blackhole: 6,
  unreachable: 7,
};
const KNOWN_FRA: ReadonlySet<number> = new Set(Object.values(FRA));
/** Those that `Rule` does not describe. */
const OTHER_FRA: ReadonlySet<number> = new Set([FRA.OIFNAME, FRA.PADDING, FRA.L3MDEV, FRA.UID_RANGE]);
const FR_ACT_PROHIBIT = 8;
/** In the flags: the rule is for what does not fit. */
const FIB_RULE_INVERT = 0x2;
/** What the kernel adds to each rule (SUPPRESS_*), or to each with ports (masks, since 6.15), and means nothing. */
const NO_SUPPRESSION = 0xffff_ffff;
const WHOLE_PORT = 'ffff';

export function rulesRequest(family: IpFamily): NetlinkRequest {
  return new NetlinkRequest(RTM_RULE.GETRULE, NLM_F.DUMP, routeHeader({ family }));
}

export function addRuleRequest(rule: Rule): NetlinkRequest {
  return ruleRequest(RTM_RULE.NEWRULE, NLM_F.CREATE | NLM_F.EXCLUSIVE, rule);
}

export function deleteRuleRequest(rule: Rule): NetlinkRequest {
  return ruleRequest(RTM_RULE.DELRULE, 0, rule);
}

/** `undefined` for a rule with parts that `Rule` does not describe (marks, output links, inversion, …). */
export function parseRule(body: Uint8Array): InstalledRule | undefined {
  const attributes = parseAttributes(fixed(body, ROUTE_SIZE), ROUTE_SIZE);
  const family = familyOf(body[0]!);
  const action = ruleAction(body, attributes);
  if (family === undefined || action === undefined || hasUnknownParts(body, attributes)) return undefined;
  return { ...selectorOf(body, attributes, family), mark: readHostU32(attributes.get(FRA.FWMARK)), action };
}

/** All rules of IP, with what they ask for as far as it is read. `undefined` for one of another family. */
export function parseSeenRule(body: Uint8Array): SeenRule | undefined {
  const attributes = parseAttributes(fixed(body, ROUTE_SIZE), ROUTE_SIZE);
  const family = familyOf(body[0]!);
  const action = body[7] === FR_ACT_PROHIBIT ? ({ type: 'prohibit' } as const) : ruleAction(body, attributes);
  if (family === undefined || action === undefined) return undefined;
  const value = readHostU32(attributes.get(FRA.FWMARK));
  const mask = readHostU32(attributes.get(FRA.FWMASK)) ?? 0xffff_ffff;
  return {
    ...selectorOf(body, attributes, family),
    action,
    marked: value === undefined || mask === 0 ? undefined : { value, mask },
    inverted: (readHostU32(body.subarray(8)) & FIB_RULE_INVERT) !== 0,
    others: otherParts(body, attributes),
  };
}

function selectorOf(body: Uint8Array, attributes: Attributes, family: IpFamily) {
  const inputLink = attributes.get(FRA.IIFNAME);
  const table = readHostU32(attributes.get(FRA.TABLE)) ?? 0;
  const isLookUp = body[7] === FR_ACT.table;
  const [group, length] = [FRA.SUPPRESS_IFGROUP, FRA.SUPPRESS_PREFIXLEN].map((type) => {
    const value = readHostU32(attributes.get(type)) ?? NO_SUPPRESSION;
    return value === NO_SUPPRESSION ? undefined : value;
  });
  return {
    family,
    priority: readHostU32(attributes.get(FRA.PRIORITY)) ?? 0,
    from: prefix(attributes.get(FRA.SRC), body[2]!, family),
    to: prefix(attributes.get(FRA.DST), body[1]!, family),
    inputLink: inputLink === undefined ? undefined : readName(inputLink),
    ipProtocol: attributes.get(FRA.IP_PROTO)?.[0],
    sourcePorts: portRange(attributes.get(FRA.SPORT_RANGE)),
    destinationPorts: portRange(attributes.get(FRA.DPORT_RANGE)),
    suppressedGroup: group,
    suppressedLength: length,
    owner: isLookUp || table === 0 ? undefined : table,
    protocol: attributes.get(FRA.PROTOCOL)?.[0] ?? 0,
  };
}

/** In the words of `ip rule`. */
function otherParts(body: Uint8Array, attributes: Attributes): string[] {
  const outputLink = attributes.get(FRA.OIFNAME);
  const uids = attributes.get(FRA.UID_RANGE);
  const unread = [...attributes.keys()].filter((type) => !KNOWN_FRA.has(type));
  return [
    ...(body[3] === 0 ? [] : [`tos 0x${body[3]!.toString(16).padStart(2, '0')}`]),
    ...(outputLink === undefined ? [] : [`oif ${readName(outputLink)}`]),
    ...(uids === undefined ? [] : [`uidrange ${readHostU32(uids)}-${readHostU32(uids.subarray(4))}`]),
    ...((attributes.get(FRA.L3MDEV)?.[0] ?? 0) === 0 ? [] : ['l3mdev']),
    ...unread.map((type) => `attribute ${type}`),
  ];
}

function ruleRequest(type: number, flags: number, rule: Rule): NetlinkRequest {
  const { action } = rule;
  const table = ownerOf(rule) ?? 0;
  const header = routeHeader({
    family: rule.family,
    destinationLength: rule.to?.prefixLength ?? 0,
    sourceLength: rule.from?.prefixLength ?? 0,
    table,
    type: FR_ACT[action.type],
  });
  const request = new NetlinkRequest(type, flags, header)
    .attributeU32(FRA.PRIORITY, rule.priority)
    .attributeU8(FRA.PROTOCOL, OWN_PROTOCOL);
  if (table !== 0) request.attributeU32(FRA.TABLE, table);
  if (action.type === 'goto') request.attributeU32(FRA.GOTO, action.priority);
  if (rule.to !== undefined) request.attribute(FRA.DST, addressToBytes(rule.to.address));
  if (rule.from !== undefined) request.attribute(FRA.SRC, addressToBytes(rule.from.address));
  if (rule.inputLink !== undefined) request.attribute(FRA.IIFNAME, utf8(`${rule.inputLink}\0`));
  if (rule.mark !== undefined) request.attributeU32(FRA.FWMARK, rule.mark).attributeU32(FRA.FWMASK, rule.mark);
  if (rule.suppressedGroup !== undefined) request.attributeU32(FRA.SUPPRESS_IFGROUP, rule.suppressedGroup);
  if (rule.suppressedLength !== undefined) request.attributeU32(FRA.SUPPRESS_PREFIXLEN, rule.suppressedLength);
  if (rule.ipProtocol !== undefined) request.attributeU8(FRA.IP_PROTO, rule.ipProtocol);
  if (rule.sourcePorts !== undefined) request.attribute(FRA.SPORT_RANGE, hostPorts(rule.sourcePorts));
  if (rule.destinationPorts !== undefined) request.attribute(FRA.DPORT_RANGE, hostPorts(rule.destinationPorts));
  return request;
}

function ruleAction(body: Uint8Array, attributes: Attributes): RuleAction | undefined {
  const type = (Object.keys(FR_ACT) as RuleAction['type'][]).find((name) => FR_ACT[name] === body[7]);
  switch (type) {
    case undefined:
      return undefined;
    case 'table':
      return { type, table: readHostU32(attributes.get(FRA.TABLE)) ?? body[4]! };
    case 'goto':
      return { type, priority: readHostU32(attributes.get(FRA.GOTO)) ?? 0 };
    case 'nop':
    case 'unreachable':
    case 'blackhole':
      return { type };
    default:
      return assertNever(type, 'ruleAction');
  }
}

/** Bits 0–1 of the flags are states (permanent, inverted): an inverted rule means the opposite. */
function hasUnknownParts(body: Uint8Array, attributes: Attributes): boolean {
  if (body[3] !== 0 || (readHostU32(body.subarray(8)) & FIB_RULE_INVERT) !== 0) return true;
  const isOther = (type: number, usual: string): boolean => {
    const value = attributes.get(type);
    return value !== undefined && toHex(value) !== usual;
  };
  // A mark is read where each of its bits is asked for, and no other.
  const [mark, mask] = [FRA.FWMARK, FRA.FWMASK].map((type) => toHex(attributes.get(type) ?? new Uint8Array(0)));
  return (
    mark !== mask ||
    isOther(FRA.SPORT_MASK, WHOLE_PORT) ||
    isOther(FRA.DPORT_MASK, WHOLE_PORT) ||
    [...attributes.keys()].some((type) => !KNOWN_FRA.has(type) || OTHER_FRA.has(type))
  );
}

/** In the host's order. */
function hostPorts({ start, end }: PortRange): Uint8Array {
  return Uint8Array.of(start & 0xff, start >>> 8, end & 0xff, end >>> 8);
}

function portRange(bytes: Uint8Array | undefined): PortRange | undefined {
  if (bytes === undefined) return undefined;
  const value = readHostU32(bytes);
  return { start: value & 0xffff, end: value >>> 16 };
}
