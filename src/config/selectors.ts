/**
 * From the policies of a document to what the layers below work with: entries of the policy database, and the CHILD SAs
 * that protect them (RFC 4301 §4.4.1, RFC 7296 §3.13.1).
 */
import { anyRange } from '../base/address.ts';
import { isWhole } from '../base/ranges.ts';
import type { PolicyAction, PolicyEntry, PolicyLevel } from '../policy/database.ts';
import type { PacketFlags } from '../policy/populate.ts';
import { PORT_PROTOCOLS, Protocol, protocolName } from '../policy/protocols.ts';
import {
  formatPorts,
  icmpPorts,
  isAnyPorts,
  makeSelector,
  type SelectorPair,
  simplifySelectors,
  type TrafficSelector,
} from '../policy/selector.ts';
import type { PacketRange, PolicySettings, RuleLevel, SectunnelDocument, SecurityPolicy } from './model.ts';
import { levelText } from './text.ts';

/** The security policy of a document, and what there is to warn of. */
export interface DocumentPolicy {
  /** In document order, for both directions. */
  readonly entries: readonly PolicyEntry[];
  /** What a person should know about a document that is accepted all the same. */
  readonly warnings: readonly string[];
}

/** What each `<sp>` makes of the packets it is for. */
export function toPolicy(document: SectunnelDocument): DocumentPolicy {
  const names = childNames(document);
  return {
    entries: [
      ...document.sps.flatMap((sp) => sp.policies.flatMap((policy) => entriesOf(sp, policy, names))),
      ...(document.device.ipv6 === 'block' ? blockEntries() : []),
    ],
    warnings: [
      ...document.sps.flatMap((sp) => [...portWarning(sp), ...pfpWarning(document, sp), ...useWarning(document, sp)]),
      ...ipv6Warning(document),
    ],
  };
}

/** Whether a device for these policies is to carry IPv6. */
export function hasIpv6(sps: readonly SecurityPolicy[]): boolean {
  return sps.some(({ srcRanges, dstRanges }) =>
    [...srcRanges, ...dstRanges].some(({ range }) => range.start.family === 6),
  );
}

/** One CHILD SA of a document, which the SA parameters of the document apply to. */
export interface ChildPlan {
  /** The name of its `<sp>`, of several the first: what `child` of a policy entry says. */
  readonly name: string;
  readonly mode: 'tunnel' | 'transport';
  readonly level: RuleLevel;
  /** Those of all that share it: each source with each destination. The policy keeps apart what they do not join. */
  readonly selectors: SelectorPair;
  /** What each SA takes from the packet that calls for it (RFC 4301 §4.4.1.2); `undefined` for one SA for all. */
  readonly pfp: PacketFlags | undefined;
  readonly line: number;
}

export function toChildren(document: SectunnelDocument): ChildPlan[] {
  const names = childNames(document);
  const children = new Map<string, ChildPlan>();
  for (const plan of document.sps.flatMap(ownChild)) {
    const name = names.get(plan.name)!;
    const known = children.get(name);
    children.set(name, known === undefined ? plan : { ...known, selectors: union(known.selectors, plan.selectors) });
  }
  return [...children.values()];
}

/** Why policies cannot share an SA as their `unique:N` says; `undefined` when they can. */
export function sharingProblem(document: SectunnelDocument): string | undefined {
  const names = childNames(document);
  const firsts = new Map<string, ChildPlan>();
  for (const plan of document.sps.flatMap(ownChild)) {
    const name = names.get(plan.name)!;
    const first = firsts.get(name);
    if (first === undefined) {
      firsts.set(name, plan);
      continue;
    }
    const where = `the rules on lines ${first.line} and ${plan.line} share an SA (level='${levelText(plan.level)}')`;
    if (first.mode !== plan.mode) {
      return `${where}, which has one mode: write mode='${first.mode}' for both, or another number`;
    }
    if (first.pfp !== undefined || plan.pfp !== undefined) {
      return `${where}, and pfp='yes' makes an SA of each flow: leave pfp out, or write another number`;
    }
  }
  return undefined;
}

