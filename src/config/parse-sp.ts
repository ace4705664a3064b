/**
 * The security policies of a document: `<sp>` elements, or the seed's flat form, in which the same elements stand in
 * the document itself, group after group.
 */
import { anyRange, type IpFamily, parseAddress, prefixRange } from '../base/address.ts';
import { hasPorts, isIcmp, Protocol, protocolByName, protocolName, protocolNames } from '../policy/protocols.ts';
import { isAnyPorts, type PortRange } from '../policy/selector.ts';
import { DEFAULT_PRIORITY } from './defaults.ts';
import { ACTIONS, DIRECTIONS, RULE_MODES, RULE_PROTOCOLS } from './grammar.ts';
import { type Issues, suggestion } from './issues.ts';
import { joinDirections, type PolicyDraft, type SpDraft } from './mirror.ts';
import type {
  EndPoint,
  PacketRange,
  PolicySettings,
  RuleLevel,
  RuleSettings,
  SecurityPolicy,
  UpperSpec,
} from './model.ts';
import {
  attributeOf,
  makeRange,
  notAnAddress,
  readChoice,
  readFlag,
  readInteger,
  readPeerAddress,
  readPort,
  readPortRange,
  readSimpleName,
} from './values.ts';
import { childElements, type XmlNode } from './xml.ts';

/** The elements of a group in their order. */
const GROUP_ORDER = ['src_range', 'dst_range', 'upperspec', 'policy'];

/** What one `<sp>` or one group of the flat form consists of. */
interface Group {
  /** The `<sp>`, or the first element of the group. */
  readonly head: XmlNode;
  readonly members: XmlNode[];
}

export interface ReadPolicies {
  readonly sps: readonly SecurityPolicy[];
  /** The rules, with their elements: they have a say in what the two ends are. */
  readonly rules: readonly RuleElement[];
}

export interface RuleElement {
  readonly settings: RuleSettings;
  readonly node: XmlNode;
}

export function readPolicies(issues: Issues, root: XmlNode): ReadPolicies {
  const sps = childElements(root, 'sp');
  const flat = childElements(root).filter((child) => GROUP_ORDER.includes(child.name));
  const [firstSp] = sps;
  const [firstFlat] = flat;
  if (firstSp === undefined && firstFlat === undefined) {
    issues.add(root, 'there is no policy in it; add an <sp> with <src_range>, <dst_range>, <upperspec> and <policy>', {
      allowed: '<sp>',
    });
  }
  if (firstSp !== undefined && firstFlat !== undefined) {
    const where = `the first <sp> is on line ${firstSp.line}`;
    issues.add(firstFlat, `it stands beside <sp>, not in it (${where}); move it into an <sp>, or write no <sp> at all`);
    return { sps: [], rules: [] };
  }
  const groups =
    firstSp === undefined
      ? splitFlat(issues, flat)
      : sps.flatMap((head) => {
          const members = childElements(head).filter((child) => GROUP_ORDER.includes(child.name));
          return isOrdered(issues, members) ? [{ head, members }] : [];
        });
  const drafts = joinDirections(
    issues,
    groups.flatMap((group) => readGroup(issues, group) ?? []),
  );
  return { sps: nameAll(issues, drafts), rules: drafts.flatMap(({ policies }) => policies.flatMap(ruleElement)) };
}

/** An inbound half whose mirror is missing has been reported; it says nothing of the ends. */
function ruleElement({ settings, node }: PolicyDraft): RuleElement[] {
  const [rule] = childElements(node, 'rule');
  if (rule === undefined || settings.action !== 'ipsec' || settings.direction === 'in') return [];
  return [{ settings: settings.rule, node: rule }];
}

