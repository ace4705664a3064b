/**
 * libvirt networks that are held by tunnels: a fence around each, and its packets routed into the tunnel, from before it
 * starts until it has stopped, whether or not the tunnel runs. libvirt's hook reports starts and stops; networks that ran
 * before this daemon are found in the files of libvirt's run folder.
 *
 * What is installed for a network stays when the daemon ends or dies: the network continues to run, and nothing may leave it
 * in the clear meanwhile. The next daemon finds the network and takes over.
 */
import { isDeepStrictEqual } from 'node:util';
import { SectunnelError } from '../../base/error.ts';
import type { Logger } from '../../base/log.ts';
import { Serial } from '../../base/serial.ts';
import { messageOf } from '../../base/text.ts';
import type { SectunnelDocument } from '../../config/model.ts';
import type { NetImportResult, NetworkInfo } from '../../control/results.ts';
import { type LibvirtNetwork, type NetworkPin, readNetwork } from '../../libvirt/network.ts';
import { defineNetwork } from '../../libvirt/network-define.ts';
import { importNetwork } from '../../libvirt/network-import.ts';
import { refusingSystem } from '../control/refusing.ts';
import type { DocumentText } from '../store/catalog.ts';
import { type ChangedNetwork, NetworkFiles } from './files.ts';
import { HeldTable, type NetworkPlatform } from './held.ts';
import { type BridgedNetwork, bridged, type HoldingTunnel, holdingTunnel, unfit } from './plan.ts';
import { NetworkRules } from './rules.ts';

/** The daemon's tunnels, as networks see them. */
export interface Tunnels {
  /** `undefined` when there is none of that name. */
  find(name: string): HoldingTunnel | undefined;
  /** Starts the tunnel unless it runs or is being tried again. @throws SectunnelError when it cannot start */
  wanted(name: string): Promise<void>;
  state(name: string): string;
}

export interface NetworksOptions {
  readonly platform: NetworkPlatform;
  readonly tunnels: Tunnels;
  /** Sockets of libvirt's daemons. Beside them libvirt keeps what it knows of running networks: `network/NAME.xml`. */
  readonly libvirtSockets: readonly string[];
  readonly log: Logger;
}

/** Milliseconds between looks for networks that the hook did not report. */
const WATCH = 10_000;
/** Looks after which a network has stopped unreported: libvirt forgets one a moment before it removes the bridge. */
const MAX_MISSED = 2;

export class HeldNetworks {
  readonly #options: NetworksOptions;
  readonly #held: HeldTable;
  readonly #files: NetworkFiles;
  readonly #rules: NetworkRules;
  #watch: NodeJS.Timeout | undefined;
  #mustReconcile = false;
  readonly #changes = new Serial();

