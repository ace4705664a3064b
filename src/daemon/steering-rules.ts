/**
 * From a policy to rules of policy routing and a routing table. Pure. A tunnel has a block of priorities of its own; within
 * it stand, for each address family:
 *
 * ```text
 *   0  host's own ESP, and UDP from the tunnel's ports, to its peer     goto end
 *   1  what came out of the device, where it would be led in again      goto end
 *   2  ICMP that is to pass in the clear, by its mark                   goto end
 *   3  link-local and multicast of the link, where the policy has it    goto end
 *   4… each entry in its order: protect → the tunnel's table, bypass → goto end, discard → blackhole
 *   n  end: nop
 * ```
 *
 * Where all entries are for the same local addresses and for all protocols, which is the ordinary case, one rule leads
 * into the table, and its routes say the rest: they are found without looking at the others.
 */
import {
  type AddressRange,
  anyRange,
  type IpFamily,
  intersectRanges,
  prefixRange,
  rangeToPrefixes,
} from '../base/address.ts';
import { assertNever } from '../base/assert.ts';
import { isWhole, mergeRanges, overlapsMerged, subtractRanges } from '../base/ranges.ts';
import { Protocol } from '../policy/protocols.ts';
import { MAX_PORT } from '../policy/selector.ts';
import { LEAD_MARK, PASS_MARK } from '../tun/fence.ts';
import type { PortRange, Prefix, RouteType, Rule, RuleAction } from '../tun/routes.ts';
import { needsLeadMark, needsPassMark, type PolicyBox, type SteeringPlan } from './steering-plan.ts';

/**
 * A rule costs each packet of the host that is routed some 12 ns. With more than these the addresses of the other side alone
 * lead into the device, whose policy decides.
 */
export const MAX_RULES = 128;

export interface Surroundings {
  /** Name of the tunnel's interface. */
  readonly device: string;
  /** Whether the host has an address in a range: then packets that have no source yet may get it. */
  readonly hasAddressIn: (range: AddressRange) => boolean;
  /** Whether a child of level `use` has an SA. */
  readonly isUp: (child: string) => boolean;
}

/** A destination in the tunnel's table: `open` into the device while there is one; `closed` always, behind that. */
export interface TableRoute {
  readonly destination: Prefix;
  readonly open: boolean;
  readonly closed: Exclude<RouteType, 'unicast' | 'throw'>;
  /** Of what comes from these addresses. */
  readonly sources: readonly AddressRange[];
}

export interface SteeringRules {
  /** Priorities and places to go to count from 0. */
  readonly rules: readonly Rule[];
  readonly routes: readonly TableRoute[];
  /** For people: where more is led into the device than the policy has. */
  readonly warnings: readonly string[];
}

const FAMILIES: readonly IpFamily[] = [4, 6];

export function steeringRules(plan: SteeringPlan, around: Surroundings): SteeringRules {
  const parts = FAMILIES.map((family) => familyRules(family, plan, around));
  return {
    rules: parts.flatMap(({ rules }) => rules),
    routes: parts.flatMap(({ routes }) => routes),
    warnings: parts.flatMap(({ warnings }) => warnings),
  };
}

/** What a person should know of how packets are led: where the kernel is not told all that the policy says. */
export function steeringWarnings(plan: SteeringPlan): readonly string[] {
  return steeringRules(plan, { device: '', hasAddressIn: () => true, isUp: () => true }).warnings;
}

const NOTHING: SteeringRules = { rules: [], routes: [], warnings: [] };

function familyRules(family: IpFamily, plan: SteeringPlan, around: Surroundings): SteeringRules {
  const boxes = plan.outbound.filter(({ local }) => local.start.family === family);
  if (boxes.every(({ action }) => action === 'bypass')) return NOTHING;
  if (isByDestination(boxes)) return byTable(family, boxes, boxes[0]!.local, boxes, plan, around);
  const led = boxes.filter(({ action }) => action === 'protect');
  const exact = assemble(family, boxes.filter(isForRules), boxes, plan, around);
  if (exact !== undefined) return { rules: exact, routes: defaultRoutes(family, led), warnings: [] };
  const coarse = led.map((box) => ({ ...box, local: anyRange(family) }));
  const text = `the policy takes more than ${MAX_RULES} rules of policy routing for IPv${family}: all that is sent to its protected destinations is led into the device, and what it does not protect is dropped there`;
  return { ...byTable(family, coarse, anyRange(family), led, plan, around), warnings: [text] };
}

