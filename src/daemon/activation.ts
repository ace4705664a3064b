/**
 * Has tunnels run, run with another document, and stop: on the host, in memory and on the disk. What is to be written is
 * on the disk before a tunnel is touched, so that a full disk changes nothing; where the three differ all the same,
 * the answer says which of them differs.
 */

import { allOf } from '../base/each.ts';
import { SectunnelError } from '../base/error.ts';
import type { Logger } from '../base/log.ts';
import { messageOf } from '../base/text.ts';
import type { SectunnelDocument } from '../config/model.ts';
import { toPolicy } from '../config/selectors.ts';
import type { TunnelEvent } from '../control/results.ts';
import { ownRound } from '../host/pace.ts';
import { type Overlaps, overlapsAmong } from '../plan/overlaps.ts';
import { type Renewal, renewalOf } from '../plan/renewal.ts';
import type { Autostart } from './autostart.ts';
import type { HeldNetworks } from './networks/networks.ts';
import type { Runner } from './runner.ts';
import type { Catalog } from './store/catalog.ts';
import type { TunnelObject } from './store/objects.ts';
import { type StagedFile, type StagedSoon, StorageError } from './store/replace-file.ts';

export interface ActivationParts {
  readonly catalog: Catalog;
  readonly runner: Runner;
  readonly networks: HeldNetworks;
  readonly autostart: Autostart;
  readonly log: Logger;
  readonly publish: (event: Omit<TunnelEvent, 'time'>) => void;
}

/** Its methods are for one caller at a time for each tunnel. */
export class Activation {
  readonly #parts: ActivationParts;
  /** Documents that are about to run: what claims the same packets must not start meanwhile. BOUNDED: by the tunnels. */
  readonly #starting = new Map<string, SectunnelDocument>();

  constructor(parts: ActivationParts) {
    this.#parts = parts;
  }

  /**
   * Starts a tunnel that a user asks for. It runs also where its live document cannot be written.
   * @throws SectunnelError with nothing changed
   */
  async start(object: TunnelObject, document: SectunnelDocument): Promise<Activated> {
    const saved = await this.#stageLive(document);
    let running: Running;
    try {
      running = await this.#run(object, document);
    } catch (error) {
      saved.discard();
      throw error;
    }
    return { ...running, warnings: notFoundAgain(await commitLive(saved)) };
  }

