/**
 * Runs tunnels: from a document to a device, sockets and an engine that negotiates; follows what happens to them,
 * and tells it to the log, to listeners and to `status`.
 */
import { isDeepStrictEqual } from 'node:util';
import { allOf, eachOf } from '../base/each.ts';
import type { Logger } from '../base/log.ts';
import { messageOf } from '../base/text.ts';
import type { SectunnelDocument } from '../config/model.ts';
import type { TunnelEvent } from '../control/results.ts';
import type { CryptoProvider } from '../crypto/types.ts';
import type { EngineEvent } from '../engine/events.ts';
import type { ExplainFacts } from '../explain/explain.ts';
import { placesOfFailure } from '../explain/failure.ts';
import { httpFetch } from '../host/fetch.ts';
import { TunnelHost } from '../host/host.ts';
import { narrate } from '../host/narrate.ts';
import type { HostOptions } from '../host/options.ts';
import type { Platform } from '../host/platform.ts';
import type { PeerRouteReport } from '../host/reach/peer-routes.ts';
import { systemResolver } from '../host/resolve.ts';
import type { TunnelStatus, WorkersStatus } from '../host/status.ts';
import { type RunningFacts, tunnelState, tunnelStatus, tunnelTraffic } from '../host/status-view.ts';
import type { WorkerChoice } from '../host/workers/choice.ts';
import { routingWarnings } from '../hostnet/steering/rules.ts';
import type { HostView } from '../hostnet/view.ts';
import { type Fetch, OnlineRevocation } from '../pki/revocation/online.ts';
import { VerifierPool } from '../pki/threads/pool.ts';
import type { DevicePlan } from '../plan/device.ts';
import { planTunnel, secretOf, type TunnelPlan } from '../plan/plan.ts';
import type { Renewal } from '../plan/renewal.ts';
import { hostWarnings } from '../plan/warnings.ts';
import type { PacketDevice } from '../tun/device.ts';
import { refusingSystem } from './control/refusing.ts';
import { EventLog } from './event-log.ts';
import { explainFacts, viewOf } from './explain-facts.ts';
import { Installed } from './installed.ts';
import { closedBy } from './renewals.ts';
import { TunnelCertificates } from './secrets/certificates.ts';
import { concerns, describeReference, type SecretChange, type SecretSources } from './secrets/sources.ts';

export interface RunnerOptions {
  readonly platform: Platform;
  readonly crypto: CryptoProvider;
  /** The worker threads that carry packets; left out: the event loop carries them. */
  readonly workers?: WorkerChoice | undefined;
  readonly log: Logger;
  readonly secrets: SecretSources;
  /** Of revocation lists and OCSP answers; left out: over HTTP. */
  readonly fetch?: Fetch | undefined;
  readonly onEvent: (event: Omit<TunnelEvent, 'time'>) => void;
  /** The device of a tunnel was taken away: it is to be stopped. */
  readonly onLost: (name: string) => void;
  /** Of the daemon before this one, and for the next one. */
  readonly state: Pick<HostOptions, 'resumable' | 'inheritance'>;
}

/** How often the certificates of tunnels that run are looked at, milliseconds: they are warned of once a day. */
const CERTIFICATE_WATCH = 6 * 3_600_000;

interface RunningTunnel extends RunningFacts {
  readonly certificates: TunnelCertificates;
  readonly device: DevicePlan;
}

export class Runner {
  readonly host: TunnelHost;
  /** Asks about our own certificates, for `pki-check`; about those of peers the threads ask that judge them. */
  readonly online: OnlineRevocation;
  /** Shared by all tunnels, so that each fetches what another has not fetched. */
  readonly #verifiers: VerifierPool;
  readonly #options: RunnerOptions;
  readonly #log: Logger;
  readonly #events: EventLog;
  // BOUNDED: the tunnels that the administrator starts.
  readonly #running = new Map<string, RunningTunnel>();
  readonly #watch: NodeJS.Timeout;
  readonly #sleep: { close(): Promise<void> } | undefined;
  /** What stands of tunnels beside their devices. */
  readonly installed: Installed;

