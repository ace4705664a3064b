/** The queries that a daemon answers without changing anything: tunnels, their status, and why a packet goes where it goes. */

import { SectunnelError } from '../../base/error.ts';
import { dumpDocument } from '../../config/dump.ts';
import type { SectunnelDocument } from '../../config/model.ts';
import type { ListResult, NetworkInfo, PkiCheckResult, StatusResult, TunnelInfo } from '../../control/results.ts';
import type { Params } from '../../control/verbs.ts';
import { explainPacket } from '../../explain/explain.ts';
import type { ExplainQuestion, Explanation } from '../../explain/explanation.ts';
import { readPacketQuestion } from '../../explain/packet.ts';
import type { TunnelStatus } from '../../host/status.ts';
import { inactiveStatus } from '../../host/status-view.ts';
import type { ForeignTables } from '../../hostnet/foreign/tables.ts';
import { descriptorUse } from '../../sys/descriptors.ts';
import type { Autostart } from '../autostart.ts';
import { hostCounters, hostFeatures } from '../host-counters.ts';
import type { HeldNetworks } from '../networks/networks.ts';
import type { Runner } from '../runner.ts';
import { checkCertificates } from '../secrets/certificates.ts';
import type { SecretSources } from '../secrets/sources.ts';
import { SharedRun } from '../shared-run.ts';
import { StateClock } from '../state-clock.ts';
import type { Catalog } from '../store/catalog.ts';
import type { TunnelObject } from '../store/objects.ts';
import { version } from '../version.ts';
import { within } from '../within.ts';
import type { ControlConnection } from './connection.ts';
import { inParts } from './parts.ts';
import { type SelectionFacts, selectTunnels } from './selection.ts';

/** Tunnels in one line of a reply: some 150 KiB. */
const INFOS_IN_LINE = 500;
const STATUSES_IN_LINE = 50;
/** Tunnels of which the kernel tells all in time. */
const FEW = 50;
/** Milliseconds that a status waits for what the kernel tells of more. */
const LOOK_PATIENCE = 50;
/** The kernel is asked about more for at most so small a part of the time, however often a status is. */
const LOOK_SHARE = 1 / 20;
const LONGEST_LOOK_PAUSE = 10_000;

/** The parts of a daemon that know. */
interface Sources {
  readonly catalog: Catalog;
  readonly runner: Runner;
  readonly autostart: Autostart;
  readonly networks: HeldNetworks;
  readonly secrets: SecretSources;
}