  /** One that cannot be written says so when it is committed: the tunnel comes first. */
  async #stageLive(document: SectunnelDocument): Promise<StagedSoon> {
    const { catalog } = this.#parts;
    try {
      return await catalog.stageLive(catalog.toRun(document));
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      return { commitSoon: () => Promise.reject(error), discard: () => undefined };
    }
  }

  /**
   * A tunnel that runs is to begin anew, with this document.
   * @throws SectunnelError when it goes on with the old one, or is stopped
   */
  restart(object: TunnelObject, document: SectunnelDocument): Promise<Activated> {
    return this.#replaceLive(object, document);
  }

  /** Starts a tunnel without a request, whose fence stands already. It runs also where its live document cannot be written: carrying traffic comes first. */
  async startUnasked(object: TunnelObject, document: SectunnelDocument): Promise<void> {
    const { catalog, log } = this.#parts;
    const toRun = catalog.toRun(document);
    await this.#run(object, document);
    try {
      await (await catalog.stageLive(toRun)).commitSoon(() => undefined);
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      log.error({ tunnel: object.name }, `${error.message}. ${NOT_FOUND_AGAIN}`);
    }
  }

  /** What the document and those of tunnels that run, are about to run, or are to run again, both claim. */
  overlapsOf(document: SectunnelDocument): Overlaps {
    const others = new Set([...this.#parts.catalog.activeNear(document), ...this.#starting.values()]);
    return overlapsAmong(document, others);
  }

  /** It is stopped, also where something could not be taken away. @throws SectunnelError saying what */
  async stop(object: TunnelObject): Promise<void> {
    const { runner, catalog } = this.#parts;
    await allOf(
      () => runner.stop(object.name),
      () => {
        if (object.live === undefined) return;
        this.#publish(object.name, 'stopped');
        catalog.stopped(object);
      },
    );
  }

  /** A tunnel that does not run is not to run again. False when it is not to run anyway. @throws SectunnelError as `stop` */
  async giveUp(object: TunnelObject): Promise<boolean> {
    const { catalog, autostart, runner } = this.#parts;
    autostart.cancel(object.name);
    if (!runner.installed.isRetrying(object.name)) return false;
    await allOf(
      () => catalog.giveUp(object),
      () => runner.installed.release(object.name),
    );
    return true;
  }

  /** The device of a tunnel was taken away: the tunnel stops, and comes back when it can. */
  async lost(object: TunnelObject): Promise<void> {
    const { runner, log } = this.#parts;
    try {
      await runner.stop(object.name, { retry: true });
    } catch (error) {
      log.error({ tunnel: object.name }, messageOf(error));
    }
    this.#interrupted(object);
  }

  /**
   * Replaces the document that runs, the persistent one, or both.
   * @returns what a person should know though all was done, and what became of the SAs
   * @throws SectunnelError with nothing changed, or saying which of both is, and what runs
   */
  async replace(
    object: TunnelObject,
    document: SectunnelDocument,
    which: { readonly live: boolean; readonly config: boolean },
  ): Promise<Replaced> {
    const { name } = object;
    const persistent = which.config ? this.#parts.catalog.stagePersistent(object, document) : undefined;
    const renewal = which.live ? renewalOf(object.live!, document) : undefined;
    let warnings: readonly string[] = [];
    try {
      if (renewal?.device === 'anew') warnings = (await this.#replaceLive(object, document)).warnings;
      else if (renewal !== undefined) warnings = await this.#changeLive(object, document, renewal);
    } catch (error) {
      persistent?.discard();
      throw error;
    }
    const persistentProblem = persistent && commitProblem(persistent);
    const isPersistent = object.persistent === document;
    if (which.live || isPersistent) this.#publish(name, 'updated');
    if (persistentProblem === undefined) return { warnings, renewal };
    const next = isPersistent ? '' : '. The next start uses the previous one';
    const problems = [persistentProblem + next, ...warnings];
    const done = which.live ? `tunnel ${name} runs with the new document, but ` : '';
    throw new SectunnelError('system', done + problems.join('. '));
  }

  /** The tunnel keeps its device, and the SAs that fit the new document. @returns what a person should know */
  async #changeLive(object: TunnelObject, document: SectunnelDocument, renewal: Renewal): Promise<readonly string[]> {
    const { catalog, networks, runner } = this.#parts;
    networks.checkDocument(document);
    refuse(this.overlapsOf(document).conflicts);
    const saved = await this.#stageLive(document);
    this.#starting.set(object.name, document);
    try {
      await runner.change(document, renewal);
    } catch (error) {
      saved.discard();
      throw error;
    } finally {
      this.#starting.delete(object.name);
    }
    catalog.started(object, document);
    void networks.tunnelChanged(object.name);
    return notFoundAgain(await commitLive(saved));
  }

  async #replaceLive(object: TunnelObject, document: SectunnelDocument): Promise<Activated> {
    const { runner } = this.#parts;
    const before = object.live!;
    refuse(this.overlapsOf(document).conflicts);
    await runner.check(document);
    const saved = await this.#stageLive(document);
    let running: Running;
    try {
      await runner.stop(object.name, { retry: true });
      running = await this.#run(object, document);
    } catch (error) {
      saved.discard();
      throw await this.#goBack(object, before, error);
    }
    return { ...running, warnings: notFoundAgain(await commitLive(saved)) };
  }

  /** The new document could not run, so the old one does. @returns what is to be said */
  async #goBack(object: TunnelObject, before: SectunnelDocument, error: unknown): Promise<SectunnelError> {
    const code = error instanceof SectunnelError ? error.code : 'system';
    try {
      await this.#run(object, before);
      return new SectunnelError(code, `${messageOf(error)}. The previous document is in effect again`);
    } catch (second) {
      this.#interrupted(object);
      const again = `The previous document cannot be started either; the daemon keeps trying: ${messageOf(second)}`;
      return new SectunnelError(code, `${messageOf(error)}. ${again}`);
    }
  }

  async #run(object: TunnelObject, document: SectunnelDocument): Promise<Running> {
    const { networks, runner, log } = this.#parts;
    const { name } = object;
    await ownRound();
    networks.checkDocument(document);
    const { conflicts, warnings: overlaps } = this.overlapsOf(document);
    refuse(conflicts);
    const around = [...runner.hostWarnings(document), ...overlaps];
    for (const text of [...toPolicy(document).warnings, ...around]) log.warn({ tunnel: name }, text);
    this.#starting.set(name, document);
    try {
      return { device: await this.#startOnHost(object, document), around };
    } finally {
      this.#starting.delete(name);
    }
  }

  async #startOnHost(object: TunnelObject, document: SectunnelDocument): Promise<string> {
    const { networks, runner, autostart, catalog, log } = this.#parts;
    let device: string;
    try {
      device = await runner.start(document);
    } catch (error) {
      log.warn({ tunnel: object.name }, `not started: ${messageOf(error)}`);
      throw error;
    }
    autostart.cancel(object.name);
    catalog.started(object, document);
    void networks.tunnelChanged(object.name);
    this.#publish(object.name, 'started', `device ${device}`);
    return device;
  }

  /** A tunnel does not run any more, and is started as soon as it can be. */
  #interrupted(object: TunnelObject): void {
    const { catalog, autostart } = this.#parts;
    catalog.interrupt(object);
    this.#publish(object.name, 'stopped');
    void autostart.begin(object.name);
  }

  #publish(tunnel: string, event: TunnelEvent['event'], detail = ''): void {
    this.#parts.publish({ tunnel, event, detail });
  }
}

export interface Replaced {
  readonly warnings: readonly string[];
  /** `undefined` where the document that runs stays. */
  readonly renewal: Renewal | undefined;
}

/** A tunnel runs. */
interface Running {
  readonly device: string;
  /** What a person should know of the host, and of other tunnels. */
  readonly around: readonly string[];
}

interface Activated extends Running {
  /** What was not done. */
  readonly warnings: readonly string[];
}

/** @throws SectunnelError when a tunnel cannot run beside others */
function refuse([conflict]: Overlaps['conflicts']): void {
  if (conflict !== undefined) throw new SectunnelError('invalid-state', conflict.text);
}

function notFoundAgain(problem: string | undefined): string[] {
  return problem === undefined ? [] : [`the tunnel runs, but ${problem}. ${NOT_FOUND_AGAIN}`];
}

const NOT_FOUND_AGAIN = 'If the daemon crashes, the next one does not restart the tunnel in this state';

/** Why a file is not as it should be; `undefined` when it is. */
function commitProblem(file: StagedFile): string | undefined {
  try {
    file.commit();
    return undefined;
  } catch (error) {
    return storageProblem(error);
  }
}

/** The same of the document of a tunnel that runs. */
async function commitLive(file: StagedSoon): Promise<string | undefined> {
  try {
    await file.commitSoon(() => undefined);
    return undefined;
  } catch (error) {
    return storageProblem(error);
  }
}

function storageProblem(error: unknown): string {
  if (error instanceof StorageError) return error.message;
  throw error;
}
