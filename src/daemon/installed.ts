/**
 * What is installed on the host for tunnels beside their devices, the fence and the policy routing, and for how long: while a
 * tunnel runs, and while it is waiting to retry, so that no packet passes in the clear meanwhile. It persists when the daemon
 * ends, in order or not.
 */

import { allOf, eachOf } from '../base/each.ts';
import { SectunnelError } from '../base/error.ts';
import type { Logger } from '../base/log.ts';
import { messageOf } from '../base/text.ts';
import type { SectunnelDocument } from '../config/model.ts';
import type { TunnelEvent } from '../control/results.ts';
import type { Tunnel } from '../engine/tunnel.ts';
import type { Platform } from '../host/platform.ts';
import type { LookScope } from '../hostnet/fence/fence.ts';
import type { RoutingPlan } from '../hostnet/steering/plan.ts';
import type { KernelReport } from '../hostnet/watch/watch.ts';
import { installedTunnel, unresolvedDevicePlan } from '../plan/device.ts';
import { DampedLog } from './damped-log.ts';

/** How often fences, rules and routes are compared though no change was heard of, in milliseconds. */
const WATCH = 30_000;
/** The same where there is so much that it would take more than a two-hundredth of the time: as a multiple of how long it takes, and at most. */
const WATCH_FACTOR = 200;
const LONGEST_WATCH = 300_000;
const STAYS =
  'the fences and rules of tunnels that ran stay in place: the packets they protect are dropped until the next daemon starts ' +
  "them. 'sectunnel release' removes everything";

export class Installed {
  readonly #platform: Platform;
  readonly #log: Logger;
  readonly #onEvent: (event: Omit<TunnelEvent, 'time'>) => void;
  /** Tunnels that do not run now and are to run again. BOUNDED: by the tunnels. */
  readonly #retrying = new Set<string>();
  /** Tunnels that are not to run, and of which something stands still. BOUNDED: by the tunnels. */
  readonly #unreleased = new Set<string>();
  /** What a daemon before this one left could not be looked through yet. */
  #mustReconcile = false;
  #watch: NodeJS.Timeout | undefined;
  #closed = false;
  readonly #damped = new DampedLog();

