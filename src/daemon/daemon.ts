/**
 * The daemon: definitions, running tunnels and secrets, with the rules of libvirt's own objects. An object is
 * persistent when the configuration folder has its document, active when it runs; undefining one that is active makes it transient, and
 * a transient one is gone when it stops.
 */
import { join } from 'node:path';
import { allOf } from '../base/each.ts';
import { SectunnelError } from '../base/error.ts';
import type { Logger } from '../base/log.ts';
import { Serial } from '../base/serial.ts';
import type { SectunnelDocument } from '../config/model.ts';
import { sameDocument } from '../config/same-document.ts';
import type { DefineResult, ReloadResult, StartResult, TunnelEvent } from '../control/results.ts';
import type { CryptoProvider } from '../crypto/types.ts';
import type { Platform } from '../host/platform.ts';
import type { WorkerChoice } from '../host/workers/choice.ts';
import type { Fetch } from '../pki/revocation/online.ts';
import { Activation } from './activation.ts';
import { Advice } from './advice.ts';
import { Autostart } from './autostart.ts';
import { Queries } from './control/queries.ts';
import { HeldNetworks } from './networks/networks.ts';
import { type HoldingTunnel, holdingTunnel } from './networks/plan.ts';
import { type ReloadParts, reloadDefinitions } from './reload.ts';
import { Runner } from './runner.ts';
import { SECRETS_USE, SecretStore } from './secrets/secrets.ts';
import { concerns, type SecretChange, SecretSources } from './secrets/sources.ts';
import { SharedRun } from './shared-run.ts';
import { Catalog, type DocumentText } from './store/catalog.ts';
import { logEmpty, makeFolderIfPossible, visibleFolder } from './store/files.ts';
import { checkIdentity } from './store/objects.ts';
import { logLeftovers } from './store/replace-file.ts';

export interface DaemonOptions {
  readonly configDir: string;
  readonly runDir: string;
  readonly platform: Platform;
  readonly crypto: CryptoProvider;
  readonly workers?: WorkerChoice | undefined;
  /** Of revocation lists and OCSP answers; left out: over HTTP. */
  readonly fetch?: Fetch | undefined;
  /** Sockets of libvirt's daemons, where secrets are looked for that are not in the own folder; none when left out. */
  readonly libvirtSockets?: readonly string[];
  readonly log: Logger;
  readonly onEvent: (event: TunnelEvent) => void;
}

/** Milliseconds that a network waits for its tunnel to start. */
const NETWORK_PATIENCE = 1_000;
/** Milliseconds between attempts to remove what could not be removed before. */
const REPEAT = 30_000;
const UNREADABLE =
  'none of the documents of this tunnel can be read: it is not started, and its fence stays in place. ' +
  "Correct the document and run 'sectunnel reload', or remove the fence with 'sectunnel destroy'";

const runsOtherwise = (name: string): string =>
  `the tunnel runs with its previous document: 'sectunnel restart ${name}' starts it with this one`;

export class Daemon {
  readonly secrets: SecretSources;
  readonly runner: Runner;
  readonly networks: HeldNetworks;
  readonly queries: Queries;
  readonly #log: Logger;
  readonly #onEvent: DaemonOptions['onEvent'];
  /** The folder of the control socket. */
  readonly runDir: string;
  readonly #catalog: Catalog;
  readonly #autostart: Autostart;
  readonly #activation: Activation;
  readonly #advice: Advice;
  readonly #reload: SharedRun<ReloadResult>;
  /** Tunnels to start for which no attempt was made yet: one that is stopped before is not started. BOUNDED: by the objects. */
  readonly #untried = new Set<string>();
  readonly #secretsDir: string;
  #repeat: NodeJS.Timeout | undefined;
  readonly #changes = new Serial();

  constructor(options: DaemonOptions) {
    this.#log = options.log;
    this.#onEvent = options.onEvent;
    this.runDir = options.runDir;
    this.#catalog = new Catalog(options.configDir, options.runDir, options.log);
    this.#autostart = new Autostart((name) => this.#startUnasked(name), options.log);
    this.#secretsDir = join(options.configDir, 'secrets');
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
      onLost: (name) => void this.#changes.run(() => this.#lost(name)),
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
    this.#advice = new Advice({ catalog: this.#catalog, runner, secrets });
    const reloadParts: ReloadParts = {
      ...shared,
      log: options.log,
      isRetrying: (name) => runner.installed.isRetrying(name),
      overlapsOf: (document) => this.#advice.overlaps(document),
      warningsOf: (document) => this.#advice.allWarnings(document),
      publish: (event) => this.#publish(event),
    };
    this.#reload = new SharedRun(() => this.#changes.run(() => reloadDefinitions(reloadParts)));
  }

