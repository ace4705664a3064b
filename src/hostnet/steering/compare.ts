/**
 * Compares installed rules and routes with those that are wanted, by content: which are missing, which are surplus, and which
 * of other programs come first. Pure.
 */
import { type AddressRange, intersectRanges, prefixRange } from '../../base/address.ts';
import {
  describeRoute,
  describeRule,
  formatPrefix,
  type InstalledRoute,
  type InstalledRule,
  metricOf,
  OWN_PROTOCOL,
  ownerOf,
  type Route,
  type Rule,
} from '../routes/routes.ts';
import { formatRule } from '../routes/seen-rules.ts';
import type { PolicyBox } from './plan.ts';

/** Two rules with the same key are the same rule. */
export function ruleKey(rule: Rule): string {
  const { from, to } = rule;
  const prefixes = [from, to].map((prefix) => prefix && `${prefix.address.value}/${prefix.prefixLength}`);
  const ports = [rule.sourcePorts, rule.destinationPorts].map((range) => range && `${range.start}-${range.end}`);
  const rest = [rule.family, ...prefixes, rule.ipProtocol, ...ports, rule.inputLink, rule.mark, ownerOf(rule)];
  if (rule.suppressedGroup !== undefined) rest.push(`suppressed ${rule.suppressedGroup}`);
  if (rule.suppressedLength !== undefined) rest.push(`suppressed up to ${rule.suppressedLength}`);
  return [describeRule(rule), ...rest].join(' ');
}

/** Two routes of a table with the same key stand in the same place, and do the same. */
export function routeKey(route: Route): string {
  const { type, destination } = route;
  const { family, value } = destination.address;
  return `${type} ${family} ${value}/${destination.prefixLength} ${metricOf(route)}`;
}

export interface RuleDifference<T extends Rule> {
  readonly missing: readonly Rule[];
  /** Ours, and not wanted. */
  readonly surplus: readonly T[];
}

/** @param installed our rules of the same owner */
export function compareRules<T extends Rule>(wanted: readonly Rule[], installed: readonly T[]): RuleDifference<T> {
  const there = new Set(installed.map(ruleKey));
  const keys = new Set(wanted.map(ruleKey));
  return {
    missing: wanted.filter((rule) => !there.has(ruleKey(rule))),
    surplus: installed.filter((rule) => !keys.has(ruleKey(rule))),
  };
}

export interface RouteDifference {
  readonly missing: readonly Route[];
  /** Of the table, and neither wanted nor ours. */
  readonly foreign: readonly InstalledRoute[];
  /** Ours, and not wanted. */
  readonly surplus: readonly InstalledRoute[];
}

/** @param installed all routes of the table */
export function compareRoutes(wanted: readonly Route[], installed: readonly InstalledRoute[]): RouteDifference {
  const own = installed.filter(({ protocol }) => protocol === OWN_PROTOCOL);
  const keys = new Set(wanted.map(routeKey));
  const there = new Set(own.map(wayKey));
  return {
    missing: wanted.filter((route) => !there.has(wayKey(route))),
    foreign: installed.filter(({ protocol }) => protocol !== OWN_PROTOCOL),
    surplus: own.filter((route) => !keys.has(routeKey(route))),
  };
}

/** The same with the link and the source that a packet gets. */
export function wayKey(route: Route): string {
  return `${routeKey(route)} ${route.linkIndex} ${route.source?.value}`;
}

/** Packets that rules of ours are for. */
export interface RoutedFlow {
  readonly local: AddressRange | undefined;
  readonly remote: AddressRange | undefined;
  readonly protocol: number | undefined;
  readonly inputLink: string | undefined;
}

/** The packets of a policy that must not go another way. */
export function routedFlows(boxes: readonly PolicyBox[]): RoutedFlow[] {
  return boxes
    .filter(({ action, level }) => action === 'protect' && level !== 'use')
    .map(({ local, remote, protocol }) => ({ local, remote, protocol, inputLink: undefined }));
}

const LOCAL_TABLE = 255;

/**
 * Rules of other programs that come before ours and route packets of ours another way, in words.
 *
 * @param first the priority of the first of ours
 * @param routesOf the routes of a table
 */
export function foreignBefore(
  flows: readonly RoutedFlow[],
  first: number,
  foreign: readonly InstalledRule[],
  routesOf: (table: number, family: Rule['family']) => readonly Route[],
): string[] {
  const before = foreign.filter((rule) => rule.priority < first);
  return before.flatMap((rule) => {
    const met = flows.filter((flow) => meets(rule, flow));
    if (met.length === 0 || !takes(rule, first, met, routesOf)) return [];
    return [
      `another program's rule comes first and routes packets of the policy another way: ${formatRule(rule)}; ` +
        `give it a priority above ${first}, or remove it. The fence drops packets that would leave in the clear from the policy's own addresses`,
    ];
  });
}

/** A rule for marked packets alone is left to the program that marks them: marks are not known here. */
function meets(rule: InstalledRule, { local, remote, protocol, inputLink }: RoutedFlow): boolean {
  const family = local?.start.family ?? remote?.start.family ?? rule.family;
  const touches = (range: AddressRange | undefined, prefix: Rule['from']): boolean =>
    range === undefined ||
    prefix === undefined ||
    intersectRanges(range, prefixRange(prefix.address, prefix.prefixLength)) !== undefined;
  return (
    rule.family === family &&
    rule.mark === undefined &&
    touches(local, rule.from) &&
    touches(remote, rule.to) &&
    (rule.ipProtocol === undefined || protocol === undefined || rule.ipProtocol === protocol) &&
    (inputLink === undefined || rule.inputLink === undefined || rule.inputLink === inputLink)
  );
}

function takes(
  { action, family, suppressedLength = -1 }: InstalledRule,
  first: number,
  flows: readonly RoutedFlow[],
  routesOf: (table: number, family: Rule['family']) => readonly Route[],
): boolean {
  if (action.type === 'nop') return false;
  if (action.type === 'goto') return action.priority > first;
  if (action.type !== 'table') return true;
  if (action.table === LOCAL_TABLE) return false;
  return routesOf(action.table, family).some(
    ({ type, destination: { address, prefixLength } }) =>
      type !== 'throw' &&
      prefixLength > suppressedLength &&
      flows.some(
        ({ remote }) =>
          remote === undefined || intersectRanges(remote, prefixRange(address, prefixLength)) !== undefined,
      ),
  );
}

export function foreignRoute(route: InstalledRoute): string {
  return (
    `another program's ${describeRoute(route)} (protocol ${route.protocol}) is in the tunnel's own table; remove it: ` +
    `ip route del ${formatPrefix(route.destination)} table ${route.table}`
  );
}