/** A group ends where something that comes before a policy follows one. */
function splitFlat(issues: Issues, nodes: readonly XmlNode[]): Group[] {
  const groups: Group[] = [];
  let afterPolicy = true;
  for (const node of nodes) {
    if (afterPolicy && node.name !== 'policy') groups.push({ head: node, members: [] });
    afterPolicy = node.name === 'policy';
    const group = groups.at(-1);
    if (group !== undefined) group.members.push(node);
    else
      issues.add(node, 'no <src_range>, <dst_range> and <upperspec> stand before it that say which packets it is for');
  }
  return groups.filter(({ head, members }) => {
    if (!isOrdered(issues, members)) return false;
    const missing = GROUP_ORDER.filter((name) => !members.some((node) => node.name === name)).map(
      (name) => `<${name}>`,
    );
    if (missing.length === 0) return true;
    issues.add(
      head,
      `the group of policy elements that begins here has no ${missing.join(', no ')}; add it before the next group`,
      {
        allowed: GROUP_ORDER.map((name) => `<${name}>`).join(' '),
      },
    );
    return false;
  });
}

function isOrdered(issues: Issues, members: readonly XmlNode[]): boolean {
  for (const [index, node] of members.entries()) {
    const before = members[index - 1];
    if (before === undefined) continue;
    const step = GROUP_ORDER.indexOf(node.name) - GROUP_ORDER.indexOf(before.name);
    if (step < 0) {
      const allowed = GROUP_ORDER.map((name) => `<${name}>`).join(', then ');
      issues.add(node, `it stands after <${before.name}> (line ${before.line}); the order is ${allowed}`, { allowed });
      return false;
    }
    if (step === 0 && node.name === 'upperspec') {
      issues.add(node, `there is one already, on line ${before.line}; remove one of them`);
      return false;
    }
  }
  return true;
}

function readGroup(issues: Issues, { head, members }: Group): SpDraft | undefined {
  const isSp = head.name === 'sp';
  const name = isSp ? readSimpleName(issues, head, 'name') : undefined;
  const priority = isSp ? readInteger(issues, head, 'priority', -0x8000_0000, 0x7fff_ffff) : undefined;
  const named = (wanted: string): XmlNode[] => members.filter((node) => node.name === wanted);
  const upperNode = named('upperspec')[0];
  const upperspec = upperNode && readUpperSpec(issues, upperNode);
  const src = readRanges(issues, named('src_range'), upperspec);
  const dst = readRanges(issues, named('dst_range'), upperspec);
  const policies = named('policy').flatMap((node) => {
    const settings = readPolicy(issues, node);
    return settings === undefined ? [] : [{ settings, node }];
  });
  if (upperNode === undefined || upperspec === undefined || src.length === 0 || dst.length === 0) return undefined;
  const { srcRanges, dstRanges } = resolveAny(src, dst, upperspec);
  if (!familiesMeet(issues, src, dst) || !icmpFits(issues, upperNode, upperspec, srcRanges)) return undefined;
  return {
    name,
    priority: priority ?? DEFAULT_PRIORITY,
    srcRanges,
    dstRanges,
    upperspec,
    policies,
    line: head.line,
    node: head,
  };
}

/** A range whose address may still be `any`. */
interface RangeDraft {
  readonly node: XmlNode;
  readonly range: PacketRange['range'] | 'any';
  readonly ports: PortRange;
  readonly pfp: boolean;
}

function readRanges(issues: Issues, nodes: readonly XmlNode[], upperspec: UpperSpec | undefined): RangeDraft[] {
  return nodes.flatMap((node) => {
    const range = readAddressRange(issues, node);
    const ports = readPortRange(issues, node);
    if (range === undefined || ports === undefined) return [];
    if (upperspec !== undefined && isPortless(upperspec.protocol) && !isAnyPorts(ports)) {
      const found = attributeOf(node, 'port') ?? '';
      const protocol = protocolName(upperspec.protocol);
      const instead = isIcmp(upperspec.protocol) ? '; type and code stand in <upperspec>' : '';
      issues.badValue(node, 'port', found, 'any', `the protocol ${protocol} has no ports${instead}. Leave port out`);
      return [];
    }
    return [{ node, range, ports, pfp: readFlag(node, 'pfp') }];
  });
}

