/**
 * The commands of the control plane to the data plane, and the reports that come back. They are plain data that may be copied
 * from thread to thread. Keys, counters and sequence numbers are in memory that both may share: the data plane writes counters
 * and sequence numbers, the control plane reads them.
 */
import type { CipherKeys } from '../crypto/types.ts';
import { type DropCounters, newDropCounters } from '../esp/drops.ts';
import type { TfcConfig } from '../esp/tfc.ts';
import type { LimitKind, SaLimits, SaState } from '../esp/usage.ts';
import type { Path } from '../ike/events.ts';
import type { PolicyEntry } from '../policy/database.ts';
import type { GuardEntries } from '../policy/guard.ts';
import type { SelectorPair } from '../policy/selector.ts';
import type { TransportHosts } from '../policy/transport.ts';
import type { HoldLimits } from './hold.ts';

/** Memory for counters: that of one thread, or such as threads share (`SharedArrayBuffer`). */
export type CounterMemory = (bytes: number) => ArrayBufferLike;

/** Indexes of a tunnel's own counters of its sending. */
export const SendCounter = {
  /** Packets that the policy lets bypass, which a device has no way to send. */
  bypassed: 0,
  /** Packets that wait for an SA now. */
  held: 1,
  /** Packets that waited and were then sent. */
  released: 2,
} as const;

const SEND_COUNTERS = 3;

/** Counters of a tunnel. */
export interface TunnelCounters {
  readonly outboundDrops: DropCounters;
  readonly sending: Float64Array;
  /** Packets that were known to belong to an SA of the tunnel. */
  readonly inboundDrops: DropCounters;
}

export function newTunnelCounters(memory: CounterMemory): TunnelCounters {
  const drops = newDropCounters().length;
  return {
    outboundDrops: new Float64Array(memory(drops * Float64Array.BYTES_PER_ELEMENT)),
    sending: new Float64Array(memory(SEND_COUNTERS * Float64Array.BYTES_PER_ELEMENT)),
    inboundDrops: new Float64Array(memory(drops * Float64Array.BYTES_PER_ELEMENT)),
  };
}

/** One direction of a CHILD SA. */
interface SaCommand {
  readonly type: 'install';
  /** Of the CHILD SA. */
  readonly id: number;
  readonly tunnel: number;
  readonly spi: number;
  /** Name of the child that the entries of the policy demand. */
  readonly child: string;
  /** Names of the algorithms. */
  readonly encryption: string;
  readonly integrity: string | undefined;
  /** The `DataPlane` that takes the command owns them, and wipes them; a plane copies what it needs. */
  readonly keys: CipherKeys;
  readonly esn: boolean;
  readonly selectors: SelectorPair;
  /** The hosts of an SA in transport mode. */
  readonly transport: TransportHosts | undefined;
  readonly limits: SaLimits;
  readonly path: Path;
  /** What the MSS of TCP is lowered to fit. */
  readonly clampMtu: number;
  readonly state: SaState;
}

export interface InstallOutbound extends SaCommand {
  /** The largest packet that goes out in one piece. */
  readonly mtu: number;
  /** The largest ESP packet that the path takes in one piece; 0 while that is not known. */
  readonly room: number;
  /** Of outer headers; `undefined` for that of each packet inside. */
  readonly dscp: number | undefined;
  /** How many threads send on it, when it is not one. */
  readonly sharers?: number;
  /** `undefined` in transport mode. */
  readonly tfc: TfcConfig | undefined;
}

export interface InstallInbound extends SaCommand {
  /** The device that its packets are for. */
  readonly device: number;
  /** What decides its packets; `undefined` when its selectors say it all. */
  readonly guard: GuardEntries | undefined;
  readonly replayWindow: number;
  readonly drops: DropCounters;
}

