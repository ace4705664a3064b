/**
 * From the policies of a document to what the layers below work with: entries of the policy database, and the CHILD SAs
 * that protect them (RFC 4301 §4.4.1, RFC 7296 §3.13.1).
 */
import type { PolicyAction, PolicyEntry, PolicyLevel } from '../policy/database.ts';
import { PORT_PROTOCOLS, Protocol, protocolName } from '../policy/protocols.ts';
import {
  formatPorts,
  icmpPorts,
  isAnyPorts,
  makeSelector,
  type SelectorPair,
  type TrafficSelector,
} from '../policy/selector.ts';
import type { PacketRange, PolicySettings, RuleLevel, SectunnelDocument, SecurityPolicy } from './model.ts';

export interface DocumentPolicy {
  /** In document order, for both directions. */
  readonly entries: readonly PolicyEntry[];
  /** What a person should know about a document that is accepted all the same. */
  readonly warnings: readonly string[];
}

/** What each `<sp>` makes of the packets it is for. */
export function toPolicy(document: SectunnelDocument): DocumentPolicy {
  return {
    entries: document.sps.flatMap((sp) => sp.policies.flatMap((policy) => entriesOf(sp, policy))),
    warnings: document.sps.flatMap((sp) => portWarning(sp) ?? []),
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
  /** The name of its `<sp>`: what `child` of a policy entry says. */
  readonly name: string;
  readonly mode: 'tunnel' | 'transport';
  readonly level: RuleLevel;
  readonly selectors: SelectorPair;
  /** Which parts of the proposed selector are narrowed to the value of the packet (RFC 4301 §4.4.1). */
  readonly pfp: { readonly local: boolean; readonly remote: boolean; readonly protocol: boolean };
  readonly line: number;
}

export function toChildren(document: SectunnelDocument): ChildPlan[] {
  return document.sps.flatMap((sp) =>
    sp.policies.flatMap((policy) => {
      if (policy.action !== 'ipsec') return [];
      const { mode, level, line } = policy.rule;
      const pfp = {
        local: sp.srcRanges.some((range) => range.pfp),
        remote: sp.dstRanges.some((range) => range.pfp),
        protocol: sp.upperspec.pfp,
      };
      return [{ name: sp.name, mode, level, selectors: selectorsOf(sp, 'both'), pfp, line }];
    }),
  );
}

function entriesOf(sp: SecurityPolicy, policy: PolicySettings): PolicyEntry[] {
  const { name, priority } = sp;
  const ipsec = policy.action === 'ipsec';
  const common = {
    name,
    action: ACTIONS[policy.action],
    priority,
    selectors: selectorsOf(sp, policy.direction),
    level: ipsec ? LEVELS[policy.rule.level.kind] : LEVELS.require,
    line: policy.line,
    ...(ipsec ? { child: name } : {}),
  };
  const directions = policy.direction === 'both' ? (['out', 'in'] as const) : [policy.direction];
  return directions.map((direction) => ({ ...common, direction }));
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
  // Where every range of one side has ports, only packets of protocols with ports fit, so the other side says it too.
  const onlyPorts = [srcRanges, dstRanges].some((ranges) => ranges.every(({ ports }) => !isAnyPorts(ports)));
  const select = (ranges: readonly PacketRange[]): TrafficSelector[] =>
    ranges.flatMap((range) => selectorsOfRange(sp, range, onlyPorts));
  return { src: select(srcRanges), dst: select(dstRanges) };
}

/**
 * `upperspec any` with a port cannot be said in IKEv2, in which protocol 0 has all ports (RFC 7296 §3.13.1): such a range
 * becomes one selector for each protocol with ports, and never one without.
 */
function selectorsOfRange(sp: SecurityPolicy, { range, ports }: PacketRange, onlyPorts: boolean): TrafficSelector[] {
  const { protocol, icmpType, icmpCode } = sp.upperspec;
  if (icmpType !== undefined) return [makeSelector(range, protocol, icmpPorts(icmpType, icmpCode))];
  if (protocol !== Protocol.any) return [makeSelector(range, protocol, ports)];
  if (isAnyPorts(ports) && !onlyPorts) return [makeSelector(range)];
  return PORT_PROTOCOLS.map((one) => makeSelector(range, one, ports));
}

function portWarning(sp: SecurityPolicy): string | undefined {
  const ranges = [...sp.srcRanges, ...sp.dstRanges];
  const withPort = ranges.find(({ ports }) => !isAnyPorts(ports));
  if (sp.upperspec.protocol !== Protocol.any || withPort === undefined) return undefined;
  const port = formatPorts({ protocol: Protocol.any, ...withPort.ports });
  const names = PORT_PROTOCOLS.map(protocolName).join(', ');
  return `line ${sp.line}: <sp name='${sp.name}'>: protocol='any' with port ${port} cannot be negotiated (RFC 7296 section 3.13.1); it is taken as ${names}, one selector each. Name the protocol in <upperspec> to have just that one`;
}
