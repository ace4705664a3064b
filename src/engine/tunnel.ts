/** One tunnel within an engine's control plane: its policy, the SAs that carry it, and what is done to bring it up. */
import { SetMap } from '../base/set-map.ts';
import { type DropCounters, DropReason, newDropCounters } from '../esp/drops.ts';
import type { EspShape } from '../esp/packet.ts';
import { MAX_REPLAY_WINDOW, MIN_REPLAY_WINDOW } from '../esp/replay.ts';
import { tfcProblem } from '../esp/tfc.ts';
import { isDscp, MAX_DSCP } from '../esp/traffic-class.ts';
import type { SaState } from '../esp/usage.ts';
import type { ChildConfig, ConnectionConfig } from '../ike/config.ts';
import type { Path } from '../ike/events.ts';
import { CompiledPolicy, orderPolicy, type PolicyEntry } from '../policy/database.ts';
import { narrowedAway } from '../policy/narrowed.ts';
import { containsPair, formatSelectorPair, pairKey } from '../policy/selector.ts';
import { uncovered } from '../policy/uncovered.ts';
import { type CounterMemory, newTunnelCounters, SendCounter, type TunnelCounters } from './commands.ts';
import type { TunnelConfig } from './config.ts';
import type { ChildSummary } from './events.ts';
import { Retry } from './retry.ts';
import type { EspKeys } from './suite.ts';

/** A CHILD SA in the control plane: what IKE negotiated, and the state of its two halves, which the data plane writes. */
export interface EngineChild {
  readonly summary: ChildSummary;
  readonly tunnel: Tunnel;
  readonly received: SaState;
  readonly sent: SaState;
  /** Copies, where the engine is `resumable`. */
  readonly keys: EspKeys | undefined;
  /** What the size of its ESP packets depends on. */
  readonly shape: EspShape;
  readonly installedAt: number;
  /** Changes when the IKE SA is rekeyed. */
  ikeSaId: number;
  /** Changes when the peer moves. */
  path: Path;
  /** What the peer sends comes directly over IP, where it is to come in UDP; as it was reported last. */
  receivesBare: boolean;
  /** Of outer packets on the path; `undefined` while nothing is known of it. */
  pathMtu: number | undefined;
}

/** `always`: attempt after attempt; `packet`: when a packet needs it; `none`: left to the peer. */
export type KeepUpMode = 'always' | 'packet' | 'none';

/** A child of the configuration together with its connection. */
export interface ChildPlan {
  readonly connection: ConnectionConfig;
  readonly child: ChildConfig;
}

/** What a tunnel is made with beside its configuration. */
export interface TunnelMeans {
  /** Where the data plane counts. */
  readonly memory: CounterMemory;
  /** From 0 to 1, without 1. */
  readonly random: () => number;
  /** Is told when the next attempt is due, or that none is planned. */
  readonly onRetry: (tunnel: Tunnel, at: number | undefined) => void;
}

/** What a configuration comes to. */
interface Configured {
  readonly config: TunnelConfig;
  /** By name of the child. BOUNDED: the configuration. */
  readonly plans: ReadonlyMap<string, ChildPlan>;
  readonly policy: readonly PolicyEntry[];
  readonly inbound: readonly PolicyEntry[];
}

/** @throws RangeError when it cannot be worked with */
function configured(config: TunnelConfig): Configured {
  checkReplayWindow(config);
  checkOuter(config);
  const policy = orderPolicy(config.policy.map(strict), 'out');
  // Compiled only to be refused here rather than where packets are sent.
  void new CompiledPolicy(policy, 'out');
  return { config, plans: plansOf(config), policy, inbound: orderPolicy(config.policy, 'in') };
}

export class Tunnel {
  readonly index: number;
  readonly retry: Retry;
  readonly counters: TunnelCounters;
  /** Keyed by child id. BOUNDED: IKE bounds the children of an IKE SA, and the IKE SAs. */
  readonly children: Map<number, EngineChild> = new Map();
  wanted = false;
  keepUp: KeepUpMode = 'none';
  #configured: Configured;
  /** How many SAs a child of the configuration has, if it has any. BOUNDED: the configuration. */
  readonly #up = new Map<string, number>();
  /** By child: what the peer was last seen to take away. BOUNDED: the configuration. */
  readonly #narrowed = new Map<string, string>();
  /** Children that have lost an SA for a part of them, and have others. BOUNDED: the configuration. */
  readonly #partLost = new Set<string>();
  /** By child and selectors. BOUNDED: as `children`. */
  readonly #sameTraffic = new SetMap<string, EngineChild>();
  /** How many of `missing` there are. */
  #missing = 0;