function isPortless(protocol: number): boolean {
  return protocol !== Protocol.any && !hasPorts(protocol);
}

const RANGE_WANTED = "an IP address, or 'any'";

function readAddressRange(issues: Issues, node: XmlNode): RangeDraft['range'] | undefined {
  const found = attributeOf(node, 'address');
  const prefix = attributeOf(node, 'prefixlen');
  const end = attributeOf(node, 'end');
  if (found === undefined) return undefined;
  if (found === '') {
    const why = 'the address of a range must not be empty: it would mean every packet. Write the address, or any';
    issues.badValue(node, 'address', found, RANGE_WANTED, why);
    return undefined;
  }
  if (prefix !== undefined && end !== undefined) {
    issues.add(node, 'both prefixlen and end are given; a range is a prefix or has an end. Remove one of them');
    return undefined;
  }
  if (found === 'any') {
    if (prefix === undefined && end === undefined) return 'any';
    const name = prefix === undefined ? 'end' : 'prefixlen';
    issues.badValue(node, name, prefix ?? end ?? '', 'nothing', "address='any' is every address; leave it out");
    return undefined;
  }
  const address = parseAddress(found);
  if (address === undefined) {
    issues.badValue(node, 'address', found, RANGE_WANTED, `${notAnAddress(found)}; ${RANGE_WANTED} is wanted`);
    return undefined;
  }
  if (end !== undefined) {
    const last = parseAddress(end);
    if (last !== undefined) return makeRange(issues, node, address, last, end);
    issues.badValue(node, 'end', end, 'an IP address', `${notAnAddress(end)}; the last address of the range is wanted`);
    return undefined;
  }
  const bits = address.family === 4 ? 32 : 128;
  if (prefix === undefined) return prefixRange(address, bits);
  if (!/^[0-9]{1,3}$/.test(prefix) || Number(prefix) > bits) {
    const allowed = `a whole number from 0 to ${bits}`;
    issues.badValue(
      node,
      'prefixlen',
      prefix,
      allowed,
      `${allowed} is wanted, as ${found} is an IPv${address.family} address`,
    );
    return undefined;
  }
  return prefixRange(address, Number(prefix));
}

/**
 * `any` is every address of the families that the ranges of its policy name; where they name none, of the one that the
 * protocol belongs to, or of both.
 */
function resolveAny(
  src: readonly RangeDraft[],
  dst: readonly RangeDraft[],
  { protocol }: UpperSpec,
): { srcRanges: PacketRange[]; dstRanges: PacketRange[] } {
  const named = familiesOf([...src, ...dst]);
  const ofProtocol = icmpFamily(protocol);
  const families = named.length > 0 ? named : ofProtocol === undefined ? FAMILIES : [ofProtocol];
  const resolve = (ranges: readonly RangeDraft[]): PacketRange[] =>
    ranges.flatMap(({ range, ports, pfp }) =>
      (range === 'any' ? families.map(anyRange) : [range]).map((one) => ({ range: one, ports, pfp })),
    );
  return { srcRanges: resolve(src), dstRanges: resolve(dst) };
}

const FAMILIES: readonly IpFamily[] = [4, 6];

function icmpFamily(protocol: number): IpFamily | undefined {
  if (protocol === Protocol.icmp) return 4;
  return protocol === Protocol.icmpv6 ? 6 : undefined;
}

function familiesOf(ranges: readonly RangeDraft[]): IpFamily[] {
  return FAMILIES.filter((family) => ranges.some(({ range }) => range !== 'any' && range.start.family === family));
}

