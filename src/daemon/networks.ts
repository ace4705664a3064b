/**
 * libvirt networks that are held by tunnels: a fence around each, and its packets led into the tunnel, from before it
 * starts until it has stopped, whether or not the tunnel runs. libvirt tells of starts and stops by its hook; of networks
 * that ran before this daemon did, by the files in its run folder.
 *
 * What is put up for a network stays when the daemon ends or dies: the network runs on, and nothing may leave it in the
 * clear meanwhile. The next daemon finds the network again, and takes over.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Logger } from '../base/log.ts';
import { messageOf } from '../base/text.ts';
import type { SectunnelDocument } from '../config/model.ts';
import { type LibvirtNetwork, type NetworkPin, readNetwork } from '../libvirt/network.ts';
import { defineNetwork } from '../libvirt/network-define.ts';
import { importNetwork } from '../libvirt/network-import.ts';
import type { FenceCounters, FencePart } from '../tun/fence.ts';
import {
  type BridgedNetwork,
  FENCE_KEYS,
  type FenceKey,
  fenceParts,
  type HoldingTunnel,
  holdingTunnel,
  unfit,
} from './networks-plan.ts';
import type { Platform } from './platform.ts';
import { ControlError, type NetImportResult, type NetworkInfo } from './protocol.ts';
import { refusing, refusingSystem } from './refusing.ts';

/** The daemon's tunnels, as networks see them. */
export interface Tunnels {
  /** `undefined` when there is none of that name. */
  find(name: string): HoldingTunnel | undefined;
  /** Starts the tunnel unless it runs or is being tried again. @throws ControlError when it cannot start */
  wanted(name: string): Promise<void>;
  state(name: string): string;
}

export interface NetworksOptions {
  readonly platform: Pick<Platform, 'fence' | 'leadBridge' | 'forgetBridges'>;
  readonly tunnels: Tunnels;
  /** Sockets of libvirt's daemons. Beside them libvirt keeps what it knows of running networks: `network/NAME.xml`. */
  readonly libvirtSockets: readonly string[];
  readonly log: Logger;
}

/** A document as it came: XML, and what to call it in messages. */
interface DocumentText {
  readonly xml: string;
  readonly source?: string | undefined;
}

interface Held {
  readonly network: BridgedNetwork;
  /** `undefined` for one that is shut. */
  readonly tunnel: HoldingTunnel | undefined;
  /** Of the rules that lead into the tunnel. */
  readonly unlead: () => void;
  /** How often in a row libvirt was seen not to run it; `undefined` until it was seen to. */
  missed: number | undefined;
}

/** How often it is looked for networks that the hook did not tell of, in milliseconds. */
const WATCH = 10_000;
/** Looks after which a network has stopped without a word: libvirt forgets one a moment before it takes the bridge down. */
const MAX_MISSED = 2;

