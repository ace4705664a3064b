/** What the owner of an engine configures: tunnels. Plain data; durations are milliseconds. */
import type { TfcConfig } from '../esp/tfc.ts';
import type { ConnectionConfig } from '../ike/config.ts';
import type { PolicyEntry } from '../policy/database.ts';
import type { HoldLimits } from './hold.ts';
import type { RetryPolicy } from './retry.ts';

/** A tunnel: its connections, its policy, and when it is brought up. `planTunnel` makes it of a document. */
export interface TunnelConfig {
  /** Unique in the engine. */
  readonly name: string;
  /** Their names are unique in the engine; those of their children in the tunnel. */
  readonly connections: readonly ConnectionConfig[];
  /**
   * Entries of both directions; `child` of a protect entry names a child of one of the connections. Without any inbound
   * ones, what comes in is checked against the selectors of its SA alone.
   */
  readonly policy: readonly PolicyEntry[];
  /** `initiate`: wanted up, pursued for ever; `trap`: negotiated for the first packet; `respond`: left to the peer. */
  readonly start: 'initiate' | 'trap' | 'respond';
  /** What becomes of a tunnel whose peer is dead: nothing (a trap stays one), a trap, or attempts until it is up. */
  readonly dpdAction: 'clear' | 'trap' | 'restart';
  /** Packets, 64 to 65,536 (RFC 4303 §3.4.3). */
  readonly replayWindow: number;
  /** DSCP of outer headers, 0 to 63; left out: that of each packet inside (RFC 4301 §5.1.2.1). ECN is always copied. */
  readonly dscp?: number | undefined;
  /** Sizes that packets are padded to, and dummy packets (RFC 4303 §2.6, §2.7), of children in tunnel mode. */
  readonly tfc?: TfcConfig | undefined;
  /**
   * Tunnels with the same name here share a device, and their policies are one: of the entries of all that match a packet
   * the one with the highest priority decides. Left out: a device of its own.
   */
  readonly device?: string | undefined;
  /** The device's MTU. The MSS of TCP connections is lowered to it, and to what the path takes. */
  readonly mtu?: number;
  /** False to leave the MSS of TCP connections alone. */
  readonly clampMss?: boolean;
  readonly hold?: HoldLimits;
  readonly retry?: RetryPolicy;
}
