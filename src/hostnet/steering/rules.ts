/**
 * Compiles a policy into rules of policy routing and the routes of a table. Pure. A tunnel has a block of priorities of its
 * own; within it come, for each address family:
 *
 * ```text
 *   0  host's own ESP, and UDP from the tunnel's ports, to its peer     goto end
 *   1  what came out of the device, where it would be routed back in    goto end
 *   2  ICMP that is to pass in the clear, by its mark                   goto end
 *   3  link-local and multicast of the link, where the policy has it    goto end
 *   4… each entry in its order: protect → the tunnel's table, bypass → goto end, discard → blackhole
 *   m… the host's own packets that have no source yet, where the host has no address that the policy lets in:
 *      IPv4: unreachable; IPv6: into the table, whose device has no address to choose a source from
 *   l… IPv6: the host's own packets with any other source, to what each entry protects, while there is no device
 *   n  end: nop
 * ```
 *
 * Addresses of the host come and go. They decide which rules these places have, never which places there are.
 *
 * In the ordinary case all entries have the same local addresses and any protocol. Then one rule looks up the table, whose
 * routes decide the rest; the kernel finds a route without looking at the others.
 */
import { type AddressRange, anyRange, type IpFamily, rangeToPrefixes } from '../../base/address.ts';
import { assertNever } from '../../base/assert.ts';
import { isWhole, mergeRanges, overlapsMerged } from '../../base/ranges.ts';
import { Protocol } from '../../policy/protocols.ts';
import { MAX_PORT } from '../../policy/selector.ts';
import { DEVICE_MARK, PASS_MARK } from '../fence/fence.ts';
import { DEVICE_GROUP, type PortRange, type Prefix, type Rule, type RuleAction } from '../routes/routes.ts';
import { isRequired, needsDeviceMark, needsPassMark, type PolicyBox, type RoutingPlan } from './plan.ts';
import { defaultRoutes, distinct, isByDestination, isForDestinations, regionsOf, type TableRoute } from './routes.ts';

/**
 * A rule costs each packet that the host routes some 12 ns. With more rules than these the destination alone decides, and the
 * policy in the device does the rest.
 */
export const MAX_RULES = 128;

/** More destinations than these are not refused one by one: see `ownStep`. */
export const MAX_REFUSED = 64;

export interface Surroundings {
  /** Number of the table that packets are routed into. */
  readonly table: number;
  /** There are more destinations than the policy says, too many to be refused one by one. */
  readonly hasMore?: boolean;
  /** Name of the tunnel's interface. */
  readonly device: string;
  /**
   * Whether the host has an address in a range. `yes`: packets that have no source yet may get it. `missing`: they are
   * refused. `others`: the range is not for what the host itself sends.
   */
  readonly hasAddressIn: (range: AddressRange) => 'yes' | 'missing' | 'others';
  /** Whether a child of level `use` has an SA. */
  readonly isUp: (child: string) => boolean;
}

export interface RoutingRules {
  /** Priorities and places to go to count from 0. */
  readonly rules: readonly Rule[];
  /** Priorities that they take, whatever addresses the host has. */
  readonly size: number;
  readonly routes: readonly TableRoute[];
  /** For people: where more is routed into the device than the policy covers. */
  readonly warnings: readonly string[];
}

const FAMILIES: readonly IpFamily[] = [4, 6];

/** Surroundings that do not matter for what is asked. */
const ANY: Surroundings = { table: 0, device: '', hasAddressIn: () => 'yes', isUp: () => true };

export function routingRules(plan: RoutingPlan, around: Surroundings): RoutingRules {
  const parts = FAMILIES.map((family) => familyRules(family, plan, around));
  return {
    rules: parts.flatMap(({ rules }) => rules),
    size: Math.max(...parts.map(({ size }) => size)),
    routes: parts.flatMap(({ routes }) => routes),
    warnings: parts.flatMap(({ warnings }) => warnings),
  };
}

const BY_DESTINATION =
  'in a VRF the destination alone decides what is routed into the device: of all packets to its protected destinations those that the policy does not protect are dropped there, exceptions for protocols, ports or sources included';

/** What a person should know: where the rules cannot express the whole policy. */
export function routingWarnings(plan: RoutingPlan): readonly string[] {
  if (plan.vrf === undefined) return routingRules(plan, ANY).warnings;
  return isForDestinations(plan.outbound) ? [] : [BY_DESTINATION];
}

/** The destinations in the table, which do not depend on the host. */
export function tableRoutes(plan: RoutingPlan): readonly TableRoute[] {
  return routingRules(plan, ANY).routes;
}

/** Whether packets to what is protected are told from others by more than their addresses. */
export function needsExceptions(plan: RoutingPlan): boolean {
  return FAMILIES.some((family) => {
    const boxes = plan.outbound.filter(({ local }) => local.start.family === family);
    return exceptions(family, boxes, plan, ANY).length > 0;
  });
}