export class Queries {
  readonly #catalog: Catalog;
  readonly #runner: Runner;
  readonly #autostart: Autostart;
  readonly #networks: HeldNetworks;
  readonly #secrets: SecretSources;
  readonly #look = new SharedRun(() => this.#lookNow());
  /** Before that time what was seen last is shown, of many tunnels. Milliseconds of `performance.now()`. */
  #lookAgainAt = 0;
  readonly #held = new SharedRun(() => this.#networks.list());
  readonly #clock = new StateClock();
  readonly #facts: SelectionFacts = {
    state: (name) => this.stateOf(name),
    changedAt: (name) => this.#changedAt(name),
    traffic: (name) => this.#runner.traffic(name),
  };

  constructor({ catalog, runner, autostart, networks, secrets }: Sources) {
    this.#catalog = catalog;
    this.#runner = runner;
    this.#autostart = autostart;
    this.#networks = networks;
    this.#secrets = secrets;
  }

  /** @throws SectunnelError as `selectTunnels` */
  async list(
    { active, persistent, autostart, ...selection }: Params<'list'>,
    connection: ControlConnection,
  ): Promise<ListResult> {
    const suits = (object: TunnelObject): boolean =>
      (active === undefined || (object.live !== undefined || (active && this.#isRetrying(object.name))) === active) &&
      (persistent === undefined || (object.persistent !== undefined) === persistent) &&
      (autostart === undefined || this.#catalog.isAutostart(object.name) === autostart);
    const objects = selectTunnels(this.#catalog.objects, selection, this.#facts, suits);
    const tunnels = await inParts(connection, 'tunnels', objects, {
      make: (object) => this.#infoOf(object),
      most: INFOS_IN_LINE,
    });
    // Of these what they protect is dropped.
    return { tunnels, unreadable: [...this.#catalog.unreadable] };
  }

  /** Something happened to a tunnel: its state may have changed. */
  happened(name: string): void {
    if (this.#catalog.objects.get(name) === undefined) this.#clock.forget(name);
    else this.#changedAt(name);
  }

  #changedAt(name: string): number {
    return this.#clock.changedAt(name, this.stateOf(name));
  }

  info(nameOrUuid: string): TunnelInfo {
    return this.#infoOf(this.#catalog.objects.find(nameOrUuid));
  }

  dumpXml(nameOrUuid: string, { inactive }: { readonly inactive: boolean }): string {
    const { name, live, persistent } = this.#catalog.objects.find(nameOrUuid);
    const document = inactive ? persistent : (live ?? persistent);
    if (document === undefined)
      throw new SectunnelError('invalid-state', `tunnel ${name} is transient and has no inactive document`);
    return dumpDocument(document);
  }

  /** Of the document that the next start uses, or of the one that runs where there is no persistent one. */
  checkCertificates(nameOrUuid: string): Promise<PkiCheckResult> {
    const { live, persistent } = this.#catalog.objects.find(nameOrUuid);
    const document = persistent ?? live;
    if (document === undefined) throw new SectunnelError('invalid-state', `tunnel ${nameOrUuid} has no document`);
    return checkCertificates(document, this.#secrets, this.#runner.online);
  }

  /** Why a packet goes where it goes, by the document that runs, or by the one that the next start uses. */
  async explain(question: ExplainQuestion): Promise<Explanation> {
    readPacketQuestion(question);
    const { netns } = this.#documentOf(question.name).device;
    const outer = await this.#runner.view()?.foreignTables?.();
    const inner = netns === undefined ? outer : await this.#runner.view(netns)?.foreignTables?.();
    // Nothing of the tunnel is older than what was read of others.
    const [seen, outside] = [inner, outer].map((foreign) => this.#withUnreadable(foreign));
    const facts = this.#runner.explainFacts(this.#documentOf(question.name));
    return explainPacket(facts, { inner: seen, outer: outside }, question);
  }

  /** The fences of tunnels whose documents cannot be read are unknown, too. */
  #withUnreadable(foreign: ForeignTables | undefined): ForeignTables | undefined {
    const fences = [...this.#catalog.unreadable].map(
      (name) => `the fence of tunnel ${name}, whose document cannot be read`,
    );
    return foreign && { ...foreign, unread: [...foreign.unread, ...fences] };
  }

  /** The one that runs, or that the next start uses. */
  #documentOf(nameOrUuid: string): SectunnelDocument {
    const { name } = this.#catalog.objects.find(nameOrUuid);
    const document = this.#catalog.currentDocument(name);
    if (document === undefined) throw new SectunnelError('invalid-state', `tunnel ${name} has no document`);
    return document;
  }

  /** @throws SectunnelError as `selectTunnels` */
  async status({ name, ...selection }: Params<'status'>, connection: ControlConnection): Promise<StatusResult> {
    await this.#lookAround();
    const networks = await this.heldNetworks();
    const { objects: all } = this.#catalog;
    const objects = name === undefined ? selectTunnels(all, selection, this.#facts) : [all.find(name)];
    const names = new Set(objects.map((object) => object.name));
    const tunnels = await inParts(connection, 'tunnels', objects, {
      make: (object) => this.#statusOf(object),
      most: STATUSES_IN_LINE,
    });
    return {
      version: version(),
      pid: process.pid,
      uptime: Math.round(process.uptime()),
      crypto: this.#runner.cryptoName,
      io: hostFeatures(this.#runner.host),
      workers: this.#runner.workers(),
      descriptors: descriptorUse(),
      tunnels,
      networks: networks.filter(({ tunnel }) => names.has(tunnel)),
      counters: hostCounters(this.#runner.host),
    };
  }

  /**
   * Has what is shown of fences and rules be as it is now. With many tunnels the kernel's answer takes long, above all while some start:
   * then what was seen last is shown, which is half a minute old at most.
   */
  async #lookAround(): Promise<void> {
    if (this.#catalog.objects.size <= FEW) await this.#look.run();
    else if (performance.now() >= this.#lookAgainAt) await within(LOOK_PATIENCE, this.#look.run());
  }

  async #lookNow(): Promise<void> {
    const began = performance.now();
    await this.#runner.installed.look('reported');
    const ended = performance.now();
    this.#lookAgainAt = ended + Math.min((ended - began) / LOOK_SHARE, LONGEST_LOOK_PAUSE);
  }

  heldNetworks(): Promise<NetworkInfo[]> {
    return this.#held.run();
  }

  #statusOf({ name, uuid }: TunnelObject): TunnelStatus {
    const running = this.#runner.status(name);
    if (running !== undefined) return running;
    const degraded = this.#runner.degraded(name);
    return { ...inactiveStatus(name, uuid), degraded, ...this.#autostart.status(name) };
  }

  stateOf(name: string): string {
    return this.#runner.state(name) ?? (this.#isRetrying(name) ? 'waiting to retry' : 'inactive');
  }

  #isRetrying(name: string): boolean {
    return this.#runner.installed.isRetrying(name);
  }

  #infoOf(object: TunnelObject): TunnelInfo {
    const { name } = object;
    const { host } = this.#runner;
    return {
      name,
      uuid: object.uuid,
      active: object.live !== undefined,
      retrying: this.#isRetrying(name),
      persistent: object.persistent !== undefined,
      outdated: this.#catalog.isOutdated(object),
      autostart: this.#catalog.isAutostart(name),
      device: host.device(name)?.name,
      state: this.stateOf(name),
      since: Math.round(performance.now() - this.#changedAt(name)) / 1000,
      degraded: this.#runner.degraded(name),
      nothingReceived: host.nothingReceived(name),
    };
  }
}
