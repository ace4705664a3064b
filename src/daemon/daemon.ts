/**
 * The daemon: definitions, running tunnels and secrets, with the rules of libvirt's own objects. An object is
 * persistent when the configuration folder has its document, active when it runs; undefining one that is active makes it
 * transient, and a transient one is gone when it stops.
 */
import { join } from 'node:path';
import { allOf, eachAtOnce } from '../base/each.ts';
import { SectunnelError } from '../base/error.ts';
import type { Logger } from '../base/log.ts';
import { Turns } from '../base/turns.ts';
import type { SectunnelDocument } from '../config/model.ts';
import type { ReloadResult, TunnelEvent } from '../control/results.ts';
import type { CryptoProvider } from '../crypto/types.ts';
import type { Inheritance } from '../engine/state/inheritance.ts';
import type { Platform } from '../host/platform.ts';
import type { WorkerChoice } from '../host/workers/choice.ts';
import type { Fetch } from '../pki/revocation/online.ts';
import { Activation } from './activation.ts';
import { Advice } from './advice.ts';
import { Autostart } from './autostart.ts';
import { Changes } from './changes.ts';
import { Queries } from './control/queries.ts';
import { EachTunnel } from './each.ts';
import { HeldNetworks } from './networks/networks.ts';
import { type HoldingTunnel, holdingTunnel } from './networks/plan.ts';
import { planReload, type ReloadParts, reloadDefinitions } from './reload.ts';
import { Runner } from './runner.ts';
import { SaRequests } from './sa-requests.ts';
import { SECRETS_USE, SecretStore } from './secrets/secrets.ts';
import { concerns, type SecretChange, SecretSources } from './secrets/sources.ts';
import { SharedRun } from './shared-run.ts';
import { Catalog } from './store/catalog.ts';
import { logEmpty, makeFolderIfPossible, visibleFolder } from './store/files.ts';
import { logLeftovers } from './store/replace-file.ts';
import { StateFile } from './store/state-file.ts';
import { within } from './within.ts';

export interface DaemonOptions {
  readonly configDir: string;
  readonly runDir: string;
  readonly platform: Platform;
  readonly crypto: CryptoProvider;
  readonly workers?: WorkerChoice | undefined;
  /** It may hand its state over to the next one when it ends. */
  readonly handsOver?: boolean;
  /** Of revocation lists and OCSP answers; left out: over HTTP. */
  readonly fetch?: Fetch | undefined;
  /** Sockets of libvirt's daemons, where secrets are looked for that are not in the own folder; none when left out. */
  readonly libvirtSockets?: readonly string[];
  readonly log: Logger;
  readonly onEvent: (event: TunnelEvent) => void;
}

/** Milliseconds that a network waits for its tunnel to start. */
const NETWORK_PATIENCE = 1_000;
/** Milliseconds after which what no tunnel has taken of the state of the daemon before this one is erased. */
const INHERITANCE_PATIENCE = 60_000;
/** Milliseconds between attempts to remove what could not be removed before. */
const REPEAT = 30_000;
/**
 * Changes of tunnels that run at the same time, and how many of them may be starts without a request. What waits for the kernel or
 * the disk, such as the fences, is done for many at once; the rest comes one in a round of the event loop.
 */
const CHANGES_AT_ONCE = 128;
const STARTS_AT_ONCE = 96;
/** Milliseconds after which the daemon is ready though not all tunnels that are to run have started: their fences are up. */
const READY_PATIENCE = 1_000;
const UNREADABLE =
  'none of the documents of this tunnel can be read: it is not started, and its fence stays in place. ' +
  "Correct the document and run 'sectunnel reload', or remove the fence with 'sectunnel destroy'";

export class Daemon {
  readonly secrets: SecretSources;
  readonly runner: Runner;
  readonly networks: HeldNetworks;
  readonly queries: Queries;
  readonly changes: Changes;
  readonly each: EachTunnel;
  readonly sas: SaRequests;
  readonly #log: Logger;
  readonly #onEvent: DaemonOptions['onEvent'];
  /** The folder of the control socket. */
  readonly runDir: string;
  readonly #catalog: Catalog;
  readonly #autostart: Autostart;
  readonly #activation: Activation;
  readonly #reload: SharedRun<ReloadResult>;
  readonly #reloadPlan: SharedRun<ReloadResult>;
  /** Tunnels to start for which no attempt was made yet: one that is stopped before is not started. BOUNDED: by the objects. */
  readonly #untried = new Set<string>();
  readonly #secretsDir: string;
  readonly #stateFile: StateFile;
  #handsOver: boolean;
  #inheritance: Inheritance | undefined;
  #inheritanceEnd: NodeJS.Timeout | undefined;
  #repeat: NodeJS.Timeout | undefined;
  #ending = false;
  readonly #turns = new Turns(CHANGES_AT_ONCE);