const NOTHING: RoutingRules = { rules: [], size: 0, routes: [], warnings: [] };

function familyRules(family: IpFamily, plan: RoutingPlan, around: Surroundings): RoutingRules {
  const boxes = plan.outbound.filter(({ local }) => local.start.family === family);
  if (boxes.every(({ action }) => action === 'bypass')) return NOTHING;
  if (isByDestination(boxes)) return byTable(family, boxes, boxes, plan, around);
  const protectedBoxes = boxes.filter(({ action }) => action === 'protect');
  const entries = boxes.filter(isForRules);
  const refused = entries.filter(isRequired).flatMap((box) => boxSteps(box, 'unserved', around));
  const exact = assemble(family, { boxes: entries, policy: boxes, first: [], last: refused }, plan, around);
  if (exact !== undefined) return { ...exact, routes: defaultRoutes(family, protectedBoxes), warnings: [] };
  const coarse = protectedBoxes.map((box) => ({ ...box, local: anyRange(family) }));
  const text = `the policy takes more than ${MAX_RULES} rules of policy routing for IPv${family}: all packets to its protected destinations are routed into the device, and those that the policy does not protect are dropped there`;
  return { ...byTable(family, coarse, protectedBoxes, plan, around), warnings: [text] };
}

/**
 * @param boxes that all have the same local addresses
 * @param policy the boxes with the addresses that become sources
 */
function byTable(
  family: IpFamily,
  boxes: readonly PolicyBox[],
  policy: readonly PolicyBox[],
  plan: RoutingPlan,
  around: Surroundings,
): RoutingRules {
  const local = boxes[0]?.local ?? anyRange(family);
  const all = { local, remote: anyRange(family), action: 'protect', level: 'require', child: undefined } as const;
  const routes = regionsOf(boxes, distinct(policy));
  const open = routes.filter((route) => route.open).map(({ destination }) => destination);
  const unserved = around.hasAddressIn(local) === 'missing' ? open : [];
  const many = family === 4 && (around.hasMore === true || open.length > MAX_REFUSED);
  const first = many ? [ownStep(family, unserved, around)] : [];
  const last = many || isWhole(local) ? [] : [unservedStep(family, unserved, around)];
  const assembled = assemble(family, { boxes: [all], policy: boxes, first, last }, plan, around);
  if (assembled === undefined) throw new Error(`bug: one entry takes more than ${MAX_RULES} rules`);
  return { ...assembled, routes, warnings: [] };
}

/**
 * The host's own packets to these destinations that have no source yet, while the host has no address for them. After an
 * unreachable IPv6 route the kernel chooses another source and looks again; in the table it finds a route whose device has no
 * address, and gives up.
 */
function unservedStep(family: IpFamily, destinations: readonly Prefix[], around: Surroundings): Step {
  const tos = family === 4 ? destinations : destinations.slice(0, 1).map(() => undefined);
  return (at) =>
    tos.map((to) => ({
      family,
      priority: at,
      from: noSource(family),
      to: to?.prefixLength === 0 ? undefined : to,
      action: unservedAction(family, around),
    }));
}

function unservedAction(family: IpFamily, { table }: Surroundings): RuleAction {
  return family === 4 ? { type: 'unreachable' } : { type: 'table', table };
}

/**
 * Where the destinations are too many to be refused one by one, all that the host itself sends is routed into the device,
 * whatever its source: the policy drops it there.
 */
function ownStep(family: IpFamily, destinations: readonly Prefix[], { table }: Surroundings): Step {
  return (at) =>
    destinations.length === 0 ? [] : [{ family, priority: at, inputLink: 'lo', action: { type: 'table', table } }];
}

/** The source in rules for packets without one: 0.0.0.0 in IPv4; none in IPv6, in rules behind the others. */
function noSource(family: IpFamily): Prefix | undefined {
  return family === 4 ? { address: { family, value: 0n }, prefixLength: 32 } : undefined;
}

function isNoSource(from: Prefix | undefined): boolean {
  return from !== undefined && from.address.value === 0n && from.prefixLength === 32;
}

/** The rules for a place in the block. `end` is the last place. */
type Step = (at: number, end: number) => Rule[];

interface Parts {
  /** What the rules are for. */
  readonly boxes: readonly PolicyBox[];
  /** The policy, for the exceptions. */
  readonly policy: readonly PolicyBox[];
  /** Before and behind the rules for the boxes. */
  readonly first: readonly Step[];
  readonly last: readonly Step[];
}