  constructor(options: RunnerOptions) {
    const { platform, crypto, workers } = options;
    this.#options = options;
    this.#log = options.log;
    this.#events = new EventLog(options.log, () => this.host.now());
    this.installed = new Installed(platform, options.log, options.onEvent);
    const fetch = options.fetch ?? httpFetch();
    const onFailure = (text: string): void => this.#log.warn({}, `revocation status unknown: ${text}`);
    this.online = new OnlineRevocation({ fetch, onFailure });
    this.#verifiers = new VerifierPool({
      fetch,
      onFailure,
      onTrouble: (text) => this.#events.write({ level: 'warn', text }),
    });
    this.host = new TunnelHost({
      network: platform.network,
      crypto,
      ...options.state,
      ...(platform.now === undefined ? {} : { now: platform.now }),
      allocate: platform.allocate,
      workers: workers !== undefined && workers.pairs > 0 ? workers : undefined,
      localAddressFor: (remote, vrf) => platform.localAddressFor(remote, vrf),
      pathMtuFor: (remote, local, vrf) => platform.pathMtuFor(remote, local, vrf),
      secretFor: ({ tunnel }) => this.#secretFor(tunnel),
      onSecretRead: (secret) => void secret.fill(0),
      credentialsFor: ({ tunnel, localId }) => this.#running.get(tunnel)?.certificates.credentials(Date.now(), localId),
      verifierFor: (tunnel) => this.#running.get(tunnel)?.certificates.verifier(),
      ...(platform.routeToPeer === undefined
        ? {}
        : { routeToPeer: (remote, local, vrf) => platform.routeToPeer?.(remote, local, vrf) }),
      onPeerRoute: (report) => this.#peerRouteChanged(report),
      onEvent: (event) => this.#happened(event),
      onDeviceLost: (tunnel, reason) => this.#lost(tunnel, reason),
      // All of them are ours: what they throw is a bug, which is to end the process as any other.
      onError: (error) => {
        setImmediate(() => {
          throw error;
        });
      },
    });
    platform.watchNetwork?.(() => this.host.networkChanged());
    this.#sleep = platform.watchSleep?.((asleep) => this.#woke(asleep));
    this.#watch = setInterval(() => {
      for (const { certificates } of this.#running.values()) void certificates.look(Date.now());
    }, CERTIFICATE_WATCH).unref();
  }

  get cryptoName(): string {
    return this.#options.crypto.name;
  }

  /** Whether a document can run here. @throws SectunnelError when not: better now than later in the log */
  async check(document: SectunnelDocument): Promise<TunnelPlan> {
    return await this.#plan(document, this.#certificates(document));
  }

  async #plan(document: SectunnelDocument, certificates: TunnelCertificates): Promise<TunnelPlan> {
    const { platform, secrets } = this.#options;
    const plan = await planTunnel(document, {
      resolve: systemResolver,
      pathMtuFor: (remote, local, vrf) => platform.pathMtuFor(remote, local, vrf),
      rawEsp: platform.network.rawEsp !== undefined,
      certificates: await certificates.check(Date.now()),
    });
    const secret = secretOf(document);
    if (plan.tunnel.connections.length > 0 && secret !== undefined) (await secrets.value(secret)).value.fill(0);
    return plan;
  }

  #certificates(document: SectunnelDocument): TunnelCertificates {
    const { name } = document;
    const warn = (text: string): void => this.#log.warn({ tunnel: name }, text);
    const judges = { online: this.online, verifier: this.#verifiers.verifier.bind(this.#verifiers) };
    return new TunnelCertificates(document, this.#options.secrets, judges, warn);
  }

  /** @returns the name of the device. @throws SectunnelError when the tunnel cannot run here */
  async start(document: SectunnelDocument): Promise<string> {
    const { name } = document;
    const certificates = this.#certificates(document);
    const plan = await this.#plan(document, certificates);
    for (const text of plan.device.routing === undefined ? [] : routingWarnings(plan.device.routing)) {
      this.#log.warn({ tunnel: name }, text);
    }
    return await this.#begin(document, certificates, plan);
  }

  async #begin(document: SectunnelDocument, certificates: TunnelCertificates, plan: TunnelPlan): Promise<string> {
    const { name } = document;
    const device = await this.#open(name, plan);
    this.#running.set(name, {
      document,
      certificates,
      device: plan.device,
      secret: undefined,
      lastFailure: undefined,
      declined: new Set(),
    });
    try {
      await refusingSystem(() => this.host.add(plan.tunnel, device));
    } catch (error) {
      this.#running.delete(name);
      await device.close();
      await this.installed.failed(name);
      throw error;
    }
    this.installed.started(name);
    this.#log.info({ tunnel: name, device: device.name, mtu: device.mtu }, 'tunnel started');
    return device.name;
  }

  async #open(name: string, { device }: TunnelPlan): Promise<PacketDevice> {
    const { platform, workers } = this.#options;
    try {
      return await refusingSystem(() => platform.openDevice({ queues: workers?.pairs ?? 1, ...device }));
    } catch (error) {
      await this.installed.failed(name);
      throw error;
    }
  }

  /**
   * A tunnel that runs goes on with another document, on the device that it has. SAs that are to be rekeyed are not yet.
   * @throws SectunnelError with the former document in effect
   */
  async change(document: SectunnelDocument, renewal: Renewal): Promise<void> {
    const { name } = document;
    const former = this.#running.get(name)!;
    const certificates = this.#certificates(document);
    const { tunnel, device } = await this.#plan(document, certificates);
    // Peers may be authenticated anew at once.
    this.#running.set(name, { ...former, document, certificates, device });
    const isSteered = !isDeepStrictEqual(device.routing, former.device.routing);
    try {
      if (isSteered) await this.#steer(device);
      await refusingSystem(() => this.host.change(tunnel, closedBy(renewal)));
    } catch (error) {
      this.#running.set(name, former);
      if (isSteered) await this.#steer(former.device).catch((again) => this.#notSteered(name, again));
      throw error;
    }
    this.#log.info({ tunnel: name }, 'the tunnel goes on with another document');
  }

  /** Rules and routes of children of level `use` follow what is up. */
  async #steer(device: DevicePlan): Promise<void> {
    await refusingSystem(async () => this.#options.platform.steer?.(device));
    const running = this.host.engine.tunnel(device.tunnel);
    if (running !== undefined) this.installed.childChanged(running);
  }

  #notSteered(tunnel: string, error: unknown): void {
    this.#log.error({ tunnel }, `the rules of the former document could not be put back: ${messageOf(error)}`);
  }

  /**
   * It runs no longer, also where that fails in part.
   * @param retry the tunnel is to run again: its fence and routing stay installed
   */
  async stop(name: string, { retry = false }: { readonly retry?: boolean } = {}): Promise<void> {
    await allOf(
      () => this.host.remove(name),
      () => this.#running.delete(name),
      () => this.#events.forget(name),
      () => (retry ? this.installed.keepForRetry(name) : this.installed.release(name)),
    );
    this.#log.info({ tunnel: name }, 'tunnel stopped');
  }

  /**
   * Stops all tunnels and tells their peers; with `leave` it tells only the next daemon. What keeps their packets from passing
   * in the clear stays.
   */
  async close(leave?: (state: Uint8Array) => void): Promise<void> {
    clearInterval(this.#watch);
    this.#events.close();
    const names = [...this.#running.keys()];
    await allOf(
      () => this.#sleep?.close(),
      async () => (leave === undefined ? this.host.close() : leave(await this.host.handOver())),
      () => this.#verifiers.close(),
      () =>
        leave === undefined ? eachOf(names, (name) => this.installed.keepForRetry(name)) : this.installed.expect(names),
      () => this.installed.close(),
    );
    this.#running.clear();
  }

  status(name: string): TunnelStatus | undefined {
    const facts = this.#running.get(name);
    if (facts === undefined) return undefined;
    const status = tunnelStatus(this.host, facts);
    const redundancy = facts.document.sa.redundancy;
    const group = redundancy && {
      group: redundancy.group,
      preference: redundancy.preference,
      carrier: this.installed.carrier(name),
    };
    return {
      ...status,
      degraded: this.degraded(name),
      redundancy: group,
      drops: { ...status.drops, ...this.installed.drops(name) },
    };
  }

  /** As in the status, of a tunnel that runs. */
  state(name: string): TunnelStatus['state'] | undefined {
    return this.#running.has(name) ? tunnelState(this.host.engine, name) : undefined;
  }

  /** Bytes of the CHILD SAs that a tunnel has, in both directions. */
  traffic(name: string): number {
    return tunnelTraffic(this.host.engine, name);
  }

  /** What a tunnel needs of this host and does not have, a sentence each. */
  degraded(name: string): readonly string[] {
    return [...this.host.degraded(name), ...this.installed.degraded(name)];
  }

  /** A network namespace, as far as it can be looked at. @param netns left out: that of the daemon's sockets */
  view(netns?: string): HostView | undefined {
    return this.#options.platform.view?.(netns);
  }

  /** What the policy of a document does to this host as it is now. */
  hostWarnings(document: SectunnelDocument): string[] {
    return hostWarnings(document, viewOf(this.#options.platform, document));
  }

  /** What `explain` looks at: the tunnel of a document, if it runs, and what stands around it. */
  explainFacts(document: SectunnelDocument): ExplainFacts {
    const { platform } = this.#options;
    return explainFacts(document, { platform, host: this.host, installed: this.installed, running: this.#running });
  }

  /** How packets are carried. */
  workers(): WorkersStatus {
    const { text } = this.#options.workers ?? { text: 'inline' };
    return { mode: text, threads: this.host.workers() ?? [] };
  }

  /** Asked at each authentication, so that a secret that was changed is used at the next one. */
  async #secretFor(name: string): Promise<Uint8Array | undefined> {
    const facts = this.#running.get(name);
    const secret = facts && secretOf(facts.document);
    if (facts === undefined || secret === undefined) return undefined;
    const told = describeReference(secret);
    try {
      const { value, source } = await this.#options.secrets.value(secret);
      facts.secret = { name: told, source, problem: undefined };
      return value;
    } catch (error) {
      facts.secret = { name: told, source: undefined, problem: messageOf(error) };
      throw error;
    }
  }

  /** Tunnels that wait for their next attempt may fare better with a secret that has changed: they try at once. */
  secretChanged(change: SecretChange): void {
    for (const [name, { document }] of this.#running) {
      if (!concerns(document, change)) continue;
      this.#events.forget(name);
      if (change !== undefined) {
        const text = `secret ${change.uuid} has changed; the next authentication uses it`;
        this.#log.info({ tunnel: name }, text);
        this.#options.onEvent({ tunnel: name, event: 'secret-changed', detail: text });
      }
      if (this.host.engine.tunnel(name)?.retry.at === undefined) continue;
      this.host.engine.up(this.host.now(), name);
      this.host.drain();
    }
  }

  /** Peers may have deleted our SAs meanwhile, and the network may be another one. */
  #woke(asleep: number): void {
    const text = `this host slept for ${Math.round(asleep / 1_000)} s: checking that all peers are alive`;
    this.#log.info({}, text);
    this.host.probe();
  }

  #peerRouteChanged({ tunnel, level, text, event }: PeerRouteReport): void {
    this.#events.write({ level, tunnel, text });
    if (event !== undefined) this.#options.onEvent({ tunnel, event, detail: text });
  }

  #lost(name: string, reason: Error): void {
    this.#log.error({ tunnel: name }, `the device was removed, the tunnel is stopped: ${reason.message}`);
    this.#options.onLost(name);
  }

  #happened(event: EngineEvent): void {
    if ('requestId' in event) return;
    const { tunnel } = event;
    const facts = tunnel === undefined ? undefined : this.#running.get(tunnel);
    if (event.type === 'declined' && facts !== undefined) {
      if (facts.declined.has(event.capability)) return;
      facts.declined.add(event.capability);
    }
    const inDocument = event.type === 'failed' && facts !== undefined ? placesOfFailure(event, facts.document) : [];
    const { level, text, fields, event: published } = narrate(event, inDocument);
    if (event.type === 'failed' && tunnel !== undefined) {
      this.#events.failed({ level, tunnel, fields, text });
    } else this.#events.write({ level, tunnel, fields, text });
    if (tunnel === undefined) return;
    if (event.type === 'child-up') this.#events.forget(tunnel);
    if (event.type === 'failed' && facts !== undefined) {
      facts.lastFailure = { at: this.host.now(), reason: event.reason, detail: event.detail, inDocument };
    }
    if (event.type === 'child-up' || event.type === 'child-down') {
      const running = this.host.engine.tunnel(tunnel);
      if (running !== undefined) this.installed.childChanged(running);
    }
    if (published !== undefined) this.#options.onEvent({ tunnel, event: published, detail: text });
  }
}
