/** What an engine is made with, and what comes out of it beside events. */
import type { IpAddress } from '../base/address.ts';
import type { CryptoProvider, RandomSource } from '../crypto/types.ts';
import type { EndpointLimits, RetransmitPolicy } from '../ike/config.ts';
import type { Path } from '../ike/events.ts';
import type { CounterMemory, DataPlane } from './commands.ts';

/** What both planes need, and IKE. */
export interface CommonOptions {
  readonly crypto: CryptoProvider;
  readonly random: RandomSource;
  readonly limits?: Partial<EndpointLimits>;
  readonly retransmit?: Partial<RetransmitPolicy>;
  /** The local address from which packets to `remote` leave; asked when a connection names none. */
  readonly localAddressFor?: (remote: IpAddress, vrf?: string) => IpAddress | undefined;
  /** Whether the owner can send and receive ESP straight over IP, as protocol 50: on paths without ports. */
  readonly rawEsp?: boolean;
  /** The engine keeps the keys of its CHILD SAs beside the data plane, for `saveState`. Default: it does not. @internal */
  readonly resumable?: boolean;
}

export interface ControlPlaneOptions extends CommonOptions {
  /**
   * Makes what carries the packets. It must not call back before the control plane is made.
   * @param fragmentSeed 32 random bits, secret: knowing them, an attacker could choose fragments that compete for the same record
   */
  readonly plane: (fragmentSeed: number) => DataPlane;
  /** Where the data plane counts; must be shared memory when that is in another thread. Default: the heap. */
  readonly counterMemory?: CounterMemory | undefined;
}

/** What an engine is made with. `crypto` and `random` are required. */
export interface EngineOptions extends CommonOptions {
  /** Where batches get their memory, such as one that devices work in too. Default: the heap. */
  readonly allocate?: ((bytes: number) => Uint8Array) | undefined;
}

/** A UDP payload to send; without ports, an ESP packet. */
export interface Transmit {
  readonly path: Path;
  readonly data: Uint8Array;
  /** DSCP and ECN of its IP header. */
  readonly trafficClass: number;
}

/** A packet for the tunnel's device: the ICMP message to the sender of a packet that could not be carried. */
export interface DeviceWrite {
  readonly tunnel: string;
  readonly packet: Uint8Array;
}

/** Datagrams that reached neither IKE nor ESP, and ICMP about those that were sent. */
export interface ControlCounters {
  keepalives: number;
  /** Without a byte. */
  empty: number;
  /** ESP packets that came when the owner should have flushed, or to a control plane that works without ESP. */
  overflow: number;
  /** ICMP that said that a packet of ours was too large, and was not believed, or said nothing new. */
  'path-report-ignored': number;
}

/** The counters of an engine: those of its control plane, and ESP packets too large for a slot. */
export interface EngineCounters extends ControlCounters {
  /** ESP packets that no slot is large enough for. */
  oversized: number;
}