/** Each range needs one of its own family on the other side, or no packet ever fits it. */
function familiesMeet(issues: Issues, src: readonly RangeDraft[], dst: readonly RangeDraft[]): boolean {
  const lonely = (ranges: readonly RangeDraft[], others: readonly RangeDraft[]): RangeDraft | undefined => {
    if (others.some(({ range }) => range === 'any')) return undefined;
    const families = familiesOf(others);
    return ranges.find(({ range }) => range !== 'any' && !families.includes(range.start.family));
  };
  const odd = lonely(src, dst) ?? lonely(dst, src);
  if (odd === undefined || odd.range === 'any') return true;
  const family = odd.range.start.family;
  const [other] = odd.node.name === 'src_range' ? dst : src;
  const found = attributeOf(odd.node, 'address') ?? '';
  const why = `this is IPv${family}, but no <${other?.node.name}> is (line ${other?.node.line}): no packet has one end in each family. Give both sides addresses of the same family`;
  issues.badValue(odd.node, 'address', found, `an IPv${family === 4 ? 6 : 4} address`, why);
  return false;
}

function icmpFits(issues: Issues, node: XmlNode, { protocol }: UpperSpec, ranges: readonly PacketRange[]): boolean {
  const family = icmpFamily(protocol);
  if (family === undefined || ranges.some(({ range }) => range.start.family === family)) return true;
  const right = family === 4 ? 'icmpv6' : 'icmp';
  const why = `${protocolName(protocol)} is of IPv${family}, but the ranges are of IPv${family === 4 ? 6 : 4}; write ${right}`;
  issues.badValue(node, 'protocol', attributeOf(node, 'protocol') ?? '', right, why);
  return false;
}

function readUpperSpec(issues: Issues, node: XmlNode): UpperSpec | undefined {
  const found = attributeOf(node, 'protocol');
  if (found === undefined) return undefined;
  const protocol = protocolByName(found);
  if (protocol === undefined) {
    const names = protocolNames();
    const allowed = `any, a number from 0 to 255, or one of ${names.filter((name) => name !== 'any').join(', ')}`;
    issues.badValue(
      node,
      'protocol',
      found,
      allowed,
      `no such protocol is known${suggestion(found, names)}; allowed: ${allowed}`,
    );
    return undefined;
  }
  const icmpType = readInteger(issues, node, 'type', 0, 255);
  const icmpCode = readInteger(issues, node, 'code', 0, 255);
  const extra = icmpType === undefined ? (icmpCode === undefined ? undefined : 'code') : 'type';
  if (extra !== undefined && !isIcmp(protocol)) {
    const why = `only icmp and icmpv6 have types and codes, not ${protocolName(protocol)}; leave ${extra} out`;
    issues.badValue(node, extra, attributeOf(node, extra) ?? '', 'nothing', why);
    return undefined;
  }
  if (icmpCode !== undefined && icmpType === undefined) {
    issues.badValue(
      node,
      'code',
      String(icmpCode),
      'a code beside a type',
      'a code says nothing without its type; add type',
    );
    return undefined;
  }
  return { protocol, icmpType, icmpCode, pfp: readFlag(node, 'pfp') };
}

function readPolicy(issues: Issues, node: XmlNode): PolicySettings | undefined {
  const direction = readChoice(node, 'direction', DIRECTIONS);
  const action = readChoice(node, 'action', ACTIONS);
  const rules = childElements(node, 'rule');
  const [first, second] = rules;
  if (direction === undefined || action === undefined) return undefined;
  if (action !== 'ipsec') {
    if (first === undefined) return { direction, action, line: node.line };
    issues.add(
      first,
      `a policy with action='${action}' (line ${node.line}) has no rules; remove it, or write action='ipsec'`,
    );
    return undefined;
  }
  if (first === undefined) {
    issues.add(node, "a policy with action='ipsec' needs a <rule protocol='esp' mode='tunnel'>; add it", {
      allowed: '<rule>',
    });
    return undefined;
  }
  const rule = readRule(issues, first);
  if (second !== undefined) {
    const message = `a second rule (the first is on line ${first.line}) would protect packets twice; one ESP rule a policy is supported`;
    issues.add(second, message, { kind: 'unsupported', found: `${rules.length} rules`, allowed: 'one rule' });
    return undefined;
  }
  return rule === undefined ? undefined : { direction, action, rule, line: node.line };
}