export type SendCommand =
  | {
      readonly type: 'add-device';
      readonly device: number;
      readonly fragmentSeed: number;
      /** Packets from a device of several tunnels that are for none of them. */
      readonly drops: DropCounters;
    }
  /** After its tunnels. */
  | { readonly type: 'remove-device'; readonly device: number }
  | {
      readonly type: 'add-tunnel';
      readonly tunnel: number;
      readonly device: number;
      /** Of the outbound direction, in the order in which they are asked. */
      readonly policy: readonly PolicyEntry[];
      readonly hold: HoldLimits;
      readonly counters: TunnelCounters;
    }
  | { readonly type: 'remove-tunnel'; readonly tunnel: number }
  /** Another policy, in the order in which it is asked; its SAs go on. Packets that wait for an SA are dropped. */
  | { readonly type: 'policy'; readonly tunnel: number; readonly policy: readonly PolicyEntry[] }
  /** Whether packets without an SA wait for one and are reported. `forget`: drops those that wait. */
  | { readonly type: 'hold'; readonly tunnel: number; readonly hold: boolean; readonly forget: boolean }
  /** Report again each SA that packets wait for. */
  | { readonly type: 'ask-again'; readonly tunnel: number }
  /**
   * The peer refuses SAs of these children, until the time that is given: packets for them do not wait, and their senders get
   * ICMP. `selectors`: only the SA for packets with such values.
   */
  | {
      readonly type: 'refuse';
      readonly tunnel: number;
      readonly children: readonly string[];
      readonly selectors: SelectorPair | undefined;
      readonly until: number;
    }
  /** Used for sending once it is activated. */
  | InstallOutbound
  /**
   * Packets leave on it from now on, those that wait first. `afterIke`: the peer can open them only after it has read
   * what IKE has just written.
   */
  | { readonly type: 'activate'; readonly id: number; readonly afterIke: boolean }
  | { readonly type: 'remove'; readonly id: number }
  | { readonly type: 'path'; readonly id: number; readonly path: Path }
  | {
      readonly type: 'fit';
      readonly id: number;
      readonly mtu: number;
      readonly room: number;
      readonly clampMtu: number;
    };

export type ReceiveCommand =
  | ReceiveSaCommand
  /** IKE offers the SPI: packets that come before its SA wait until it is installed (RFC 7296 §2.8). */
  | { readonly type: 'expect'; readonly spi: number; readonly until: number };

/** About an SA. */
export type ReceiveSaCommand =
  | InstallInbound
  /** Another SA replaced it. Its packets are still opened, but not reported any more; `remove` follows. */
  | { readonly type: 'supersede'; readonly id: number }
  | { readonly type: 'remove'; readonly id: number }
  | { readonly type: 'path'; readonly id: number; readonly path: Path }
  | { readonly type: 'fit'; readonly id: number; readonly clampMtu: number }
  /** Tunnels that share the device came or went. */
  | { readonly type: 'guard'; readonly id: number; readonly guard: GuardEntries | undefined };

/** What the data plane reports. */
export type PlaneReport =
  /**
   * A packet needs an SA of this child, and there is none. `selectors` are those of the SA where the child is populated from
   * packets, `trigger` is the packet: one selector a side.
   */
  | {
      readonly type: 'missing';
      readonly tunnel: number;
      readonly child: string;
      readonly selectors: SelectorPair | undefined;
      readonly trigger: SelectorPair;
    }
  | { readonly type: 'limit'; readonly id: number; readonly kind: LimitKind }
  /**
   * An authentic packet came. `path`: the one that it came by, if it is another than before and the packet is the newest.
   * `bare`: it came directly over IP, where the SA's own path is in UDP.
   */
  | { readonly type: 'received'; readonly id: number; readonly path: Path | undefined; readonly bare: boolean };

/** The data plane as the control plane sees it. Each half carries out its commands in the order in which they are given. */
export interface DataPlane {
  commandSender(command: SendCommand): void;
  commandReceiver(command: ReceiveCommand): void;
  /** ESP packets that were dropped on the way in, of all tunnels and of none, by reason. */
  readonly inboundDrops: DropCounters;
  /** Makes counters up to date, where several threads write them. */
  refresh?(): void;
  /** When `expire` is due next; `Infinity` for never. Missing, as is `expire`, where the data plane has a clock. */
  nextDeadline?(): number;
  /** Applies time limits, gives up packets that waited too long, and sends dummies. */
  expire?(now: number): void;
}