/** By the name of an `<sp>`: that of the first with the same `unique:N`, or its own. */
function childNames({ sps }: SectunnelDocument): ReadonlyMap<string, string> {
  const firstOf = new Map<number, string>();
  return new Map(
    sps.flatMap(ownChild).map(({ name, level }) => {
      if (level.kind !== 'unique' || level.group === undefined) return [name, name];
      const first = firstOf.get(level.group) ?? name;
      firstOf.set(level.group, first);
      return [name, first];
    }),
  );
}

/** The CHILD SA of an `<sp>`, if it is to be protected, as it would be if it were alone. */
function ownChild(sp: SecurityPolicy): ChildPlan[] {
  return sp.policies.flatMap((policy) => {
    if (policy.action !== 'ipsec') return [];
    const { mode, level, line } = policy.rule;
    return [{ name: sp.name, mode, level, selectors: selectorsOf(sp, 'both'), pfp: packetFlags(sp), line }];
  });
}

function union(a: SelectorPair, b: SelectorPair): SelectorPair {
  return {
    local: simplifySelectors([...a.local, ...b.local]),
    remote: simplifySelectors([...a.remote, ...b.remote]),
  };
}

/** `pfp` of a range is for what the range names: its addresses, and its ports if it has any. */
function packetFlags({ srcRanges, dstRanges, upperspec }: SecurityPolicy): PacketFlags | undefined {
  const address = (ranges: readonly PacketRange[]): boolean => ranges.some(({ pfp }) => pfp);
  const port = (ranges: readonly PacketRange[]): boolean => ranges.some(({ pfp, ports }) => pfp && !isAnyPorts(ports));
  const [localPort, remotePort] = [port(srcRanges), port(dstRanges)];
  const flags = {
    localAddress: address(srcRanges),
    remoteAddress: address(dstRanges),
    // A port has no meaning without its protocol.
    protocol: upperspec.pfp || localPort || remotePort,
    localPort,
    remotePort,
  };
  return Object.values(flags).includes(true) ? flags : undefined;
}

function entriesOf(sp: SecurityPolicy, policy: PolicySettings, names: ReadonlyMap<string, string>): PolicyEntry[] {
  const { name, priority } = sp;
  const ipsec = policy.action === 'ipsec';
  const common = {
    name,
    action: ACTIONS[policy.action],
    priority,
    selectors: selectorsOf(sp, policy.direction),
    level: ipsec ? LEVELS[policy.rule.level.kind] : LEVELS.require,
    line: policy.line,
    ...(ipsec ? { child: names.get(name)!, pfp: packetFlags(sp) } : {}),
  };
  const directions = policy.direction === 'both' ? (['out', 'in'] as const) : [policy.direction];
  return directions.map((direction) => ({ direction, ...common }));
}

/** Behind all that a document can say. */
const LAST_PRIORITY = Number.MIN_SAFE_INTEGER;

/** What `<device ipv6='block'/>` makes of IPv6 that no `<sp>` is for. */
function blockEntries(): PolicyEntry[] {
  const all = [makeSelector(anyRange(6))];
  const common = { name: "device ipv6='block'", action: 'discard', level: 'require', priority: LAST_PRIORITY } as const;
  const selectors = { local: all, remote: all };
  return (['out', 'in'] as const).map((direction) => ({ direction, selectors, ...common }));
}

const ACTIONS: Readonly<Record<PolicySettings['action'], PolicyAction>> = {
  ipsec: 'protect',
  none: 'bypass',
  discard: 'discard',
};

const LEVELS: Readonly<Record<RuleLevel['kind'], PolicyLevel>> = { use: 'use', require: 'require', unique: 'unique' };

/** As seen from here: an inbound packet has its destination here. */
function selectorsOf(sp: SecurityPolicy, direction: PolicySettings['direction']): SelectorPair {
  const { src, dst } = sidesOf(sp);
  return direction === 'in' ? { local: dst, remote: src } : { local: src, remote: dst };
}