function readRule(issues: Issues, node: XmlNode): RuleSettings | undefined {
  const protocol = readChoice(node, 'protocol', RULE_PROTOCOLS);
  const mode = readChoice(node, 'mode', RULE_MODES);
  const level = readLevel(issues, node);
  const [srcNode] = childElements(node, 'src');
  const [dstNode] = childElements(node, 'dst');
  if ((srcNode === undefined) !== (dstNode === undefined)) {
    const missing = srcNode === undefined ? 'src' : 'dst';
    issues.add(node, `<${missing}> is missing in it; give both end points, or neither to take them from <sa>`, {
      allowed: `<${missing}>`,
    });
  }
  const src = readEndPoint(issues, srcNode);
  const dst = readEndPoint(issues, dstNode);
  if (protocol === 'ah' || protocol === 'ipcomp') {
    const what = protocol === 'ah' ? 'AH' : 'IPComp';
    const message = `protocol='${protocol}': ${what} is not offered; write protocol='esp', which encrypts and authenticates`;
    issues.add(node, message, { kind: 'unsupported', attribute: 'protocol', found: protocol, allowed: 'esp' });
    return undefined;
  }
  if (!protocol || !mode || !level || !src || !dst) return undefined;
  return { protocol, mode, level, src, dst, line: node.line };
}

const LEVEL_WANTED = 'default, use, require, unique, or unique:N with N from 1 to 65535';

function readLevel(issues: Issues, node: XmlNode): RuleLevel | undefined {
  const found = attributeOf(node, 'level') ?? 'default';
  if (found === 'default' || found === 'require') return { kind: 'require' };
  if (found === 'use') return { kind: 'use' };
  if (found === 'unique') return { kind: 'unique', group: undefined };
  const group = /^unique:([0-9]{1,5})$/.exec(found)?.[1];
  if (group !== undefined && Number(group) >= 1 && Number(group) <= 0xffff)
    return { kind: 'unique', group: Number(group) };
  issues.badValue(node, 'level', found, LEVEL_WANTED, `allowed: ${LEVEL_WANTED}`);
  return undefined;
}

function readEndPoint(issues: Issues, node: XmlNode | undefined): EndPoint | undefined {
  const address = readPeerAddress(issues, node);
  const port = node === undefined ? undefined : readPort(issues, node);
  if (node !== undefined && port === 500) {
    const why =
      'the port of an end point carries ESP in UDP, which port 500 cannot (RFC 7296 section 2.23); write 4500 or another one';
    issues.badValue(node, 'port', '500', 'a port from 1 to 65535 but 500', why);
    return undefined;
  }
  return address === undefined ? undefined : { address, port };
}

/** Gives a name to each policy that has none, and sees that no two have the same. */
function nameAll(issues: Issues, drafts: readonly SpDraft[]): SecurityPolicy[] {
  // BOUNDED: by the policies of one document.
  const taken = new Map<string, number>();
  for (const { name, line, node } of drafts) {
    const first = name === undefined ? undefined : taken.get(name);
    if (name === undefined) continue;
    if (first === undefined) taken.set(name, line);
    else
      issues.badValue(
        node,
        'name',
        name,
        'a name of its own',
        `line ${first} has an <sp> of this name already; rename one`,
      );
  }
  let next = 1;
  return drafts.map(({ node: _, name: given, policies, ...rest }) => {
    let name = given;
    while (name === undefined) {
      const candidate = `sp${next++}`;
      if (!taken.has(candidate)) name = candidate;
    }
    return { name, ...rest, policies: policies.map(({ settings }) => settings) };
  });
}
