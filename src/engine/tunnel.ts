/**
 * One tunnel within an engine: its policy, the SAs that carry it, the packets that wait for one, and what is done to
 * bring it up.
 */
import type { PacketBatch } from '../base/batch.ts';
import { type DropCounters, DropReason, newDropCounters } from '../esp/drops.ts';
import type { EspInboundSa } from '../esp/inbound-sa.ts';
import { OutboundPipeline } from '../esp/outbound.ts';
import type { EspOutboundSa } from '../esp/outbound-sa.ts';
import { MAX_REPLAY_WINDOW, MIN_REPLAY_WINDOW } from '../esp/replay.ts';
import type { ChildConfig, ConnectionConfig } from '../ike/config.ts';
import type { Path } from '../ike/events.ts';
import { TokenBucket } from '../ike/rate-limit.ts';
import { type CompiledPolicy, compilePolicy, type PolicyEntry } from '../policy/database.ts';
import type { Flow } from '../policy/flow.ts';
import { FragmentTracker } from '../policy/fragments.ts';
import type { TunnelConfig } from './config.ts';
import type { ChildSummary } from './events.ts';
import { HoldQueue } from './hold.ts';
import { Retry } from './retry.ts';

/** A CHILD SA as the engine holds it: both halves of ESP, and what IKE said of it. */
export interface EngineChild {
  readonly summary: ChildSummary;
  readonly tunnel: Tunnel;
  readonly inbound: EspInboundSa;
  readonly outbound: EspOutboundSa;
  readonly pathIndex: number;
  readonly installedAt: number;
  /** Changes when the IKE SA is rekeyed. */
  ikeSaId: number;
  /** Changes when the peer moves. */
  path: Path;
  /** Of outer packets on the path; `undefined` while nothing is known of it. */
  pathMtu: number | undefined;
}

/** Messages to senders of packets that were too large: a second's, and those at once (RFC 1812 §4.3.2.8). */
const TOO_BIG_PER_SECOND = 100;
const TOO_BIG_BURST = 50;

export interface TunnelHooks {
  /** An outbound packet needs an SA of this child and there is none; `hold` it if it may wait. */
  readonly onMissing: (tunnel: Tunnel, plan: ChildPlan, batch: PacketBatch, slot: number) => void;
  /** An outbound packet is larger than `mtu`, which is what its path takes, and is dropped. */
  readonly onTooBig: (tunnel: Tunnel, batch: PacketBatch, slot: number, flow: Flow, mtu: number) => void;
}

/** `always`: attempt after attempt; `packet`: when a packet needs it; `none`: left to the peer. */
export type PursuitMode = 'always' | 'packet' | 'none';

/** A child of the configuration together with its connection. */
export interface ChildPlan {
  readonly connection: ConnectionConfig;
  readonly child: ChildConfig;
  /** When IKE was last asked for it on account of a packet. */
  askedAt: number;
}

export class Tunnel {
  readonly index: number;
  readonly config: TunnelConfig;
  readonly outbound: OutboundPipeline;
  readonly hold: HoldQueue;
  readonly retry: Retry;
  /** Drops of packets that came in on SAs that are gone. */
  readonly inboundDrops: DropCounters = newDropCounters();
  /** Keyed by child id. BOUNDED: IKE bounds the children of an IKE SA, and the IKE SAs. */
  readonly children: Map<number, EngineChild> = new Map();
  /** Holds off messages about packets that were too large. */
  readonly tooBigLimit: TokenBucket = new TokenBucket(TOO_BIG_PER_SECOND, TOO_BIG_BURST);
  wanted = false;
  pursuit: PursuitMode = 'none';
  readonly #policy: CompiledPolicy;
  /** By name of the child. BOUNDED: the configuration. */
  readonly #plans: ReadonlyMap<string, ChildPlan>;

  constructor(index: number, config: TunnelConfig, fragmentSeed: number, hooks: TunnelHooks) {
    this.index = index;
    this.config = config;
    this.hold = new HoldQueue(config.hold);
    this.retry = new Retry(config.retry);
    checkReplayWindow(config);
    this.#plans = plansOf(config);
    this.#policy = compilePolicy(config.policy.map(strict), 'out');
    this.outbound = new OutboundPipeline(this.#policy, {
      fragments: new FragmentTracker({ seed: fragmentSeed }),
      onMissing: (entryIndex, batch, slot) => {
        const plan = this.#planOf(entryIndex);
        if (plan !== undefined) hooks.onMissing(this, plan, batch, slot);
      },
      onTooBig: (batch, slot, flow, mtu) => hooks.onTooBig(this, batch, slot, flow, mtu),
    });
  }

  get plans(): Iterable<ChildPlan> {
    return this.#plans.values();
  }

  /** Indexes of the outbound entries that a child carries. */
  entriesOf(childName: string): number[] {
    const indexes: number[] = [];
    for (const [index, entry] of this.#policy.entries.entries()) if (entry.child === childName) indexes.push(index);
    return indexes;
  }

  /** Children of the configuration that have no SA. */
  missing(): ChildPlan[] {
    const up = new Set([...this.children.values()].map((child) => child.summary.name));
    return [...this.plans].filter(({ child }) => !up.has(child.name));
  }

  /** Packets that were not carried, by reason; those that waited in vain included. */
  drops(): DropCounters {
    const all = newDropCounters();
    for (let reason = 0; reason < all.length; reason++) {
      all[reason] = this.outbound.drops[reason]! + this.inboundDrops[reason]!;
      for (const { inbound } of this.children.values()) all[reason]! += inbound.drops[reason]!;
    }
    // A packet that is held counts as dropped for want of an SA until it leaves.
    all[DropReason.noSa]! -= this.hold.length + this.hold.released;
    return all;
  }

  #planOf(entryIndex: number): ChildPlan | undefined {
    const name = this.#policy.entries[entryIndex]?.child;
    return name === undefined ? undefined : this.#plans.get(name);
  }
}

function checkReplayWindow({ name, replayWindow }: TunnelConfig): void {
  if (Number.isInteger(replayWindow) && replayWindow >= MIN_REPLAY_WINDOW && replayWindow <= MAX_REPLAY_WINDOW) return;
  throw new RangeError(
    `tunnel ${name}: a replay window of ${MIN_REPLAY_WINDOW} to ${MAX_REPLAY_WINDOW} packets is wanted, not ${replayWindow}`,
  );
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
      plans.set(child.name, { connection, child, askedAt: Number.NEGATIVE_INFINITY });
    }
  }
  for (const entry of config.policy) {
    if (entry.action === 'protect' && (entry.child === undefined || !plans.has(entry.child))) {
      throw new RangeError(`policy ${entry.name} of tunnel ${config.name} names no child that there is`);
    }
  }
  return plans;
}