  /** Reads the definitions and starts what is to be started. */
  async open(): Promise<void> {
    this.#catalog.load();
    this.#lookAtSecrets();
    this.#repeat = setInterval(() => void this.#changes.run(() => this.#repeatFailed()), REPEAT).unref();
    const { unreadable } = this.#catalog;
    for (const name of unreadable) this.#log.error({ tunnel: name }, UNREADABLE);
    this.runner.installed.expect([...unreadable, ...this.#catalog.wanted().map(({ name }) => name)]);
    // Requests wait meanwhile: a tunnel can be stopped only when it is known what is installed for it.
    const wanted = await this.#changes.run(() => this.#raiseWanted());
    // libvirt's daemons may be started only when this one is ready: what needs their secrets is not waited for.
    const later: string[] = [];
    for (const document of wanted) {
      if (this.secrets.needsLibvirt(document)) later.push(document.name);
      else await this.#autostart.begin(document.name);
    }
    for (const name of later) void this.#autostart.begin(name);
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
    for (const document of wanted) {
      await this.runner.installed.raise(document);
      this.#untried.add(document.name);
    }
    return wanted;
  }

  /**
   * Stops all tunnels, telling their peers. For the next daemon they are to run again: their documents and what keeps their
   * packets from passing in the clear stay.
   */
  async close(): Promise<void> {
    clearInterval(this.#repeat);
    this.#autostart.close();
    await allOf(
      () => this.networks.close(),
      () => this.#changes.run(() => this.#catalog.keepLive()),
      () => this.#changes.run(() => this.runner.close()),
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

  define(text: DocumentText): Promise<DefineResult> {
    return this.#changes.run(async () => {
      const document = this.#catalog.parse(text);
      const overlaps = this.#advice.overlaps(document);
      const warnings = [...(await this.#advice.allWarnings(document)), ...overlaps.warnings];
      const object = this.#catalog.objects.claim(document);
      try {
        if (overlaps.refusal !== undefined) throw new SectunnelError('invalid-state', overlaps.refusal);
        this.#catalog.stagePersistent(object, document).commit();
      } finally {
        this.#catalog.objects.dropIfGone(object);
      }
      this.#publish({ tunnel: document.name, event: 'defined', detail: '' });
      if (this.#catalog.isOutdated(object)) warnings.push(runsOtherwise(document.name));
      return { name: document.name, uuid: document.uuid, warnings };
    });
  }

  undefine(nameOrUuid: string): Promise<{ name: string }> {
    return this.#changes.run(async () => {
      const object = this.#catalog.objects.find(nameOrUuid);
      const { name } = object;
      if (object.persistent === undefined) {
        throw new SectunnelError(
          'invalid-state',
          `tunnel ${name} is transient, so there is nothing to undefine; stop it with 'sectunnel destroy ${name}'`,
        );
      }
      this.#catalog.forget(object);
      this.#publish({ tunnel: name, event: 'undefined', detail: '' });
      if (object.live === undefined) await this.#activation.giveUp(object);
      return { name };
    });
  }

  create(text: DocumentText): Promise<DefineResult> {
    return this.#changes.run(async () => {
      const document = this.#catalog.parse(text);
      const warnings = [...this.#advice.warnings(document), ...this.#activation.overlapsOf(document).warnings];
      const object = this.#catalog.objects.claim(document);
      if (object.live !== undefined)
        throw new SectunnelError('invalid-state', `tunnel ${object.name} is already active`);
      try {
        warnings.push(...(await this.#activation.start(object, document)).warnings);
      } finally {
        this.#catalog.objects.dropIfGone(object);
      }
      return { name: document.name, uuid: document.uuid, warnings };
    });
  }

  start(nameOrUuid: string): Promise<StartResult> {
    return this.#changes.run(async () => {
      const object = this.#catalog.objects.find(nameOrUuid);
      if (object.live !== undefined)
        throw new SectunnelError('invalid-state', `tunnel ${object.name} is already active`);
      const document = object.persistent ?? this.#catalog.interrupted.get(object.name);
      if (document === undefined)
        throw new SectunnelError('invalid-state', `tunnel ${object.name} has no document to start with`);
      const { warnings } = this.#activation.overlapsOf(document);
      const started = await this.#activation.start(object, document);
      return { name: object.name, device: started.device, warnings: [...warnings, ...started.warnings] };
    });
  }

  /** With the persistent document; a tunnel that runs goes on with its own where that cannot start. */
  restart(nameOrUuid: string): Promise<StartResult> {
    return this.#changes.run(async () => {
      const object = this.#catalog.objects.find(nameOrUuid);
      const { name, live } = object;
      const document = object.persistent ?? live ?? this.#catalog.interrupted.get(name);
      if (document === undefined)
        throw new SectunnelError('invalid-state', `tunnel ${name} has no document to start with`);
      const { warnings } = this.#activation.overlapsOf(document);
      const started =
        live === undefined
          ? await this.#activation.start(object, document)
          : await this.#activation.restart(object, document);
      return { name, device: started.device, warnings: [...warnings, ...started.warnings] };
    });
  }

  destroy(nameOrUuid: string): Promise<{ name: string }> {
    return this.#changes.run(async () => {
      if (this.#catalog.giveUpUnreadable(nameOrUuid)) {
        await this.runner.installed.release(nameOrUuid);
        return { name: nameOrUuid };
      }
      const object = this.#catalog.objects.find(nameOrUuid);
      if (object.live !== undefined) await this.#activation.stop(object);
      else if (!(await this.#activation.giveUp(object)))
        throw new SectunnelError('invalid-state', `tunnel ${object.name} is not active`);
      return { name: object.name };
    });
  }

  setAutostart(nameOrUuid: string, enable: boolean): Promise<{ name: string }> {
    return this.#changes.run(async () => {
      const object = this.#catalog.objects.find(nameOrUuid);
      const { name, persistent, live } = object;
      if (persistent === undefined) {
        throw new SectunnelError(
          'invalid-state',
          `tunnel ${name} is transient and cannot start with the daemon; define it first`,
        );
      }
      this.#catalog.setAutostart(name, enable);
      // One that ran when the last daemon ended is to run again all the same, until it is destroyed.
      if (!enable && live === undefined && !this.#catalog.interrupted.has(name)) await this.#activation.giveUp(object);
      return { name };
    });
  }