  constructor(options: NetworksOptions) {
    this.#options = options;
    const { libvirtSockets, log, platform } = options;
    this.#files = new NetworkFiles(libvirtSockets, log, () => this.#lookNow());
    this.#rules = new NetworkRules({
      rules: platform.foreignRules,
      onChange: () => void this.#changes.run(() => this.#lookAtRules()).catch((error: unknown) => this.#failed(error)),
      libvirtSockets,
      log,
    });
    this.#held = new HeldTable({ platform, isUnruled: (network) => this.#rules.isLost(network), log });
  }

  /**
   * Takes over the networks that already run, before any tunnel starts. A network whose tunnel is unknown or does not suit
   * it is cut off: its start can no longer be refused.
   * @returns the tunnels that must run
   */
  open(): Promise<string[]> {
    this.#watch ??= setInterval(() => this.#lookNow(), WATCH).unref();
    this.#files.watch();
    this.#rules.open();
    return this.#changes.run(async () => {
      const networks = this.#files.changed(this.#files.all()).flatMap(({ network }) => bridged(network) ?? []);
      for (const network of networks) await this.#takeOver(network);
      for (const held of this.#held.all()) held.missed = 0;
      await this.#lookAtRules();
      await this.#reconcile();
      return networks.map(({ pin }) => pin.tunnel);
    });
  }

  /** Removes what an earlier daemon installed for networks that no longer run. */
  async #reconcile(): Promise<void> {
    try {
      // Fences around networks that could not be read or held stay, too.
      await this.#held.reconcile(this.#files.all().keys());
      this.#mustReconcile = false;
    } catch (error) {
      this.#mustReconcile = true;
      this.#options.log.warn(
        {},
        `what an earlier daemon installed for networks could not be removed yet: ${messageOf(error)}`,
      );
    }
  }

  /** What holds networks stays. */
  async close(): Promise<void> {
    clearInterval(this.#watch);
    this.#files.close();
    await this.#changes.run(() => this.#rules.close());
  }

  #lookNow(): void {
    this.look().catch((error: unknown) => this.#failed(error));
  }

  #failed(error: unknown): void {
    this.#options.log.warn({}, `running networks could not be listed: ${messageOf(error)}`);
  }

  /** Finds what the hook did not report: it may not be installed, the daemon may not have run, or a running network changed. */
  look(): Promise<void> {
    return this.#changes.run(async () => {
      if (this.#mustReconcile) await this.#reconcile();
      const files = this.#files.all();
      for (const held of this.#held.all()) {
        const { name } = held.network;
        if (files.has(name)) held.missed = 0;
        else if (held.missed !== undefined && ++held.missed >= MAX_MISSED) {
          await this.#release(name);
          this.#options.log.warn(
            fieldsOf(held.network),
            'network released: libvirt does not run it, and the hook did not report its stop',
          );
        }
      }
      for (const changed of this.#files.changed(files)) await this.#follow(changed);
      await this.#lookAtRules();
    });
  }

  /** Follows the document of a running network, as after the next start of this daemon. */
  async #follow({ network, known }: ChangedNetwork): Promise<void> {
    const { log } = this.#options;
    const before = this.#held.get(network.name);
    const after = bridged(network);
    if (after === undefined) {
      if (before === undefined) return;
      await this.#release(network.name);
      log.warn(
        fieldsOf(before.network),
        'network released: its document no longer names a tunnel, and it continues to run',
      );
      return;
    }
    if (isDeepStrictEqual(before?.network, after)) return;
    const isAnother = !isDeepStrictEqual(before?.network.pin, after.pin);
    if (isAnother) this.#tellChange(before?.network.pin, after, known);
    await this.#takeOver(after);
    const held = this.#held.get(network.name);
    if (held !== undefined) held.missed = 0;
    // One that was stopped by hand is not started for another reason.
    if (!isAnother) return;
    await this.#options.tunnels.wanted(after.pin.tunnel).catch((error: unknown) => {
      log.error(fieldsOf(after), `the tunnel of the network is not started: ${messageOf(error)}`);
    });
  }

  #tellChange(before: NetworkPin | undefined, after: BridgedNetwork, known: boolean): void {
    const { log } = this.#options;
    const fields = fieldsOf(after);
    if (before !== undefined) {
      const { tunnel, mode } = before;
      log.warn(fields, `the document of the running network no longer names tunnel '${tunnel}' in mode ${mode}`);
    } else if (known) log.warn(fields, 'the document of a running network names a tunnel now');
    else {
      log.error(fields, "the hook did not report a running network: install the hook with 'sectunnel hook install'");
    }
  }

  /** A network without libvirt's own rules is fenced more closely. */
  async #lookAtRules(): Promise<void> {
    for (const name of this.#rules.look(this.#held.all().map(({ network }) => network))) {
      await this.#held.refence(name);
    }
  }

  async #takeOver(network: BridgedNetwork): Promise<void> {
    const { log } = this.#options;
    try {
      await this.#rules.expect(network);
      try {
        await this.#held.hold(network, this.#fitting(network));
        log.info(fieldsOf(network), 'running network held');
      } catch (error) {
        if (!(error instanceof SectunnelError)) throw error;
        log.error(fieldsOf(network), `the network is cut off: ${error.message}`);
        await this.#held.hold(network, undefined, error.message);
      }
    } catch (error) {
      // The next look tries again.
      this.#files.forget(network.name);
      log.error(fieldsOf(network), `a running network cannot be held: ${messageOf(error)}`);
    }
  }

  /**
   * libvirt is about to start a network. Puts up the fence, then the rules, then starts the tunnel; does not wait for SAs.
   * @param wanted whether it still is, when all is done: libvirt may have given up meanwhile
   * @returns the tunnel that holds it; `undefined` when it names none
   * @throws SectunnelError, with nothing left behind, when the network must not start
   */
  start(xml: string, wanted: () => boolean = () => true): Promise<NetworkPin | undefined> {
    return this.#changes.run(async () => {
      const network = readNetwork(xml);
      if (network.pin === undefined) return undefined;
      const { name } = network;
      const { held, tunnel } = this.#check(network);
      try {
        await this.#held.hold(held, tunnel);
        await this.#options.tunnels.wanted(held.pin.tunnel);
        if (!wanted()) throw new SectunnelError('invalid-state', `libvirt no longer waits for network '${name}'`);
      } catch (error) {
        await this.#release(name).catch((why: unknown) => {
          this.#options.log.warn(fieldsOf(held), `what was installed for the network stays: ${messageOf(why)}`);
        });
        throw error;
      }
      this.#options.log.info(fieldsOf(held), 'network held');
      return held.pin;
    });
  }

  /** libvirt has stopped a network. */
  stopped(name: string): Promise<void> {
    return this.#changes.run(async () => {
      const held = this.#held.get(name);
      if (held === undefined) return;
      await this.#release(name);
      this.#options.log.info(fieldsOf(held.network), 'network stopped and released');
    });
  }

  /** Rewrites a network that names a tunnel into what libvirt keeps, and has libvirt keep it. */
  async import({ xml, source }: DocumentText, { define }: { readonly define: boolean }): Promise<NetImportResult> {
    const { pin, ...imported } = importNetwork(xml, source, (tunnel) => this.#tunnel(tunnel).device);
    if (define) await refusingSystem(() => defineNetwork(this.#options.libvirtSockets, imported.xml));
    return { ...imported, ...pin };
  }

  /** @throws SectunnelError when a tunnel holds networks that it could not hold with such a document */
  checkDocument(document: SectunnelDocument): void {
    for (const { network, tunnel } of this.#held.all()) {
      // A network that is cut off already loses nothing.
      const problem = tunnel?.document.name === document.name ? unfit(network, holdingTunnel(document)) : undefined;
      if (problem !== undefined) {
        throw new SectunnelError(
          'invalid-state',
          `with this document it could no longer hold network '${network.name}': ${problem}`,
        );
      }
    }
  }

  /** Follows a tunnel whose document has changed. */
  tunnelChanged(name: string): Promise<void> {
    return this.#changes.run(async () => {
      for (const { network, tunnel } of this.#held.all()) {
        if (network.pin.tunnel !== name) continue;
        // One that was only started for the network holds it as it did.
        if (!isDeepStrictEqual(tunnel, this.#options.tunnels.find(name))) await this.#takeOver(network);
      }
    });
  }

  /** In order of their names. */
  async list(): Promise<NetworkInfo[]> {
    const held = this.#held.all();
    if (held.length === 0) return [];
    const drops = await this.#held.drops();
    const running = this.#files.all();
    return held
      .map(({ network, network: { name, uuid, bridge, pin }, problem }) => ({
        ...{ name, uuid, bridge, ...pin },
        running: running.has(name),
        problem: problem ?? this.#rules.problem(network),
        tunnelState: this.#options.tunnels.state(pin.tunnel),
        drops: drops(name),
      }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** @throws SectunnelError when the network must not start */
  #check(network: LibvirtNetwork): { held: BridgedNetwork; tunnel: HoldingTunnel } {
    const { name, pin, bridge } = network;
    if (pin === undefined || bridge === undefined)
      throw new SectunnelError('bad-document', `it has no <bridge name='…'/>`);
    const held: BridgedNetwork = { ...network, pin, bridge };
    const tunnel = this.#fitting(held);
    const other = this.#held.all().find((one) => one.network.bridge === bridge && one.network.name !== name);
    if (other !== undefined) {
      throw new SectunnelError('invalid-state', `network '${other.network.name}' already has the bridge ${bridge}`);
    }
    return { held, tunnel };
  }

  /** The tunnel of a network. @throws SectunnelError when there is none, or it cannot hold the network */
  #fitting(network: BridgedNetwork): HoldingTunnel {
    const tunnel = this.#tunnel(network.pin.tunnel);
    const problem = unfit(network, tunnel);
    if (problem !== undefined) throw new SectunnelError('bad-document', problem);
    return tunnel;
  }

  /** @throws SectunnelError when there is none of that name */
  #tunnel(name: string): HoldingTunnel {
    const tunnel = this.#options.tunnels.find(name);
    if (tunnel !== undefined) return tunnel;
    throw new SectunnelError(
      'not-found',
      `it names the tunnel '${name}', which is not defined; define it first ('sectunnel list --all' names those that are)`,
    );
  }

  async #release(name: string): Promise<void> {
    await this.#held.release(name);
    this.#rules.forget(name);
  }
}

function fieldsOf({ name, bridge, pin }: BridgedNetwork): object {
  return { network: name, bridge, tunnel: pin.tunnel, mode: pin.mode };
}
