/**
 * The security policies of a document: `<sp>` elements, or the seed's flat form, in which the same elements stand in
 * the document itself, group after group.
 */
import { IKE_PORT } from '../base/ports.ts';
import { DEFAULT_PRIORITY } from './defaults.ts';
import { ACTIONS, DIRECTIONS, RULE_MODES, RULE_PROTOCOLS } from './grammar.ts';
import type { Issues } from './issues.ts';
import { joinDirections, type PolicyDraft, type SpDraft } from './mirror.ts';
import type { EndPoint, PolicySettings, RuleLevel, RuleSettings, SecurityPolicy } from './model.ts';
import { readPackets } from './parse-range.ts';
import { attributeOf, readChoice, readInteger, readPeerAddress, readPort, readSimpleName } from './values.ts';
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
  const priority = isSp ? readInteger(issues, head, 'priority', { min: -0x8000_0000, max: 0x7fff_ffff }) : undefined;
  const named = (wanted: string): XmlNode[] => members.filter((node) => node.name === wanted);
  const packets = readPackets(issues, named('src_range'), named('dst_range'), named('upperspec')[0]);
  const policies = named('policy').flatMap((node) => {
    const settings = readPolicy(issues, node);
    return settings === undefined ? [] : [{ settings, node }];
  });
  if (packets === undefined) return undefined;
  return { name, priority: priority ?? DEFAULT_PRIORITY, ...packets, policies, line: head.line, node: head };
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
  if (node !== undefined && port === IKE_PORT) {
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