/** The selectors of the source and of the destination of an `<sp>`. */
export function sidesOf(sp: SecurityPolicy): { src: TrafficSelector[]; dst: TrafficSelector[] } {
  const { srcRanges, dstRanges } = sp;
  // Where every range of one side has ports, only packets of protocols with ports match, so the other side gets the same protocols.
  const onlyPorts = [srcRanges, dstRanges].some((ranges) => ranges.every(({ ports }) => !isAnyPorts(ports)));
  const select = (ranges: readonly PacketRange[]): TrafficSelector[] =>
    ranges.flatMap((range) => selectorsOfRange(sp, range, onlyPorts));
  return { src: select(srcRanges), dst: select(dstRanges) };
}

/**
 * `upperspec any` with a port cannot be expressed in IKEv2, in which protocol 0 has all ports (RFC 7296 §3.13.1): such a range
 * becomes one selector for each protocol with ports, and never one without.
 */
function selectorsOfRange(sp: SecurityPolicy, { range, ports }: PacketRange, onlyPorts: boolean): TrafficSelector[] {
  const { protocol, icmpType, icmpCode } = sp.upperspec;
  if (icmpType !== undefined) return [makeSelector(range, protocol, icmpPorts(icmpType, icmpCode))];
  if (protocol !== Protocol.any) return [makeSelector(range, protocol, ports)];
  if (isAnyPorts(ports) && !onlyPorts) return [makeSelector(range)];
  return PORT_PROTOCOLS.map((one) => makeSelector(range, one, ports));
}

function portWarning(sp: SecurityPolicy): string[] {
  const ranges = [...sp.srcRanges, ...sp.dstRanges];
  const withPort = ranges.find(({ ports }) => !isAnyPorts(ports));
  if (sp.upperspec.protocol !== Protocol.any || withPort === undefined) return [];
  const port = formatPorts({ protocol: Protocol.any, ...withPort.ports });
  const names = PORT_PROTOCOLS.map(protocolName).join(', ');
  const text = `line ${sp.line}: <sp name='${sp.name}'>: protocol='any' with port ${port} cannot be negotiated (RFC 7296 section 3.13.1); it is taken as ${names}, one selector each. Name the protocol in <upperspec> to have just that one`;
  return [text];
}

function pfpWarning({ sa }: SectunnelDocument, sp: SecurityPolicy): string[] {
  if (sa.ike.start !== 'initiate' || !ownChild(sp).some(({ pfp }) => pfp !== undefined)) return [];
  return [
    `line ${sp.line}: <sp name='${sp.name}'>: pfp='yes' takes its SAs from packets, so start='initiate' brings up none of them; each comes with the first packet that needs it`,
  ];
}

/** While there is no SA nothing is routed into the device, so no packet triggers one. */
function useWarning({ sa }: SectunnelDocument, sp: SecurityPolicy): string[] {
  if (sa.ike.start !== 'trap' || !ownChild(sp).some(({ level }) => level.kind === 'use')) return [];
  return [
    `line ${sp.line}: <sp name='${sp.name}'>: with level='use' packets pass in the clear until there is an SA, so start='trap' gets none from them; write start='initiate', or level='require'`,
  ];
}

/** Programs prefer IPv6 where a host has it: what is to protect all traffic then protects hardly any. */
function ipv6Warning({ device, sps }: SectunnelDocument): string[] {
  if (device.ipv6 === 'block' || hasIpv6(sps)) return [];
  const whole = sps.find((sp) => ownChild(sp).length > 0 && sp.dstRanges.some(({ range }) => isWhole(range)));
  if (whole === undefined) return [];
  return [
    `line ${whole.line}: <sp name='${whole.name}'>: all IPv4 is protected, and IPv6 goes past the tunnel in the clear, where this host or its network has it; add an <sp> with ::/0, or write <device ipv6='block'/>`,
  ];
}