  constructor(options: DaemonOptions) {
    this.#log = options.log;
    this.#onEvent = options.onEvent;
    this.runDir = options.runDir;
    this.#catalog = new Catalog(options.configDir, options.runDir, options.log);
    this.#autostart = new Autostart((name) => this.#startUnasked(name), options.log);
    this.#secretsDir = join(options.configDir, 'secrets');
    this.#stateFile = new StateFile(options);
    this.#handsOver = options.handsOver ?? false;
    this.secrets = new SecretSources({
      own: new SecretStore(this.#secretsDir),
      libvirtSockets: options.libvirtSockets ?? [],
      onChanged: (change) => this.#secretChanged(change),
    });
    this.runner = new Runner({
      platform: options.platform,
      crypto: options.crypto,
      workers: options.workers,
      log: options.log,
      secrets: this.secrets,
      fetch: options.fetch,
      onEvent: (event) => this.#publish(event),
      onLost: (name) => void this.#turns.run(name, () => this.#lost(name)),
      state: { resumable: this.#handsOver, inheritance: () => this.#inheritance },
    });
    this.networks = new HeldNetworks({
      platform: options.platform,
      tunnels: {
        find: (name) => this.#holding(name),
        wanted: (name) => this.#autostart.attempt(name, NETWORK_PATIENCE),
        state: (name) => this.queries.stateOf(name),
      },
      libvirtSockets: options.libvirtSockets ?? [],
      log: options.log,
    });
    const { runner, networks, secrets } = this;
    const shared = { catalog: this.#catalog, autostart: this.#autostart, runner, networks };
    this.#activation = new Activation({ ...shared, log: options.log, publish: (event) => this.#publish(event) });
    this.queries = new Queries({ ...shared, secrets });
    this.sas = new SaRequests(shared);
    const advice = new Advice({ catalog: this.#catalog, runner, secrets });
    this.changes = new Changes({
      ...shared,
      activation: this.#activation,
      advice,
      turns: this.#turns,
      publish: (event) => this.#publish(event),
    });
    this.each = new EachTunnel({
      ...{ catalog: this.#catalog, changes: this.changes, log: options.log },
      isRetrying: (name) => runner.installed.isRetrying(name),
      isEnding: () => this.#ending,
    });
    const reloadParts: ReloadParts = {
      ...{ ...shared, advice, log: options.log },
      isRetrying: (name) => runner.installed.isRetrying(name),
      publish: (event) => this.#publish(event),
    };
    this.#reload = new SharedRun(() => this.#turns.alone(() => reloadDefinitions(reloadParts)));
    this.#reloadPlan = new SharedRun(() => this.#turns.alone(() => planReload(reloadParts)));
  }

  /** Reads the definitions and starts what is to be started. */
  async open(): Promise<void> {
    this.#catalog.load();
    this.#lookAtSecrets();
    this.#inherit();
    this.#repeat = setInterval(() => void this.#turns.alone(() => this.#repeatFailed()), REPEAT).unref();
    const { unreadable } = this.#catalog;
    for (const name of unreadable) this.#log.error({ tunnel: name }, UNREADABLE);
    this.runner.installed.expect([...unreadable, ...this.#catalog.wanted().map(({ name }) => name)]);
    // Requests wait meanwhile: a tunnel can be stopped only when it is known what is installed for it.
    const wanted = await this.#turns.alone(() => this.#raiseWanted());
    // libvirt's daemons may be started only when this one is ready: what needs their secrets is not waited for.
    const later = wanted.filter((document) => this.secrets.needsLibvirt(document));
    const now = wanted.filter((document) => !later.includes(document));
    await within(READY_PATIENCE, this.#begin(now));
    void this.#begin(later);
  }

  /** Fewer at the same time than changes may run: requests have their turn meanwhile. */
  #begin(documents: readonly SectunnelDocument[]): Promise<void> {
    return eachAtOnce(documents, STARTS_AT_ONCE, async ({ name }) => {
      if (!this.#ending) await this.#autostart.begin(name);
    });
  }

  /**
   * Installs the fences first: before a tunnel is started, however long that takes, no protected packet passes in the clear.
   * @returns the documents of the tunnels that are to run
   */
  async #raiseWanted(): Promise<readonly SectunnelDocument[]> {
    const holding = await this.networks.open();
    const documents = [
      ...this.#catalog.wanted(),
      ...holding.flatMap((name) => this.#catalog.documentToStart(name) ?? []),
    ];
    const wanted = [...new Map(documents.map((document) => [document.name, document])).values()];
    this.runner.installed.expect(wanted.map(({ name }) => name));
    await this.runner.installed.reconcile(wanted, this.#catalog.unreadable);
    await this.runner.installed.raiseFences(wanted);
    for (const { name } of wanted) this.#untried.add(name);
    return wanted;
  }

  /** Goes on with what the daemon before this one left, and sees whether this one can leave its own. */
  #inherit(): void {
    this.#inheritance = this.#stateFile.take();
    if (this.#inheritance !== undefined) {
      const { size: connections } = this.#inheritance;
      this.#log.info({ connections }, 'going on with the SAs that the daemon before this one left');
      this.#inheritanceEnd = setTimeout(() => this.#endInheritance(), INHERITANCE_PATIENCE).unref();
    }
    if (!this.#handsOver) return;
    try {
      this.#stateFile.prepare();
    } catch (error) {
      if (!(error instanceof SectunnelError)) throw error;
      this.#handsOver = false;
      this.#log.warn({}, `SAs cannot be handed over to the next daemon, they will be deleted: ${error.message}`);
    }
  }

  /** Forgets what no tunnel has taken: its keys are not to stay. */
  #endInheritance(): void {
    const { size: connections = 0 } = this.#inheritance ?? {};
    this.#inheritance?.end();
    if (connections === 0) return;
    const why = 'their tunnels have not started';
    this.#log.warn({ connections }, `SAs that the daemon before this one left are forgotten: ${why}`);
  }

  /**
   * Stops all tunnels, telling their peers. For the next daemon they are to run again: their documents and what keeps their
   * packets from passing in the clear stay.
   * @param how `handOver`: where this daemon can, the next one goes on with the SAs, and peers are told nothing
   */
  async close({ handOver = false }: { readonly handOver?: boolean } = {}): Promise<void> {
    this.#ending = true;
    clearInterval(this.#repeat);
    clearTimeout(this.#inheritanceEnd);
    this.#endInheritance();
    const leave = handOver && this.#handsOver ? (state: Uint8Array) => this.#stateFile.leave(state) : undefined;
    this.#autostart.close();
    await allOf(
      () => this.networks.close(),
      () => this.#turns.alone(() => this.#catalog.keepLive()),
      () => this.#turns.alone(() => this.runner.close(leave)),
      () => this.secrets.close(),
    );
  }

  #lookAtSecrets(): void {
    logEmpty(this.#log, makeFolderIfPossible(this.#secretsDir, SECRETS_USE));
    logLeftovers(this.#log, () => this.secrets.clean());
    const visible = visibleFolder(this.#secretsDir);
    if (visible !== undefined) this.#log.warn({}, visible);
  }

  /** Repeats what failed for lack of a resource. */
  async #repeatFailed(): Promise<void> {
    const documents = this.#catalog.objects.all().flatMap(({ name }) => this.#catalog.documentToStart(name) ?? []);
    await this.runner.installed.repeat(documents, this.#catalog.unreadable);
  }

  /** Reads the definitions again. Of those who ask while one waits for its turn, one serves all. @throws SectunnelError */
  reload(): Promise<ReloadResult> {
    return this.#reload.run();
  }

  /** What a reload would do now, of which nothing is done. @throws SectunnelError as that */
  planReload(): Promise<ReloadResult> {
    return this.#reloadPlan.run();
  }

  #secretChanged(change: SecretChange): void {
    if (change === undefined) this.#log.info({}, 'libvirt responds again; its secrets may have changed meanwhile');
    this.runner.secretChanged(change);
    for (const { name } of this.#catalog.objects.all()) {
      const document = this.#catalog.documentToStart(name);
      if (document !== undefined && concerns(document, change)) this.#autostart.hurry(name);
    }
  }

  #publish(event: Omit<TunnelEvent, 'time'>): void {
    this.queries.happened(event.tunnel);
    this.#onEvent({ time: new Date().toISOString(), ...event });
  }

  /** The device of a tunnel was taken away. */
  async #lost(name: string): Promise<void> {
    const object = this.#catalog.objects.get(name);
    if (object?.live !== undefined) await this.#activation.lost(object);
  }

  #startUnasked(name: string): Promise<void> {
    return this.#turns.run(name, async () => {
      const { installed } = this.runner;
      const isFirst = this.#untried.delete(name);
      const object = this.#catalog.objects.get(name);
      const document = this.#catalog.documentToStart(name);
      if (object === undefined || object.live !== undefined || document === undefined) return;
      if (isFirst && !installed.isRetrying(name)) return;
      if (!isFirst) await installed.raise(document);
      try {
        await this.#activation.startUnasked(object, document);
      } catch (error) {
        // Its fence stands since the daemon began, and the rules would have come with the device.
        if (isFirst) await installed.raise(document);
        throw error;
      }
    });
  }

  /** What networks need to know of a tunnel; of one that runs, as it runs. */
  #holding(name: string): HoldingTunnel | undefined {
    const document = this.#catalog.currentDocument(name);
    return document && holdingTunnel(document);
  }
}
