/**
 * The fence keeps packets that a policy protects from leaving, or coming in, in the clear, whatever routes say and whether or
 * not the daemon lives. It consists of parts, one for each tunnel and each bridge, that are installed and removed one by one. Implemented by `linux.ts` with nftables and, in memory, by `memory.ts`.
 */
import type { AddressRange, IpAddress } from '../../base/address.ts';
import { IKE_PORT, NAT_PORT } from '../../base/ports.ts';
import type { PortRange } from '../routes/routes.ts';

/**
 * Packets, as seen from here: `local` is the source of what goes out and the destination of what comes in. What is left
 * out fits everything.
 */
export interface PacketBox {
  readonly local: AddressRange;
  readonly remote: AddressRange;
  readonly protocol?: number | undefined;
  /** Of protocols with ports. */
  readonly localPorts?: PortRange | undefined;
  readonly remotePorts?: PortRange | undefined;
  /** Of ICMP and ICMPv6: type × 256 + code. */
  readonly icmp?: PortRange | undefined;
}

/** What happens to a packet outside of the tunnel: `guard` and `discard` drop it, `pass` lets it pass. */
export type FenceAction = 'guard' | 'pass' | 'discard';

export interface FenceEntry extends PacketBox {
  readonly action: FenceAction;
}

/** The packets of the tunnel itself, IKE and ESP: they pass. */
export interface OwnPackets {
  /** The other end; any when left out. */
  readonly peer: IpAddress | undefined;
  /** Local UDP ports of IKE, and of ESP in UDP. */
  readonly ports: readonly number[];
  /** UDP ports at which the other end is asked: what goes there may have got any source port by translation. */
  readonly peerPorts: readonly number[];
}

/** Of a tunnel whose IKE and ESP are in another routing domain than its device. */
export const ELSEWHERE: OwnPackets = { peer: { family: 4, value: 0n }, ports: [], peerPorts: [] };

/** IKE and ESP of any tunnel of this host: their peers are not known to each other. */
export function ofAnyTunnel({ ports }: OwnPackets): OwnPackets {
  return { peer: undefined, ports: [...new Set([IKE_PORT, NAT_PORT, ...ports])], peerPorts: [] };
}

/**
 * The mark of packets that are to pass in the clear where rules cannot recognise them otherwise. Not a bit that Kubernetes,
 * Tailscale or libvirt uses.
 */
export const PASS_MARK = 0x0020_0000;
/** The mark of fragments that may belong to packets which an entry with ports guards: rules see no ports in them. */
export const DEVICE_MARK = 0x0040_0000;

/** The part of a tunnel. The first entry that a packet fits decides; a packet that fits none passes. */
export interface TunnelFence {
  readonly kind: 'tunnel';
  /** The VRF of the packets that it is for; left out: the default domain. */
  readonly vrf?: string | undefined;
  /** Packets that go out and come in by it are not clear text. */
  readonly device: string;
  /** Devices of other tunnels that may carry packets of this policy: packets there are not clear text either. */
  readonly beside: readonly string[];
  readonly own: OwnPackets;
  readonly outbound: readonly FenceEntry[];
  readonly inbound: readonly FenceEntry[];
  /**
   * For the host's own packets that match none of `outbound` and leave by no tunnel at all: without the rules of policy
   * routing they may have got a source that the policy does not know.
   */
  readonly anySource: readonly FenceEntry[];
  /**
   * Entries whose packets are marked before they are routed, because rules cannot recognise them: types of ICMP that pass get
   * `PASS_MARK`, forwarded fragments `DEVICE_MARK`.
   */
  readonly marked: readonly FenceEntry[];
}

/**
 * The part of a bridge whose guests have a tunnel. No policy applies to packets between guests, or between guests and the
 * host's own addresses there. `closed` guests have nothing but the tunnel: other packets that would be forwarded from them
 * are rejected, those to them dropped, and they reach no other address of the host.
 */
export interface BridgeFence {
  readonly kind: 'bridge';
  readonly bridge: string;
  /** The devices of the tunnel: to and from them is forwarded. */
  readonly devices: readonly string[];
  readonly closed: boolean;
  /** Whether guests may query the host's own name server at the bridge, which may forward queries in the clear. */
  readonly dns: boolean;
}

/** Exempts packets into the tunnel from address translation at a bridge: the policy has the guests' own addresses. */
export interface UntranslatedFence {
  readonly kind: 'untranslated';
  readonly bridge: string;
  readonly device: string;
}

export type FencePart = TunnelFence | BridgeFence | UntranslatedFence;

/** Packets by the name of the counter, such as `clear-out`. */
export type FenceCounters = Readonly<Record<string, number>>;

/** Counters of each kind of part. */
export const FENCE_COUNTERS: Readonly<Record<FencePart['kind'], readonly string[]>> = {
  tunnel: ['clear-out', 'clear-in', 'discarded'],
  bridge: ['forward-out', 'forward-in', 'host'],
  untranslated: [],
};

/** Names of the bridges that parts are of. */
export function bridgesIn(parts: ReadonlyMap<string, FencePart>): string[] {
  const bridges: string[] = [];
  for (const part of parts.values()) if (part.kind === 'bridge') bridges.push(part.bridge);
  return bridges;
}

/** What is compared with what is wanted: `reported` means what the kernel reported as changed. */
export type LookScope = 'everything' | 'reported';

export interface FenceKeeper {
  /** What was set, by its key. */
  readonly parts: ReadonlyMap<string, FencePart>;
  /**
   * Installs the part with that key, in place of the one that is there, or removes it: whole or not at all. Changes happen one
   * after another. Counters of a part go on.
   *
   * @param key the owner of the part (`tunnel:NAME`, `bridge:NAME`); the same in each run of the program
   * @throws Error saying what is missing; then the fence is as before
   */
  set(key: string, part: FencePart | undefined): Promise<void>;
  /**
   * Removes the parts of a kind that an earlier run left, except those of `keep`, which stay until they are set. Until it is
   * called everything stays.
   */
  reconcile(kind: FencePart['kind'], keep: readonly string[]): Promise<void>;
  /**
   * Calls `onChange` from now on when another program changed the fence, or may have: `mend` is due.
   * @throws Error where the kernel does not report changes
   */
  watch?(onChange: () => void): void;
  /**
   * Compares what is installed with what was set, by content, and restores what differs, without a moment in which there is no
   * fence.
   *
   * @param scope default `everything`
   * @returns what was restored since the last call
   * @throws Error when it cannot be restored or read
   */
  mend(scope?: LookScope): Promise<FenceDamage>;
  /** The counters of each part that was set. */
  counters(): Promise<ReadonlyMap<string, FenceCounters>>;
  /** Ends the watch; the fence stays. */
  close?(): Promise<void>;
}

/** What another program did to the fence. */
export interface FenceDamage {
  /** In words; empty when the fence was whole. */
  readonly found: readonly string[];
  /** The programs, where the system says: `nft, process 4711`. */
  readonly by: readonly string[];
}
