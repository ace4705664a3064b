/**
 * Restores the rules and routes of one tunnel or bridge after another program changed them. Those of other programs stay, and
 * are reported with what to do.
 */
import type { IpFamily } from '../../base/address.ts';
import { messageOf } from '../../base/text.ts';
import {
  describeRoute,
  describeRule,
  type HostNetwork,
  type InstalledRoute,
  type InstalledRule,
  type Route,
  type Rule,
} from '../routes/routes.ts';
import { compareRoutes, compareRules, foreignBefore, foreignRoute, type RoutedFlow, routeKey } from './compare.ts';
import { isOnwardLookUp, lookUpsLast } from './priorities.ts';

interface TableWanted {
  readonly number: number;
  readonly routes: readonly Route[];
  /** Keys of others that may stand there. */
  readonly kept: ReadonlySet<string>;
}

/** What is wanted. */
export interface Wanted {
  readonly rules: readonly Rule[];
  /** Its own. */
  readonly tables: readonly TableWanted[];
  /** The packets that the rules are for. */
  readonly flows: readonly RoutedFlow[];
}

export interface Mended {
  /** What was put right, in words. */
  readonly found: readonly string[];
  /** What is not as it should be. */
  readonly problems: readonly string[];
}

/** The routes of a table. */
export type RoutesOf = (table: number, family?: IpFamily) => readonly InstalledRoute[];

/** The routes of tables, each listed when it is asked for first. */
export function listedRoutes(network: HostNetwork): RoutesOf {
  // BOUNDED: by the tables that rules look up.
  const tables = new Map<number, readonly InstalledRoute[]>();
  return (table, family) => {
    const routes = tables.get(table) ?? network.routes({ table });
    tables.set(table, routes);
    return family === undefined ? routes : routes.filter(({ destination }) => destination.address.family === family);
  };
}

/** What rules and routes are changed by. */
export interface Changer extends Pick<HostNetwork, 'addRoutes' | 'deleteRoutes'> {
  readonly rules: { add(rules: readonly Rule[]): void; delete(rule: Rule): boolean };
}

export interface Installed {
  /** Rules of the same owner. */
  readonly own: readonly InstalledRule[];
  /** Rules of other programs. */
  readonly foreign: readonly InstalledRule[];
  readonly routesOf: RoutesOf;
}

export function mendRouting(changer: Changer, wanted: Wanted, { own, foreign, routesOf }: Installed): Mended {
  const found: string[] = [];
  const problems: string[] = [];
  const attempt = (what: readonly string[], change: () => void): void => {
    if (what.length === 0) return;
    try {
      change();
      found.push(...what);
    } catch (error) {
      problems.push(messageOf(error));
    }
  };
  const { missing, surplus } = compareRules(wanted.rules, own);
  const add = (rules: readonly Rule[]): void =>
    attempt(
      rules.map((rule) => `${describeRule(rule)}: missing`),
      // The last first: what a goto jumps over has its end then.
      () => changer.rules.add([...rules].reverse()),
    );
  const remove = (rules: readonly InstalledRule[]): void => {
    try {
      for (const rule of lookUpsLast(rules)) {
        if (changer.rules.delete(rule)) found.push(`${describeRule(rule)}: added`);
      }
    } catch (error) {
      problems.push(messageOf(error));
    }
  };
  // Rules that refuse are added first and removed last, IPv4 rules into the table the other way round: until the routes are
  // right, no IPv4 packet gets its source from them. Over IPv6 a route without a preferred source gives none.
  // What comes out of the tunnel is looked up before the rest of it is refused.
  add(missing.filter(isOnwardLookUp));
  add(missing.filter(refuses));
  remove(surplus.filter(looksUpTable));
  problems.push(...mendTables(changer, wanted.tables, routesOf, attempt));
  add(missing.filter((rule) => !refuses(rule) && !isOnwardLookUp(rule)));
  remove(surplus.filter((rule) => !looksUpTable(rule)));
  if (wanted.rules.length > 0) {
    const first = Math.min(...wanted.rules.map(({ priority }) => priority));
    problems.push(...foreignBefore(wanted.flows, first, foreign, routesOf));
  }
  return { found, problems };
}

function refuses({ action }: Rule): boolean {
  return action.type === 'unreachable';
}

function looksUpTable(rule: Rule): boolean {
  return rule.family === 4 && rule.action.type === 'table' && !isOnwardLookUp(rule);
}

/** What one table refuses may go over to another one: it is there first. @returns the routes of other programs there, in words */
function mendTables(
  changer: Changer,
  tables: readonly TableWanted[],
  routesOf: RoutesOf,
  attempt: (what: readonly string[], change: () => void) => void,
): string[] {
  const compared = tables.map(({ number, routes, kept }) => ({ kept, ...compareRoutes(routes, routesOf(number)) }));
  const missing = compared.flatMap((one) => one.missing);
  const surplus = compared.flatMap((one) => one.surplus.filter((route) => !one.kept.has(routeKey(route))));
  attempt(
    missing.map((route) => `${describeRoute(route)}: missing`),
    () => changer.addRoutes(missing),
  );
  attempt(
    surplus.map((route) => `${describeRoute(route)}: added`),
    () => changer.deleteRoutes(surplus),
  );
  return compared.flatMap(({ foreign }) => foreign.map(foreignRoute));
}