/** @returns `undefined` when they are too many */
function assemble(
  family: IpFamily,
  { boxes, policy, first, last }: Parts,
  plan: RoutingPlan,
  around: Surroundings,
): Pick<RoutingRules, 'rules' | 'size'> | undefined {
  const entries = (bound: Bound): Step[] => boxes.flatMap((box) => boxSteps(box, bound, around));
  const split = family === 6 && boxes.some(({ local }) => !isWhole(local));
  const lost = split ? entries('lost') : [];
  const steps: Step[] = [
    ...exceptions(family, policy, plan, around),
    ...first,
    ...(split ? [...entries('bound'), ...leaveBound(lost.length), ...entries('open')] : entries('both')),
    ...last,
    ...lost,
  ];
  const end = steps.length;
  const rules: Rule[] = [];
  for (const [at, step] of steps.entries()) {
    rules.push(...step(at, end));
    if (rules.length > MAX_RULES) return undefined;
  }
  // Each rule costs all packets: there is an end only where a goto jumps to it.
  const resolved = resolveGotos(rules, end);
  const isGoneTo = resolved.some(({ action }) => action.type === 'goto' && action.priority === end);
  const all: Rule[] = isGoneTo ? [...resolved, { family, priority: end, action: { type: 'nop' } }] : resolved;
  return { rules: all, size: end + 1 };
}

/** A goto whose target does not exist is skipped by the kernel, so it goes to the next place where a rule stands. */
function resolveGotos(rules: readonly Rule[], end: number): Rule[] {
  const places = [...new Set(rules.map(({ priority }) => priority))].sort((a, b) => a - b);
  return rules.map((rule) => {
    if (rule.action.type !== 'goto') return rule;
    const { priority: target } = rule.action;
    const priority = places.find((place) => place >= target) ?? end;
    return { ...rule, action: { type: 'goto', priority } };
  });
}

/**
 * A rule with a source never fits an IPv6 packet that has none yet, so those that fit everything are the bound ones. After
 * them come the others. @param last the number of places at the end that are for all
 */
function leaveBound(last: number): Step[] {
  const halves = [0n, 1n << 127n].map((value) => ({ address: { family: 6 as const, value }, prefixLength: 1 }));
  return [
    (at, end) =>
      halves.map((from) => ({ family: 6, priority: at, from, action: { type: 'goto', priority: end - last } })),
  ];
}

function exceptions(
  family: IpFamily,
  policy: readonly PolicyBox[],
  { own, outbound }: RoutingPlan,
  { device }: Surroundings,
): Step[] {
  const away = mergeRanges(policy.filter(({ action }) => action !== 'bypass').map(({ remote }) => remote));
  const reaches = (range: AddressRange): boolean => overlapsMerged(away, range);
  const { peer, ports } = own;
  const to = peer && { address: peer, prefixLength: family === 4 ? 32 : 128 };
  const skip = (rule: Omit<Rule, 'family' | 'priority' | 'action'>): Step => {
    return (at, end) => [{ family, priority: at, ...rule, action: { type: 'goto', priority: end } }];
  };
  const steps: Step[] = [];
  if (peer === undefined || (peer.family === family && reaches({ start: peer, end: peer }))) {
    // The host's own alone: what others send to the peer is no packet of the tunnel.
    const common = { inputLink: 'lo', to };
    steps.push(
      skip({ ...common, ipProtocol: Protocol.esp }),
      ...ports.map((port) => skip({ ...common, ipProtocol: Protocol.udp, sourcePorts: { start: port, end: port } })),
    );
  }
  if (outbound.some(({ action, local }) => action === 'protect' && reaches(local)))
    steps.push(skip({ inputLink: device }));
  if (outbound.some(({ local }, at) => local.start.family === family && needsPassMark(outbound, at))) {
    steps.push(skip({ mark: PASS_MARK }));
  }
  for (const range of LINK_SCOPE[family].filter(reaches)) {
    for (const prefix of rangeToPrefixes(range)) steps.push(skip({ to: prefix }));
  }
  return steps;
}

function range(family: IpFamily, start: bigint, end: bigint): AddressRange {
  return { start: { family, value: start }, end: { family, value: end } };
}

/** Packets that never leave a link, and that the link needs: as in the fence. */
const LINK_SCOPE: Readonly<Record<IpFamily, readonly AddressRange[]>> = {
  4: [range(4, 0xe000_0000n, 0xe000_00ffn), range(4, 0xffff_ffffn, 0xffff_ffffn)],
  6: [
    range(6, 0xfe80n << 112n, (0xfec0n << 112n) - 1n),
    range(6, 0xff01n << 112n, (0xff02n << 112n) - 1n),
    range(6, 0xff02n << 112n, (0xff03n << 112n) - 1n),
  ],
};

/**
 * Which of an entry's packets: `bound` those with a source, `open` those that have none yet and may get one of the entry's,
 * `both`; `unserved` those that have none while the host has no address of the entry's; `lost`, over IPv6, all that this host
 * sends to the entry's destination while there is no device: after an unreachable route the kernel chooses another source and
 * looks again, and that would be an address outside of the policy.
 */