  /** @param onEvent is called with what a tunnel lacks from now on, or no longer lacks */
  constructor(platform: Platform, log: Logger, onEvent: (event: Omit<TunnelEvent, 'time'>) => void = () => undefined) {
    this.#platform = platform;
    this.#log = log;
    this.#onEvent = onEvent;
    platform.watch?.((report) => this.#changed(report));
    this.#planWatch(WATCH);
  }

  #planWatch(pause: number): void {
    if (this.#closed) return;
    this.#watch = setTimeout(async () => {
      const began = performance.now();
      await this.look('everything');
      const took = performance.now() - began;
      this.#planWatch(Math.min(Math.max(WATCH, took * WATCH_FACTOR), LONGEST_WATCH));
    }, pause).unref();
  }

  /** Another program changed something, or it could not be put right. */
  #changed({ level, text, tunnel, netns, kind, event }: KernelReport): void {
    if (event !== undefined && tunnel !== undefined) this.#onEvent({ tunnel, event, detail: text });
    const write = (line: string): void =>
      this.#log[level]({ ...(tunnel && { tunnel }), ...(netns && { netns }) }, line);
    if (kind === undefined) write(text);
    else this.#damped.add(kind, text, write);
  }

  /** These are to run as soon as they can: what stands of them stays. */
  expect(names: Iterable<string>): void {
    for (const name of names) this.#retrying.add(name);
  }

  /**
   * Takes over what a daemon before this one, or `sectunneld --raise`, left of tunnels which are to run, and takes the rest of
   * it away.
   * @param unreadable names of tunnels that are to run and of which no document can be read: what stands of them stays
   */
  async reconcile(documents: readonly SectunnelDocument[], unreadable: Iterable<string> = []): Promise<void> {
    const unknown = [...unreadable].map((tunnel) => ({ tunnel, routing: undefined, netns: undefined }));
    try {
      await this.#platform.reconcile?.([
        ...documents.flatMap((document) => installedTunnel(document) ?? []),
        ...unknown,
      ]);
      this.#mustReconcile = false;
    } catch (error) {
      this.#mustReconcile = true;
      this.#log.warn({}, `what an earlier daemon installed could not be checked: ${messageOf(error)}`);
    }
  }

  /**
   * These are about to be started unasked: nothing that their fences are for is to pass in the clear from now on. `raise` adds
   * the rules of each.
   */
  async raiseFences(documents: readonly SectunnelDocument[]): Promise<void> {
    this.expect(documents.map(({ name }) => name));
    const problems = await this.#platform.raiseFences?.(documents.map(unresolvedDevicePlan));
    for (const [tunnel, problem] of problems ?? []) {
      this.#log.warn({ tunnel }, `the fence could not be installed: ${messageOf(problem)}`);
    }
  }

  /** It is about to be started unasked, and to be tried again if it cannot: nothing is to pass in the clear until then. */
  async raise(document: SectunnelDocument): Promise<void> {
    this.#retrying.add(document.name);
    try {
      await this.#platform.raise?.(unresolvedDevicePlan(document));
    } catch (error) {
      this.#log.warn(
        { tunnel: document.name },
        `fence and rules could not be installed completely: ${messageOf(error)}`,
      );
    }
  }

  /** Whether a tunnel does not run now and is to run again. */
  isRetrying(name: string): boolean {
    return this.#retrying.has(name);
  }

  /** What stands of a tunnel that does not run now and is to run again. */
  routingOf(document: SectunnelDocument): RoutingPlan | undefined {
    return this.#retrying.has(document.name) ? unresolvedDevicePlan(document).routing : undefined;
  }

  /** It stopped, and is to run again. None of its children has an SA: those of level `use` are not led any more. */
  keepForRetry(name: string): void {
    this.#retrying.add(name);
    this.#childrenUp(name, new Set());
  }

  started(name: string): void {
    this.#retrying.delete(name);
    this.#unreleased.delete(name);
  }

  /** It could not start: what stood before stays. */
  async failed(name: string): Promise<void> {
    if (this.#retrying.has(name)) return;
    try {
      await this.release(name);
    } catch (error) {
      this.#log.error({ tunnel: name }, messageOf(error));
    }
  }

  /**
   * It is not to run any more.
   * @throws SectunnelError when something of it stands still, which `releaseAgain` sees to
   */
  async release(name: string): Promise<void> {
    this.#retrying.delete(name);
    try {
      await this.#platform.release?.(name);
      this.#unreleased.delete(name);
    } catch (error) {
      this.#unreleased.add(name);
      throw new SectunnelError(
        'system',
        `the fence and rules of tunnel ${name} could not be removed: ${messageOf(error)}. ` +
          'What remains drops the packets that its policy protects; the daemon keeps trying to remove it',
      );
    }
  }

  /** Does what could not be done before. Nothing may be started or stopped meanwhile. Parameters as of `reconcile`. */
  async repeat(documents: readonly SectunnelDocument[], unreadable: Iterable<string> = []): Promise<void> {
    for (const name of [...this.#unreleased]) {
      if (this.#retrying.has(name)) this.#unreleased.delete(name);
      else if (
        await this.release(name).then(
          () => true,
          () => false,
        )
      ) {
        this.#log.info({ tunnel: name }, 'fence and rules are removed now');
      }
    }
    if (!this.#mustReconcile) return;
    await this.reconcile(
      documents.filter(({ name }) => this.#retrying.has(name)),
      unreadable,
    );
  }

  /**
   * The daemon ends. What stands of tunnels that are to run again stays for the next one; what could not be released before is
   * tried once more.
   */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#watch);
    if (this.#retrying.size > 0) this.#log.info({ tunnels: [...this.#retrying] }, STAYS);
    await allOf(
      () => eachOf([...this.#unreleased], (name) => this.release(name)),
      () => this.#platform.close?.(),
      () => this.#damped.close(),
    );
  }

  /** Has the system compared with what is wanted. */
  async look(scope: LookScope): Promise<void> {
    try {
      await this.#platform.look?.(scope);
    } catch (error) {
      this.#log.warn({}, `the fence could not be checked: ${messageOf(error)}`);
    }
  }

  /** A child SA came or went. */
  childChanged(tunnel: Tunnel): void {
    const names = [...tunnel.plans].map(({ child }) => child.name);
    this.#childrenUp(tunnel.config.name, new Set(names.filter((name) => tunnel.sasOf(name) > 0)));
  }

  #childrenUp(tunnel: string, up: ReadonlySet<string>): void {
    const before = this.carrier(tunnel);
    try {
      this.#platform.childrenUp?.(tunnel, up);
    } catch (error) {
      this.#log.warn({ tunnel }, `rules could not be changed: ${messageOf(error)}`);
    }
    const after = this.carrier(tunnel);
    if (after === before) return;
    const text = `now carries the packets of its redundancy group, instead of ${before}`;
    this.#log.warn({ tunnel: after }, text);
    this.#onEvent({ tunnel: after, event: 'carries', detail: text });
  }

  /** Which tunnel of its redundancy group carries the packets that this one is for; itself where it is in none. */
  carrier(tunnel: string): string {
    return this.#platform.carrier?.(tunnel) ?? tunnel;
  }

  /** What of fence, rules and routes is not as it should be and could not be put right, a sentence each. */
  degraded(name: string): readonly string[] {
    return this.#platform.degraded?.(name) ?? [];
  }

  /** Packets that the fence dropped, by reason. */
  drops(name: string): Record<string, number> {
    const counters = Object.entries(this.#platform.fenceDrops?.(name) ?? {});
    return Object.fromEntries(counters.filter(([, count]) => count > 0).map(([reason, n]) => [`fence-${reason}`, n]));
  }
}