  /** @throws RangeError when the configuration cannot be worked with */
  constructor(index: number, config: TunnelConfig, { memory, random, onRetry }: TunnelMeans) {
    this.index = index;
    this.#configured = configured(config);
    this.retry = new Retry(config.retry, { random, onChange: (at) => onRetry(this, at) });
    this.counters = newTunnelCounters(memory);
    this.#missing = this.missing().length;
  }

  /**
   * Another configuration for the tunnel.
   * @returns what makes it count
   * @throws RangeError when it cannot be worked with
   */
  prepare(config: TunnelConfig): () => void {
    const next = configured(config);
    return () => {
      this.#configured = next;
      this.#partLost.clear();
      this.#narrowed.clear();
      this.#missing = this.missing().length;
    };
  }

  get config(): TunnelConfig {
    return this.#configured.config;
  }

  /** Outbound entries in the order in which they are asked. */
  get policy(): readonly PolicyEntry[] {
    return this.#configured.policy;
  }

  /** Inbound ones. */
  get inbound(): readonly PolicyEntry[] {
    return this.#configured.inbound;
  }

  get plans(): Iterable<ChildPlan> {
    return this.#configured.plans.values();
  }

  plan(childName: string): ChildPlan | undefined {
    return this.#configured.plans.get(childName);
  }