/** Whether the destination alone decides among packets from the same sources. */
function isByDestination(boxes: readonly PolicyBox[]): boolean {
  const [first] = boxes;
  return boxes.every(
    ({ local, protocol, level, action }) =>
      protocol === undefined &&
      (level !== 'use' || action !== 'protect') &&
      local.start.value === first!.local.start.value &&
      local.end.value === first!.local.end.value,
  );
}

/** @param policy the boxes with the addresses that become sources */
function byTable(
  family: IpFamily,
  boxes: readonly PolicyBox[],
  local: AddressRange,
  policy: readonly PolicyBox[],
  plan: SteeringPlan,
  around: Surroundings,
): SteeringRules {
  const all = { local, remote: anyRange(family), action: 'protect', level: 'require', child: undefined } as const;
  const rules = assemble(family, [all], boxes, plan, around) ?? [];
  return { rules, routes: regionsOf(boxes, distinct(policy)), warnings: [] };
}

/** What is led where by destinations: of several boxes the first one has what it covers. */
function regionsOf(boxes: readonly PolicyBox[], sources: readonly AddressRange[]): TableRoute[] {
  const routes: TableRoute[] = [];
  const led = boxes.every(({ action }) => action === 'protect');
  const runs = led
    ? [{ action: 'protect' as const, ranges: mergeRanges(boxes.map(({ remote }) => remote)) }]
    : runsOf(boxes);
  for (const { action, ranges } of runs) {
    if (action === 'bypass') continue;
    for (const range of ranges) {
      for (const destination of rangeToPrefixes(range)) {
        routes.push(
          action === 'protect'
            ? { destination, open: true, closed: 'unreachable', sources }
            : { destination, open: false, closed: 'blackhole', sources: [] },
        );
      }
    }
  }
  return routes;
}

function runsOf(boxes: readonly PolicyBox[]): { action: PolicyBox['action']; ranges: AddressRange[] }[] {
  let covered: AddressRange[] = [];
  return boxes.map(({ action, remote }) => {
    const ranges = subtractRanges(remote, covered);
    covered = mergeRanges([...covered, remote]);
    return { action, ranges };
  });
}

/** Behind rules that let in nothing but what is protected. */
function defaultRoutes(family: IpFamily, led: readonly PolicyBox[]): TableRoute[] {
  if (led.length === 0) return [];
  const open = mergeRanges(led.map(({ remote }) => remote)).flatMap((range) => rangeToPrefixes(range));
  const routes: TableRoute[] = open.map((destination) => ({
    destination,
    open: true,
    closed: 'unreachable',
    sources: sourcesFor(led, destination),
  }));
  const everything = { address: { family, value: 0n }, prefixLength: 0 };
  if (open.some(({ prefixLength }) => prefixLength === 0)) return routes;
  return [...routes, { destination: everything, open: false, closed: 'unreachable', sources: [] }];
}

/** Local addresses of the boxes for a destination. */
function sourcesFor(boxes: readonly PolicyBox[], { address, prefixLength }: Prefix): AddressRange[] {
  const destination = prefixRange(address, prefixLength);
  return distinct(boxes.filter(({ remote }) => intersectRanges(remote, destination) !== undefined));
}

/** Local addresses, a few: one of them becomes the source. */
function distinct(boxes: readonly PolicyBox[]): AddressRange[] {
  const MOST = 16;
  // BOUNDED: by the policy.
  const found = new Map<string, AddressRange>();
  for (const { local } of boxes) {
    if (found.size === MOST) break;
    found.set(`${local.start.value}-${local.end.value}`, local);
  }
  return [...found.values()];
}

/** A place in the block, and its last one: the rules that stand there; never none, as one may go to it. */
type Step = (at: number, end: number) => Rule[];

/**
 * @param boxes what the rules are for
 * @param policy what is led away by them, for which exceptions are made
 * @returns `undefined` when they are too many
 */
function assemble(
  family: IpFamily,
  boxes: readonly PolicyBox[],
  policy: readonly PolicyBox[],
  plan: SteeringPlan,
  around: Surroundings,
): Rule[] | undefined {
  const entries = (bound: Bound): Step[] => boxes.flatMap((box) => boxSteps(box, bound, plan, around));
  const split = family === 6 && boxes.some(({ local }) => !isWhole(local));
  const steps: Step[] = [
    ...exceptions(family, policy, plan, around),
    ...(split ? [...entries('bound'), ...leaveBound(), ...entries('open')] : entries('both')),
  ];
  const end = steps.length;
  const rules: Rule[] = [];
  for (const [at, step] of steps.entries()) {
    rules.push(...step(at, end));
    if (rules.length > MAX_RULES) return undefined;
  }
  // Each rule is one more that all packets pass: the end is there only where something goes to it.
  const isGoneTo = rules.some(({ action }) => action.type === 'goto' && action.priority === end);
  return isGoneTo ? [...rules, { family, priority: end, action: { type: 'nop' } }] : rules;
}