type Bound = 'both' | 'bound' | 'open' | 'unserved' | 'lost';

function boxSteps(box: PolicyBox, bound: Bound, around: Surroundings): Step[] {
  const { family } = box.local.start;
  const froms = sourcesOf(box, bound, around);
  const tos = isWhole(box.remote) ? [undefined] : rangeToPrefixes(box.remote);
  const flows = froms.flatMap((from) => tos.map((to) => ({ family, from, to, ipProtocol: box.protocol })));
  const source = rulePorts(box.localPorts);
  const destination = rulePorts(box.remotePorts);
  const others = [
    ...(source.below === undefined ? [] : [{ sourcePorts: source.below }]),
    ...(destination.below === undefined ? [] : [{ destinationPorts: destination.below }]),
  ];
  const route: Step = (at, end) => {
    const ports = { sourcePorts: source.ports, destinationPorts: destination.ports };
    const action = bound === 'unserved' ? unservedAction(family, around) : actionOf(box, end, around);
    const only = bound === 'lost' && box.action === 'protect' ? WHILE_LOST : {};
    const whole = flows.map((flow) => ({ ...flow, ...ports, ...only, priority: at, action }));
    // Of what is forwarded, which has a source.
    const forwarded = bound === 'both' || bound === 'bound' ? flows.filter(({ from }) => !isNoSource(from)) : [];
    return [...whole, ...(needsDeviceMark(box) ? forwarded.map((flow) => fragments(flow, at, action)) : [])];
  };
  if (others.length === 0) return [route];
  const pass: Step = (at) =>
    flows.flatMap((flow) =>
      others.map((ports): Rule => ({ ...flow, ...ports, priority: at, action: { type: 'goto', priority: at + 2 } })),
    );
  return [pass, route];
}

/** Matches this host's own packets while the table has no route into the device. */
const WHILE_LOST: Pick<Rule, 'inputLink' | 'suppressedGroup'> = { inputLink: 'lo', suppressedGroup: DEVICE_GROUP };

/** For fragments of a forwarded packet. In IPv6 their protocol field may differ from that of the packet. */
function fragments(flow: Omit<Rule, 'priority' | 'action'>, priority: number, action: RuleAction): Rule {
  return { ...flow, ipProtocol: flow.family === 4 ? flow.ipProtocol : undefined, mark: DEVICE_MARK, priority, action };
}

/** Packets without a source are included where the host has an address that they may get. */
function sourcesOf(box: PolicyBox, bound: Bound, around: Surroundings): (Prefix | undefined)[] {
  const { local, action } = box;
  const { hasAddressIn } = around;
  const { family } = local.start;
  if (bound === 'lost' && action === 'bypass') return sourcesOf(box, 'bound', around);
  if (bound === 'lost')
    return isRequired(box) && !isWhole(local) && hasAddressIn(local) !== 'others' ? [undefined] : [];
  if (bound === 'unserved') return hasAddressIn(local) === 'missing' ? [noSource(family)] : [];
  if (bound === 'open') return hasAddressIn(local) === 'yes' ? [undefined] : [];
  if (isWhole(local)) return [undefined];
  return [...rangeToPrefixes(local), ...(bound === 'both' && hasAddressIn(local) === 'yes' ? [noSource(family)] : [])];
}

/**
 * Linux's rules know neither port 0 nor the last one. A range that ends there is all ports but those below it, which go
 * on to the next entry.
 */
function rulePorts(range: PortRange | undefined): { ports: PortRange | undefined; below: PortRange | undefined } {
  if (range === undefined) return { ports: undefined, below: undefined };
  const start = Math.max(1, range.start);
  if (range.end < MAX_PORT) return { ports: { start, end: Math.max(1, range.end) }, below: undefined };
  return { ports: undefined, below: start === 1 ? undefined : { start: 1, end: start - 1 } };
}

function actionOf(box: PolicyBox, end: number, { table, isUp }: Surroundings): RuleAction {
  const past = { type: 'goto', priority: end } as const;
  switch (box.action) {
    case 'protect':
      return box.level === 'use' && box.child !== undefined && !isUp(box.child) ? past : { type: 'table', table };
    case 'bypass':
      return past;
    case 'discard':
      return { type: 'blackhole' };
    default:
      return assertNever(box.action, 'actionOf');
  }
}

/**
 * Rules match protocols, but not types of ICMP. Where types are protected, all ICMP is routed into the device; the fence marks
 * what is to pass in the clear; the device or the fence drops what is discarded.
 */
function isForRules({ action, icmp }: PolicyBox): boolean {
  return action === 'protect' || icmp === undefined;
}