export class HeldNetworks {
  readonly #options: NetworksOptions;
  // BOUNDED: the networks that libvirt starts.
  readonly #held = new Map<string, Held>();
  /** Files of networks that are none of our business, and of when they are. BOUNDED: the networks that libvirt runs. */
  readonly #others = new Map<string, number>();
  #watch: NodeJS.Timeout | undefined;
  #mustReconcile = false;
  /** Changes happen one after another. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: NetworksOptions) {
    this.#options = options;
  }

  /**
   * Takes over the networks that run already, before any tunnel starts. One whose tunnel is not known, or does not suit
   * it, is shut: there is nobody to refuse it to.
   * @returns the tunnels that must run
   */
  open(): Promise<string[]> {
    this.#watch ??= setInterval(() => {
      this.look().catch((error: unknown) =>
        this.#options.log.warn({}, `networks were not looked for: ${messageOf(error)}`),
      );
    }, WATCH).unref();
    return this.#inTurn(async () => {
      const networks = this.#running(this.#files());
      for (const network of networks) await this.#takeOver(network);
      for (const held of this.#held.values()) held.missed = 0;
      await this.#reconcile();
      return networks.map(({ pin }) => pin.tunnel);
    });
  }

  /** Takes away what a daemon before this one left of networks that do not run any more. */
  async #reconcile(): Promise<void> {
    const { platform, log } = this.#options;
    try {
      platform.forgetBridges?.();
      // Also of those that could not be read, or held: what stands around them stays.
      const keep = [...this.#files().keys()].flatMap((name) => FENCE_KEYS.map((key) => `${key}:${name}`));
      for (const kind of ['bridge', 'untranslated'] as const) await platform.fence?.reconcile(kind, keep);
      this.#mustReconcile = false;
    } catch (error) {
      this.#mustReconcile = true;
      log.warn({}, `what an earlier daemon left of networks could not be removed yet: ${messageOf(error)}`);
    }
  }

  /** What holds networks stays. */
  close(): void {
    clearInterval(this.#watch);
  }

  /** Finds what the hook did not tell of: it may not be installed, or the daemon was not there when a network stopped. */
  look(): Promise<void> {
    return this.#inTurn(async () => {
      const { log, tunnels } = this.#options;
      if (this.#mustReconcile) await this.#reconcile();
      const files = this.#files();
      for (const [name, held] of this.#held) {
        if (files.has(name)) held.missed = 0;
        else if (held.missed !== undefined && ++held.missed >= MAX_MISSED) {
          await this.#release(name);
          log.warn(
            fieldsOf(held.network),
            'network held no longer: libvirt does not run it, and the hook did not say so',
          );
        }
      }
      for (const network of this.#running(new Map([...files].filter(([name]) => !this.#held.has(name))))) {
        log.error(
          fieldsOf(network),
          "a network runs that the hook did not tell of: install it with 'sectunnel hook install'",
        );
        await this.#takeOver(network);
        const held = this.#held.get(network.name);
        if (held !== undefined) held.missed = 0;
        await tunnels.wanted(network.pin.tunnel).catch((error: unknown) => {
          log.error(fieldsOf(network), `its tunnel is not started: ${messageOf(error)}`);
        });
      }
    });
  }

  async #takeOver(network: BridgedNetwork): Promise<void> {
    const { log } = this.#options;
    try {
      try {
        await this.#hold(network, this.#fitting(network));
        log.info(fieldsOf(network), 'network held, it runs');
      } catch (error) {
        if (!(error instanceof ControlError)) throw error;
        log.error(fieldsOf(network), `the network is shut: ${error.message}`);
        await this.#hold(network, undefined);
      }
    } catch (error) {
      log.error(fieldsOf(network), `a running network cannot be held: ${messageOf(error)}`);
    }
  }

  /**
   * libvirt is about to start a network. Puts up the fence, then the rules, then starts the tunnel; does not wait for SAs.
   * @param wanted whether it still is, when all is done: libvirt may have given up meanwhile
   * @returns the tunnel that holds it; `undefined` when it names none
   * @throws ControlError, with nothing left behind, when the network must not start
   */
  start(xml: string, wanted: () => boolean = () => true): Promise<NetworkPin | undefined> {
    return this.#inTurn(async () => {
      const network = refusing(() => readNetwork(xml));
      if (network.pin === undefined) return undefined;
      const { name } = network;
      const { held, tunnel } = this.#check(network);
      try {
        await this.#hold(held, tunnel);
        await this.#options.tunnels.wanted(held.pin.tunnel);
        if (!wanted()) throw new ControlError('invalid-state', `whoever asked for network '${name}' has gone`);
      } catch (error) {
        await this.#release(name).catch((why: unknown) => {
          this.#options.log.warn(fieldsOf(held), `what was put up for the network stays: ${messageOf(why)}`);
        });
        throw error;
      }
      this.#options.log.info(fieldsOf(held), 'network held');
      return held.pin;
    });
  }

  /** libvirt has stopped a network. */
  stopped(name: string): Promise<void> {
    return this.#inTurn(async () => {
      const held = this.#held.get(name);
      if (held === undefined) return;
      await this.#release(name);
      this.#options.log.info(fieldsOf(held.network), 'network stopped, and held no longer');
    });
  }

  /** Rewrites a network that names a tunnel into what libvirt keeps, and has libvirt keep it. */
  async import({ xml, source }: DocumentText, define: boolean): Promise<NetImportResult> {
    const { pin, ...imported } = refusing(() => importNetwork(xml, source, (tunnel) => this.#tunnel(tunnel).device));
    if (define) await refusingSystem(() => defineNetwork(this.#options.libvirtSockets, imported.xml));
    return { ...imported, ...pin };
  }

  /** @throws ControlError when a tunnel holds networks that it could not hold with such a document */
  checkDocument(document: SectunnelDocument): void {
    for (const { network, tunnel } of this.#held.values()) {
      // One that is shut already is none the worse for it.
      const problem = tunnel?.document.name === document.name ? unfit(network, holdingTunnel(document)) : undefined;
      if (problem !== undefined) {
        throw new ControlError('invalid-state', `it holds network '${network.name}', and then could not: ${problem}`);
      }
    }
  }

  /** Follows a tunnel whose document has changed. */
  tunnelChanged(name: string): Promise<void> {
    return this.#inTurn(async () => {
      for (const { network } of [...this.#held.values()]) {
        if (network.pin.tunnel === name) await this.#takeOver(network);
      }
    });
  }

  /** None when the fence cannot be asked: what is known without it is told. */
  async #counters(): Promise<ReadonlyMap<string, FenceCounters>> {
    try {
      return (await this.#options.platform.fence?.counters()) ?? new Map();
    } catch (error) {
      this.#options.log.warn({}, `the fences of networks could not be asked: ${messageOf(error)}`);
      return new Map();
    }
  }

  /** In order of their names. */
  async list(): Promise<NetworkInfo[]> {
    if (this.#held.size === 0) return [];
    const counters = await this.#counters();
    const running = this.#files();
    return [...this.#held.values()]
      .map(({ network: { name, uuid, bridge, pin } }) => ({
        name,
        uuid,
        bridge,
        ...pin,
        running: running.has(name),
        tunnelState: this.#options.tunnels.state(pin.tunnel),
        counters: Object.assign({}, ...FENCE_KEYS.map((key) => counters.get(`${key}:${name}`))),
      }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** @throws ControlError when the network must not start */
  #check(network: LibvirtNetwork): { held: BridgedNetwork; tunnel: HoldingTunnel } {
    const { name, pin, bridge } = network;
    if (pin === undefined || bridge === undefined)
      throw new ControlError('bad-document', `it has no <bridge name='…'/>`);
    const held: BridgedNetwork = { ...network, pin, bridge };
    const tunnel = this.#fitting(held);
    const other = [...this.#held.values()].find((one) => one.network.bridge === bridge && one.network.name !== name);
    if (other !== undefined) {
      throw new ControlError(
        'invalid-state',
        `its bridge ${bridge} is that of network '${other.network.name}' already`,
      );
    }
    return { held, tunnel };
  }

  /** The tunnel of a network. @throws ControlError when there is none, or it cannot hold the network */
  #fitting(network: BridgedNetwork): HoldingTunnel {
    const tunnel = this.#tunnel(network.pin.tunnel);
    const problem = unfit(network, tunnel);
    if (problem !== undefined) throw new ControlError('bad-document', problem);
    return tunnel;
  }

  /** @throws ControlError when there is none of that name */
  #tunnel(name: string): HoldingTunnel {
    const tunnel = this.#options.tunnels.find(name);
    if (tunnel !== undefined) return tunnel;
    throw new ControlError(
      'not-found',
      `it names the tunnel '${name}', which is not defined; define it first ('sectunnel list --all' names those that are)`,
    );
  }

  /** The fence first: nothing gets out while the rest is put up. */
  async #hold(network: BridgedNetwork, tunnel: HoldingTunnel | undefined): Promise<void> {
    const { fence, leadBridge } = this.#options.platform;
    if (fence === undefined || leadBridge === undefined) {
      throw new ControlError(
        'unsupported',
        'this machine has no fence to hold networks with: Linux with nftables is wanted',
      );
    }
    await refusingSystem(async () => {
      await this.#fence(network.name, fenceParts(network, tunnel));
      const table = network.pin.mode === 'exclusive' ? tunnel?.steering?.table : undefined;
      const unlead = leadBridge(network.bridge, network.prefixes, table);
      this.#held.set(network.name, { network, tunnel, unlead, missed: this.#held.get(network.name)?.missed });
    });
  }

  /** What is closed first, and what opens last. */
  async #fence(name: string, parts: Readonly<Partial<Record<FenceKey, FencePart>>>): Promise<void> {
    const { fence } = this.#options.platform;
    for (const key of FENCE_KEYS) if (parts[key] !== undefined) await fence?.set(`${key}:${name}`, parts[key]);
    for (const key of FENCE_KEYS) if (parts[key] === undefined) await fence?.set(`${key}:${name}`, undefined);
  }

  async #release(name: string): Promise<void> {
    this.#held.get(name)?.unlead();
    await this.#fence(name, {});
    this.#held.delete(name);
  }

  /** The files that libvirt keeps for networks while they run, by name of the network. */
  #files(): Map<string, string> {
    // BOUNDED: the networks that libvirt runs.
    const files = new Map<string, string>();
    for (const folder of new Set(this.#options.libvirtSockets.map((socket) => join(dirname(socket), 'network')))) {
      for (const file of listed(folder)) {
        if (file.endsWith('.xml')) files.set(file.slice(0, -'.xml'.length), join(folder, file));
      }
    }
    return files;
  }

  /** Those networks that name a tunnel. */
  #running(files: ReadonlyMap<string, string>): BridgedNetwork[] {
    for (const file of this.#others.keys()) if (![...files.values()].includes(file)) this.#others.delete(file);
    return [...files.values()].flatMap((file) => {
      try {
        const { mtimeMs } = statSync(file);
        if (this.#others.get(file) === mtimeMs) return [];
        this.#others.set(file, mtimeMs);
        const network = readNetwork(readFileSync(file), file);
        const { pin, bridge } = network;
        if (pin === undefined || bridge === undefined) return [];
        this.#others.delete(file);
        return [{ ...network, pin, bridge }];
      } catch (error) {
        this.#options.log.error({ file }, `a running network cannot be read: ${messageOf(error)}`);
        return [];
      }
    });
  }

  /** One change after another, also when one fails. */
  #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(change);
    this.#turn = result.catch(() => undefined);
    return result;
  }
}

/** Empty where no libvirt has run yet, and where its folder is not for us: whoever may not read it may hold no networks. */
function listed(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if (error instanceof Error && 'code' in error) return [];
    throw error;
  }
}

function fieldsOf({ name, bridge, pin }: BridgedNetwork): object {
  return { network: name, bridge, tunnel: pin.tunnel, mode: pin.mode };
}
