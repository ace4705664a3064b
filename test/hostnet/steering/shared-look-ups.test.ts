/** The look-up that goes with a refusal, where refusals of several tables have the same one. */
import { beforeEach, describe, expect, it } from 'vitest';
import { MemoryHostNetwork } from '../../../src/hostnet/routes/memory.ts';
import type { InstalledRule, Prefix, Rule } from '../../../src/hostnet/routes/routes.ts';
import { formatRule } from '../../../src/hostnet/routes/seen-rules.ts';
import { onwardRules } from '../../../src/hostnet/steering/onward.ts';
import type { RoutingPlan } from '../../../src/hostnet/steering/plan.ts';
import { isBehindBlocks, ownersIn } from '../../../src/hostnet/steering/priorities.ts';
import { RuleBook } from '../../../src/hostnet/steering/rule-book.ts';
import { address, box, Host, planOf } from './tunnel-host.ts';

const [OLD, NEW] = [7700, 7701];
const LAN: Prefix = { address: address('10.1.0.0'), prefixLength: 24 };
const LOOK_UP = '32764: from all to 10.1.0.0/24 iif net lookup main suppress_prefixlength 0';
const REFUSAL = '32765: from all to 10.1.0.0/24 iif net unreachable';

/** Notes the deletions of rules for what comes out of tunnels. */
class Journal extends MemoryHostNetwork {
  readonly deleted: string[] = [];

  override deleteRule(rule: Rule): boolean {
    if (isBehindBlocks(rule)) this.deleted.push(textOf(rule));
    return super.deleteRule(rule);
  }

  get guards(): string[] {
    return this.rules().filter(isGuard).map(textOf).sort();
  }
}

function isGuard(rule: InstalledRule): boolean {
  return isBehindBlocks(rule) && rule.to !== undefined;
}

function textOf(rule: Rule): string {
  const owner = rule.owner === undefined ? '' : ` of ${rule.owner}`;
  return formatRule({ ...rule, protocol: 0 } as InstalledRule) + owner;
}

function plan(table: number, change: Partial<RoutingPlan> = {}): RoutingPlan {
  return planOf('net', [box('10.1.0.0/24', '10.2.0.0/24')], { table, ...change });
}

function pair(table: number, general = 0, lookUp = 32_764): Rule[] {
  return onwardRules([{ network: LAN, general }], 'net', table, { lookUp, refuse: lookUp + 1 });
}

describe('a look-up that goes with refusals of several tables', () => {
  let network: Journal;
  let host: Host;
  beforeEach(() => {
    network = new Journal();
    const line = network.addLink('eth0', 1500);
    const lan = network.addLink('lan0', 1500);
    network.addAddress({ linkIndex: line, address: address('192.0.2.1'), prefixLength: 24 });
    network.addAddress({ linkIndex: lan, address: address('10.1.0.1'), prefixLength: 24 });
    host = new Host(network, lan);
  });

  it('stays where a running tunnel gets another table', async () => {
    host.start(plan(OLD));
    expect(network.guards).toEqual([LOOK_UP, `${REFUSAL} of ${OLD}`]);
    host.start(plan(NEW));
    expect(network.deleted).toEqual([`${REFUSAL} of ${OLD}`]);
    expect(network.guards).toEqual([LOOK_UP, `${REFUSAL} of ${NEW}`]);
    const { found, problems } = await host.routing.mend();
    expect([found, problems.get('net')]).toEqual([[], []]);
  });

  it.each(['followed', 'read each time'])('stays where a daemon before left it for another table, rules %s', (how) => {
    network.addRules(pair(OLD).reverse());
    if (how === 'followed') host.routing.follow();
    host.start(plan(NEW));
    host.routing.reconcile([plan(NEW)]);
    expect(network.deleted).toEqual([`${REFUSAL} of ${OLD}`]);
    expect(network.guards).toEqual([LOOK_UP, `${REFUSAL} of ${NEW}`]);
    host.stop('net');
    expect(network.deleted.slice(1)).toEqual([`${REFUSAL} of ${NEW}`, LOOK_UP]);
    expect(network.guards).toEqual([]);
  });

  it('is another one in another place: the pair there goes, what refuses first', () => {
    network.addRules(pair(OLD, 0, 29_000).reverse());
    host.start(plan(NEW));
    host.routing.reconcile([plan(NEW)]);
    expect(network.deleted).toEqual([
      `29001: from all to 10.1.0.0/24 iif net unreachable of ${OLD}`,
      '29000: from all to 10.1.0.0/24 iif net lookup main suppress_prefixlength 0',
    ]);
    expect(network.guards).toEqual([LOOK_UP, `${REFUSAL} of ${NEW}`]);
  });

  it('goes with the last of them', () => {
    const book = new RuleBook(network);
    for (const table of [OLD, NEW]) book.add(pair(table).reverse());
    expect(network.guards).toEqual([LOOK_UP, `${REFUSAL} of ${OLD}`, `${REFUSAL} of ${NEW}`]);
    expect(book.of(OLD).map(textOf)).toEqual([`${REFUSAL} of ${OLD}`, LOOK_UP]);
    book.clear(NEW);
    expect(network.guards).toEqual([LOOK_UP, `${REFUSAL} of ${OLD}`]);
    book.clear(OLD);
    expect(network.guards).toEqual([]);
  });

  it('is not deleted from before a refusal, and is where another one is in its place', () => {
    const book = new RuleBook(network);
    const [refusal, lookUp] = pair(OLD) as [Rule, Rule];
    book.add([lookUp, refusal]);
    expect([book.delete(lookUp), network.deleted]).toEqual([false, []]);
    book.change(pair(OLD), pair(OLD, 8));
    expect(network.deleted).toEqual([LOOK_UP]);
    expect(network.guards).toEqual([LOOK_UP.replace(/0$/, '8'), `${REFUSAL} of ${OLD}`]);
  });

  it('of two tables that skip other routes is left alone by either of them', () => {
    const book = new RuleBook(network);
    for (const [table, general] of [
      [OLD, 0],
      [NEW, 8],
    ] as const) {
      book.add(pair(table, general).reverse());
    }
    for (const [table, general] of [
      [OLD, 0],
      [NEW, 8],
    ] as const) {
      book.change(book.of(table), pair(table, general));
    }
    expect(network.deleted).toEqual([]);
  });

  it('has as owner one that is left', () => {
    network.addRules(pair(OLD, 0, 29_000).reverse());
    network.addRules(pair(NEW).reverse());
    const owner = ownersIn(network.rules());
    const lookUps = network.rules().filter(({ suppressedLength }) => suppressedLength !== undefined);
    expect(lookUps.map((rule) => [rule.priority, owner(rule)])).toEqual([
      [29_000, OLD],
      [32_764, NEW],
    ]);
  });
});
