/**
 * What is installed on this host for the networks that tunnels hold: a fence around each bridge, and policy routing of its
 * packets into the tunnel. It stays when the daemon ends.
 */
import { SectunnelError } from '../../base/error.ts';
import type { Logger } from '../../base/log.ts';
import { messageOf } from '../../base/text.ts';
import type { Platform } from '../../host/platform.ts';
import type { FenceCounters, FencePart } from '../../hostnet/fence/fence.ts';
import { refusingSystem } from '../control/refusing.ts';
import { type BridgedNetwork, FENCE_KEYS, type FenceKey, fenceParts, type HoldingTunnel } from './plan.ts';

export type NetworkPlatform = Pick<Platform, 'fence' | 'routeBridge' | 'forgetBridges' | 'foreignRules'>;

export interface Held {
  readonly network: BridgedNetwork;
  /** `undefined` for a network that is cut off: nothing passes. */
  readonly tunnel: HoldingTunnel | undefined;
  /** Why it is cut off. */
  readonly problem: string | undefined;
  /** Removes the policy routing into the tunnel. */
  readonly removeRouting: () => Promise<void>;
  /** How often in a row libvirt was seen not to run it; `undefined` until it was seen to. */
  missed: number | undefined;
}

export interface HeldTableOptions {
  readonly platform: NetworkPlatform;
  /** Whether libvirt's own rules for a network are gone, so that it is fenced more closely. */
  readonly isUnruled: (network: string) => boolean;
  readonly log: Logger;
}

/** Its methods that change something are for one caller at a time. */
export class HeldTable {
  readonly #options: HeldTableOptions;
  // BOUNDED: the networks that libvirt starts.
  readonly #held = new Map<string, Held>();

  constructor(options: HeldTableOptions) {
    this.#options = options;
  }

  get(network: string): Held | undefined {
    return this.#held.get(network);
  }

  all(): Held[] {
    return [...this.#held.values()];
  }

  /**
   * Installs the fence first: nothing gets out while the rest is installed.
   * @param problem why the network is cut off, where there is no tunnel
   * @throws SectunnelError
   */
  async hold(network: BridgedNetwork, tunnel: HoldingTunnel | undefined, problem?: string): Promise<void> {
    const { fence, routeBridge } = this.#options.platform;
    if (fence === undefined || routeBridge === undefined) {
      throw new SectunnelError('unsupported', 'this machine cannot fence networks: Linux with nftables is required');
    }
    await refusingSystem(async () => {
      await this.#fence(network, tunnel);
      const routing = network.pin.mode === 'exclusive' ? tunnel?.routing : undefined;
      const removeRouting = await routeBridge(network.bridge, network.prefixes, routing);
      const missed = this.#held.get(network.name)?.missed;
      this.#held.set(network.name, { network, tunnel, problem, removeRouting, missed });
    });
  }

  /** Adapts the fence to whether libvirt's own rules are there. */
  async refence(name: string): Promise<void> {
    const { network, tunnel } = this.#held.get(name)!;
    await this.#fence(network, tunnel);
  }

  async release(name: string): Promise<void> {
    await this.#held.get(name)?.removeRouting();
    await this.#setFence(name, {});
    this.#held.delete(name);
  }

  /** Removes what an earlier daemon left of other networks than these. */
  async reconcile(networks: Iterable<string>): Promise<void> {
    const { platform } = this.#options;
    platform.forgetBridges?.();
    const keep = [...networks].flatMap((name) => FENCE_KEYS.map((key) => keyOf(key, name)));
    for (const kind of ['bridge', 'untranslated'] as const) await platform.fence?.reconcile(kind, keep);
  }

  /** Packets that the fence of each network dropped, by reason; empty where the fence cannot be read, which is logged. */
  async drops(): Promise<(network: string) => FenceCounters> {
    let counters: ReadonlyMap<string, FenceCounters> = new Map();
    try {
      counters = (await this.#options.platform.fence?.counters()) ?? counters;
    } catch (error) {
      this.#options.log.warn({}, `the counters of the networks' fences cannot be read: ${messageOf(error)}`);
    }
    return (network) => Object.assign({}, ...FENCE_KEYS.map((key) => counters.get(keyOf(key, network))));
  }

  #fence(network: BridgedNetwork, tunnel: HoldingTunnel | undefined): Promise<void> {
    const { name } = network;
    return this.#setFence(name, fenceParts(network, tunnel, { unruled: this.#options.isUnruled(name) }));
  }

  /** Sets the parts that close something before it removes those that are not wanted any more. */
  async #setFence(name: string, parts: Readonly<Partial<Record<FenceKey, FencePart>>>): Promise<void> {
    const { fence } = this.#options.platform;
    for (const key of FENCE_KEYS) if (parts[key] !== undefined) await fence?.set(keyOf(key, name), parts[key]);
    for (const key of FENCE_KEYS) if (parts[key] === undefined) await fence?.set(keyOf(key, name), undefined);
  }
}

function keyOf(key: FenceKey, network: string): string {
  return `${key}:${network}`;
}
