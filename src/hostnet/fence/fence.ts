/**
 * The fence: what keeps packets that a policy protects from leaving, or coming in, in the clear, whatever routes say and
 * whether or not the daemon lives. It is made of parts, one for each tunnel and each bridge, that are put in place and
 * taken away one by one. Implemented by `linux.ts` with nftables and, in memory, by `memory.ts`.
 */
import type { AddressRange, IpAddress } from '../../base/address.ts';
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

/** What is done with a packet that is met outside of the tunnel: `guard` and `discard` drop it, `pass` lets it go. */
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

/**
 * What is to pass in the clear bears this bit as its mark where rules cannot tell it otherwise, and go by the mark. Another
 * bit than those that Kubernetes, Tailscale and libvirt use.
 */
export const PASS_MARK = 0x0020_0000;
/** That of fragments that are, or may be, of packets which an entry with ports guards: rules see no ports in them. */
export const DEVICE_MARK = 0x0040_0000;

/** Of a tunnel: the first entry that a packet fits decides; what fits none passes. */
export interface TunnelFence {
  readonly kind: 'tunnel';
  /** What goes out by it and comes in by it is not clear text. */
  readonly device: string;
  /** Devices of other tunnels that may carry packets of this policy: what goes by them is no clear text either. */
  readonly beside: readonly string[];
  readonly own: OwnPackets;
  readonly outbound: readonly FenceEntry[];
  readonly inbound: readonly FenceEntry[];
  /**
   * What of these rules cannot tell bears a mark before it is routed, in their order: types of ICMP that pass `PASS_MARK`,
   * forwarded fragments `DEVICE_MARK`.
   */
  readonly marked: readonly FenceEntry[];
}

/**
 * Of a bridge whose guests have a tunnel. What passes between them, and between them and the host's own addresses there, is
 * no matter of any tunnel, whatever policies say of their addresses. Where they are `closed` they have nothing but the
 * tunnel: all else that would be forwarded is rejected, or to them dropped, and no other address of the host is theirs.
 */
export interface BridgeFence {
  readonly kind: 'bridge';
  readonly bridge: string;
  /** The devices of the tunnel: to and from them is forwarded. */
  readonly devices: readonly string[];
  readonly closed: boolean;
  /** Whether guests may ask the host's own name server at the bridge: it might ask on in the clear. */
  readonly dns: boolean;
}

/** Of a bridge whose guests' addresses are translated: not of what goes into the tunnel, which knows them as they are. */
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

export interface FenceKeeper {
  /** What was set, by its key. */
  readonly parts: ReadonlyMap<string, FencePart>;
  /**
   * Puts the part of that key in place, in the stead of the one that is there, or takes it away. At once or not at all;
   * one after another. Counters of a part go on.
   *
   * @param key says whose part it is (`tunnel:NAME`, `bridge:NAME`); the same in each run of the program
   * @throws Error saying what is missing, with the fence as it was
   */
  set(key: string, part: FencePart | undefined): Promise<void>;
  /**
   * Takes away the parts of a kind that a program which died left behind, but for those of `keep`, which stay as they are
   * until they are set. Until it is called everything stays.
   */
  reconcile(kind: FencePart['kind'], keep: readonly string[]): Promise<void>;
  /** From now on calls `onChange` when another program changed the fence, or that cannot be excluded: `mend` is due. @throws Error where that cannot be heard */
  watch?(onChange: () => void): void;
  /**
   * Compares what stands with what was set, in content, and puts right what differs, at once and without a moment in which
   * there is no fence.
   *
   * @param thorough also where no change was heard of; default true
   * @returns what was put right since the last call
   * @throws Error when it cannot be put right, or not be looked at
   */
  mend(thorough?: boolean): Promise<FenceDamage>;
  /** Of each part that was set. */
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