  /** Replaces the document of a tunnel that there is: the running one, the persistent one, or both. */
  update(text: DocumentText, which: { live: boolean; config: boolean }): Promise<DefineResult> {
    return this.#changes.run(async () => {
      const document = this.#catalog.parse(text);
      const { refusal, warnings: overlaps } = this.#advice.overlaps(document);
      if (refusal !== undefined) throw new SectunnelError('invalid-state', refusal);
      const warnings = [...this.#advice.warnings(document), ...overlaps];
      const object = this.#catalog.objects.find(document.name);
      checkIdentity(object, document);
      const live = which.live || (!which.config && object.live !== undefined);
      const config = which.config || (!which.live && object.live === undefined);
      if (live && object.live === undefined) {
        throw new SectunnelError('invalid-state', `tunnel ${object.name} is not active; leave --live out`);
      }
      if (config && object.persistent === undefined) {
        throw new SectunnelError('invalid-state', `tunnel ${object.name} is transient; leave --config out`);
      }
      const changed = {
        live: live && !sameDocument(object.live, document),
        config: config && !sameDocument(object.persistent, document),
      };
      const unchanged = !changed.live && !changed.config;
      if (!unchanged) warnings.push(...(await this.#activation.replace(object, document, changed)));
      return { name: document.name, uuid: document.uuid, warnings, unchanged };
    });
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
    this.#onEvent({ time: new Date().toISOString(), ...event });
  }

  /** The device of a tunnel was taken away. */
  async #lost(name: string): Promise<void> {
    const object = this.#catalog.objects.get(name);
    if (object?.live !== undefined) await this.#activation.lost(object);
  }

  #startUnasked(name: string): Promise<void> {
    return this.#changes.run(async () => {
      const { installed } = this.runner;
      const isFirst = this.#untried.delete(name);
      const object = this.#catalog.objects.get(name);
      const document = this.#catalog.documentToStart(name);
      if (object === undefined || object.live !== undefined || document === undefined) return;
      if (isFirst && !installed.isRetrying(name)) return;
      if (!isFirst) await installed.raise(document);
      await this.#activation.startUnasked(object, document);
    });
  }

  /** What networks need to know of a tunnel; of one that runs, as it runs. */
  #holding(name: string): HoldingTunnel | undefined {
    const document = this.#catalog.currentDocument(name);
    return document && holdingTunnel(document);
  }
}