  addChild(child: EngineChild): void {
    const { id, name } = child.summary;
    this.children.set(id, child);
    this.#sameTraffic.add(trafficKeyOf(child.summary), child);
    if (this.sasOf(name) === 0 && this.#isCounted(name)) this.#missing--;
    this.#up.set(name, this.sasOf(name) + 1);
  }

  removeChild(child: EngineChild): void {
    const { id, name } = child.summary;
    if (!this.children.delete(id)) return;
    this.#sameTraffic.delete(trafficKeyOf(child.summary), child);
    const left = this.sasOf(name) - 1;
    if (left > 0) this.#up.set(name, left);
    else this.#up.delete(name);
    if (left === 0 && this.#isCounted(name)) this.#missing++;
  }

  /** A note that the peer has narrowed an SA; once, until the narrowing changes. */
  narrowingNote(child: EngineChild): string | undefined {
    const { name, wanted, selectors, initiator } = child.summary;
    const away = initiator ? this.narrowedAway(child).join(', ') : '';
    if (away === (this.#narrowed.get(name) ?? '')) return undefined;
    this.#narrowed.set(name, away);
    if (away === '') return undefined;
    const found = `${formatSelectorPair(wanted)} was requested, ${formatSelectorPair(selectors)} is agreed on`;
    return `the peer has narrowed ${name}: ${found}; packets of ${away} call for another CHILD SA`;
  }

  /** What none of the peer's SAs carries of the traffic that an SA was wanted for, in words; several SAs may each carry a part. */
  narrowedAway({ ikeSaId, summary: { name, wanted, selectors } }: EngineChild): string[] {
    if (containsPair(selectors, wanted)) return [];
    const others = this.#sasNamed(name).filter((other) => other.ikeSaId === ikeSaId);
    const agreed = [selectors, ...others.map(({ summary }) => summary.selectors)];
    const left = uncovered(wanted, agreed);
    if (left === undefined) return [];
    const local = agreed.flatMap((pair) => pair.local);
    const remote = agreed.flatMap((pair) => pair.remote);
    const away = narrowedAway(wanted, { local, remote });
    return away.length > 0 ? away : [formatSelectorPair(left)];
  }

  #sasNamed(name: string): EngineChild[] {
    return [...this.children.values()].filter(({ summary }) => summary.name === name);
  }

  /**
   * An SA went down and nothing replaces it. Returns whether its child must be negotiated again although it has other SAs,
   * because those carry other packets.
   */
  losesPart({ name, selectors }: ChildSummary): boolean {
    if (!this.#isCounted(name) || this.sasOf(name) === 0) return false;
    if (this.#sasNamed(name).some(({ summary }) => containsPair(summary.selectors, selectors))) return false;
    this.#partLost.add(name);
    return true;
  }

  #isCounted(name: string): boolean {
    const plan = this.plan(name);
    return plan !== undefined && plan.child.pfp === undefined;
  }

  /** How many SAs there are of a child of the configuration. */
  sasOf(childName: string): number {
    return this.#up.get(childName) ?? 0;
  }

  /** Every child of the configuration has an SA, except children whose SAs packets ask for one by one. */
  get complete(): boolean {
    return this.#missing === 0;
  }

  /** Children of the configuration that have no SA and are not populated from packets. */
  missing(): ChildPlan[] {
    return [...this.plans].filter(({ child }) => child.pfp === undefined && !this.#up.has(child.name));
  }

  /** The same and children that have lost a part; a lost part is asked for once, after that by packets. */
  wantedAgain(): ChildPlan[] {
    const lost = [...this.plans].filter(({ child }) => this.#partLost.has(child.name) && this.#up.has(child.name));
    return [...this.missing(), ...lost];
  }

  wasAskedFor({ children }: ConnectionConfig): void {
    for (const { name } of children) this.#partLost.delete(name);
  }

  /** How many SAs of the child carry the same packets. */
  sasForSameTraffic(sa: Pick<ChildSummary, 'name' | 'selectors'>): number {
    return this.#sameTraffic.get(trafficKeyOf(sa)).size;
  }

  /** Packets that wait for an SA. */
  get held(): number {
    return this.counters.sending[SendCounter.held]!;
  }

  /** Packets that the policy lets bypass, but that were routed into the device, which cannot send in the clear. */
  get bypassed(): number {
    return this.counters.sending[SendCounter.bypassed]!;
  }

  /** Packets that were dropped, by reason, including those that waited for an SA that did not come. */
  drops(): DropCounters {
    const { outboundDrops, inboundDrops, sending } = this.counters;
    const all = newDropCounters();
    for (let reason = 0; reason < all.length; reason++) all[reason] = outboundDrops[reason]! + inboundDrops[reason]!;
    // A packet that is held counts as dropped for want of an SA until it leaves.
    all[DropReason.noSa]! -= sending[SendCounter.held]! + sending[SendCounter.released]!;
    return all;
  }
}

/** Equal for SAs of a tunnel that carry the same packets. */
export function trafficKeyOf({ name, selectors }: Pick<ChildSummary, 'name' | 'selectors'>): string {
  return `${name} ${pairKey(selectors)}`;
}

function checkReplayWindow({ name, replayWindow }: TunnelConfig): void {
  if (Number.isInteger(replayWindow) && replayWindow >= MIN_REPLAY_WINDOW && replayWindow <= MAX_REPLAY_WINDOW) return;
  throw new RangeError(
    `tunnel ${name}: a replay window of ${MIN_REPLAY_WINDOW} to ${MAX_REPLAY_WINDOW} packets is required, not ${replayWindow}`,
  );
}

function checkOuter({ name, dscp, tfc }: TunnelConfig): void {
  if (dscp !== undefined && !isDscp(dscp)) {
    throw new RangeError(`tunnel ${name}: a DSCP from 0 to ${MAX_DSCP} is required, not ${dscp}`);
  }
  const problem = tfc && tfcProblem(tfc);
  if (problem !== undefined) throw new RangeError(`tunnel ${name}: ${problem}`);
}

/** A device cannot send in the clear, so a packet that may, for want of an SA, waits for one like any other. */
function strict(entry: PolicyEntry): PolicyEntry {
  return entry.level === 'use' ? { ...entry, level: 'require' } : entry;
}

function plansOf(config: TunnelConfig): ReadonlyMap<string, ChildPlan> {
  const plans = new Map<string, ChildPlan>();
  for (const connection of config.connections) {
    for (const child of connection.children) {
      if (plans.has(child.name)) throw new RangeError(`tunnel ${config.name} has two children named ${child.name}`);
      plans.set(child.name, { connection, child });
    }
  }
  for (const entry of config.policy) {
    if (entry.action === 'protect' && (entry.child === undefined || !plans.has(entry.child))) {
      throw new RangeError(`policy ${entry.name} of tunnel ${config.name} names no child that there is`);
    }
  }
  return plans;
}