/**
 * A rule with a source never fits an IPv6 packet that has none yet, so those that fit everything are the bound ones. After
 * them come the others.
 */
function leaveBound(): Step[] {
  const halves = [0n, 1n << 127n].map((value) => ({ address: { family: 6 as const, value }, prefixLength: 1 }));
  return [
    (at, end) => halves.map((from) => ({ family: 6, priority: at, from, action: { type: 'goto', priority: end } })),
  ];
}

function exceptions(
  family: IpFamily,
  policy: readonly PolicyBox[],
  { own, outbound }: SteeringPlan,
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

/** What never leaves a link, and without which there is none: as in the fence. */
const LINK_SCOPE: Readonly<Record<IpFamily, readonly AddressRange[]>> = {
  4: [range(4, 0xe000_0000n, 0xe000_00ffn), range(4, 0xffff_ffffn, 0xffff_ffffn)],
  6: [
    range(6, 0xfe80n << 112n, (0xfec0n << 112n) - 1n),
    range(6, 0xff01n << 112n, (0xff02n << 112n) - 1n),
    range(6, 0xff02n << 112n, (0xff03n << 112n) - 1n),
  ],
};

/** Which of an entry's packets are meant: those with a source, those that have none yet, or both. */
type Bound = 'both' | 'bound' | 'open';

function boxSteps(box: PolicyBox, bound: Bound, plan: SteeringPlan, around: Surroundings): Step[] {
  const { family } = box.local.start;
  const froms = sourcesOf(box, bound, around);
  if (froms.length === 0) return [];
  const tos = isWhole(box.remote) ? [undefined] : rangeToPrefixes(box.remote);
  const flows = froms.flatMap((from) => tos.map((to) => ({ family, from, to, ipProtocol: box.protocol })));
  const source = rulePorts(box.localPorts);
  const destination = rulePorts(box.remotePorts);
  const others = [
    ...(source.below === undefined ? [] : [{ sourcePorts: source.below }]),
    ...(destination.below === undefined ? [] : [{ destinationPorts: destination.below }]),
  ];
  const lead: Step = (at, end) => {
    const ports = { sourcePorts: source.ports, destinationPorts: destination.ports };
    const action = actionOf(box, end, plan, around);
    const whole = flows.map((flow) => ({ ...flow, ...ports, priority: at, action }));
    return [
      ...whole,
      ...(needsLeadMark(box) && bound !== 'open' ? flows.map((flow) => fragments(flow, at, action)) : []),
    ];
  };
  if (others.length === 0) return [lead];
  const pass: Step = (at) =>
    flows.flatMap((flow) =>
      others.map((ports): Rule => ({ ...flow, ...ports, priority: at, action: { type: 'goto', priority: at + 2 } })),
    );
  return [pass, lead];
}

/** Of a packet that is forwarded. In IPv6 their protocol may be another one than that of the packet. */
function fragments(flow: Omit<Rule, 'priority' | 'action'>, priority: number, action: RuleAction): Rule {
  return { ...flow, ipProtocol: flow.family === 4 ? flow.ipProtocol : undefined, mark: LEAD_MARK, priority, action };
}

/**
 * In IPv4 packets without a source are those from 0.0.0.0. They are led where the host has an address that they may get.
 */
function sourcesOf({ local }: PolicyBox, bound: Bound, { hasAddressIn }: Surroundings): (Prefix | undefined)[] {
  const { family } = local.start;
  if (bound === 'open') return isWhole(local) || hasAddressIn(local) ? [undefined] : [];
  if (isWhole(local)) return [undefined];
  const open = bound === 'both' && hasAddressIn(local) ? [{ address: { family, value: 0n }, prefixLength: 32 }] : [];
  return [...rangeToPrefixes(local), ...open];
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

function actionOf(box: PolicyBox, end: number, { table }: SteeringPlan, { isUp }: Surroundings): RuleAction {
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
 * Rules tell protocols, but not the types of ICMP. Where types are protected all ICMP is led into the device; what is to
 * pass in the clear is marked by the fence; what is discarded is dropped in the device or by the fence.
 */
function isForRules({ action, icmp }: PolicyBox): boolean {
  return action === 'protect' || icmp === undefined;
}
