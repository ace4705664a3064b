/**
 * The rules of the host, as far as tunnels are concerned: read once, then kept by what we change and by what the kernel
 * reports, so that a tunnel costs the same however many rules there are. While nothing is reported they are read each time.
 */
import type { HostNetwork, InstalledRule, Rule } from '../routes/routes.ts';
import { OWN_PROTOCOL, ownerOf } from '../routes/routes.ts';
import { ruleKey } from './compare.ts';
import { isOfBridge, isOfTunnel, isOnwardLookUp, isOnwardRefusal, lookUpsLast, pairKey } from './priorities.ts';

/** By key. */
type Rules = Map<string, InstalledRule>;

export class RuleBook {
  readonly #network: Pick<HostNetwork, 'rules' | 'addRules' | 'deleteRule'>;
  /** BOUNDED: by the rules of the host, as all of these. */
  #foreign: readonly InstalledRule[] = [];
  readonly #ofBridges: Rules = new Map();
  /** By the table of the tunnel; those without a number of their own by their pair. */
  readonly #owned = new Map<number | string, Rules>();
  /** What refuses, by its pair: several owners may have one look-up. */
  readonly #refusals = new Map<string, Rules>();
  #isFollowed = false;
  #isRead = false;

  constructor(network: Pick<HostNetwork, 'rules' | 'addRules' | 'deleteRule'>) {
    this.#network = network;
  }

  /** From now on `heard` is told what the kernel reports. */
  follow(): void {
    this.#isFollowed = true;
    this.forget();
  }

  /** Whether what stands is known by reports. */
  get isFollowed(): boolean {
    return this.#isFollowed;
  }

  /** What is known may be wrong: it is read when it is asked for next. */
  forget(): void {
    this.#isRead = false;
  }

  heard(rule: InstalledRule, { gone }: { readonly gone: boolean }): void {
    if (!this.#isRead) return;
    if (rule.protocol !== OWN_PROTOCOL) this.forget();
    else if (gone) this.#remove(rule);
    else this.#put(rule);
  }

  /** Rules of other programs. */
  get foreign(): readonly InstalledRule[] {
    this.#read();
    return this.#foreign;
  }

  get ofBridges(): readonly InstalledRule[] {
    this.#read();
    return [...this.#ofBridges.values()];
  }

  /** Our rules for the tunnels of a table. */
  of(table: number): readonly InstalledRule[] {
    this.#read();
    const rules = [...(this.#owned.get(table)?.values() ?? [])];
    // One that looks up the main table bears no number of its owner: the one that refuses does.
    const pairs = new Set(rules.filter(isOnwardRefusal).map(pairKey));
    return [...rules, ...[...pairs].flatMap((pair) => [...(this.#owned.get(pair)?.values() ?? [])])];
  }

  /** The priorities of all rules, those of other programs too. */
  *priorities(): Iterable<number> {
    this.#read();
    for (const { priority } of this.#foreign) yield priority;
    for (const rules of this.#owned.values()) for (const { priority } of rules.values()) yield priority;
  }

  /** @throws Error at the first that is refused */
  add(rules: readonly Rule[]): void {
    if (rules.length === 0) return;
    try {
      this.#network.addRules(rules);
    } catch (error) {
      this.forget();
      throw error;
    }
    for (const rule of rules) this.#put({ ...rule, protocol: OWN_PROTOCOL });
  }

  /**
   * A look-up that a refusal cannot do without stays.
   * @returns whether it was deleted; false when it was not there or stays. @throws Error
   */
  delete(rule: Rule): boolean {
    if (isOnwardLookUp(rule) && this.#isNeeded(rule)) return false;
    const was = this.#network.deleteRule(rule);
    this.#remove(rule);
    return was;
  }

  /** The last first: what a goto jumps over has its end then. Old rules go when the new ones stand. */
  change(before: readonly Rule[], after: readonly Rule[]): void {
    const there = new Set(before.map(ruleKey));
    const wanted = new Set(after.map(ruleKey));
    this.add(after.filter((rule) => !there.has(ruleKey(rule))).reverse());
    for (const rule of lookUpsLast(before)) if (!wanted.has(ruleKey(rule))) this.delete(rule);
  }

  /** All of a table. @throws Error */
  clear(table: number): void {
    this.change(this.of(table), []);
  }

  /** Whether several owners have this look-up, or one has no other. */
  #isNeeded(lookUp: Rule): boolean {
    this.#read();
    const pair = pairKey(lookUp);
    const refusals = this.#refusals.get(pair)?.size ?? 0;
    return refusals > 1 || (refusals === 1 && this.#owned.get(pair)?.size === 1);
  }

  #read(): void {
    if (this.#isRead && this.#isFollowed) return;
    const rules = this.#network.rules();
    this.#ofBridges.clear();
    this.#owned.clear();
    this.#refusals.clear();
    this.#foreign = rules.filter(({ protocol }) => protocol !== OWN_PROTOCOL);
    for (const rule of rules) if (rule.protocol === OWN_PROTOCOL) this.#put(rule);
    this.#isRead = true;
  }

  #put(rule: InstalledRule): void {
    const key = ruleKey(rule);
    if (isOfBridge(rule)) this.#ofBridges.set(key, rule);
    if (!isOfTunnel(rule)) return;
    put(this.#owned, groupOf(rule), [key, rule]);
    if (isOnwardRefusal(rule)) put(this.#refusals, pairKey(rule), [key, rule]);
  }

  #remove(rule: Rule): void {
    const key = ruleKey(rule);
    this.#ofBridges.delete(key);
    remove(this.#owned, groupOf(rule), key);
    remove(this.#refusals, pairKey(rule), key);
  }
}

function put<G>(groups: Map<G, Rules>, group: G, [key, rule]: readonly [string, InstalledRule]): void {
  const rules = groups.get(group);
  if (rules === undefined) groups.set(group, new Map([[key, rule]]));
  else rules.set(key, rule);
}

function remove<G>(groups: Map<G, Rules>, group: G, key: string): void {
  const rules = groups.get(group);
  if (rules?.delete(key) === true && rules.size === 0) groups.delete(group);
}

const NO_OWNER = 'none';

function groupOf(rule: Rule): number | string {
  return isOnwardLookUp(rule) ? pairKey(rule) : (ownerOf(rule) ?? NO_OWNER);
}
