/** What the verbs of the control protocol give, as JSON; docs/status.md tells it to people. */
import type { ErrorCode } from '../base/error.ts';
import type { Difference } from '../config/differences.ts';
import type { TunnelEventName } from '../host/narrate.ts';
import type { CheckResult, RekeyResult } from '../host/operations.ts';
import type { TunnelStatus, WorkersStatus } from '../host/status.ts';
import type { PkiReport } from '../pki/check.ts';
import type { Renewal } from '../plan/renewal.ts';

export interface ErrorObject {
  readonly code: ErrorCode;
  readonly message: string;
}

export interface TunnelInfo {
  readonly name: string;
  readonly uuid: string;
  readonly active: boolean;
  /** It does not run, and is started as soon as it can be; the packets that its policy protects are dropped until then. */
  readonly retrying: boolean;
  readonly persistent: boolean;
  /** It runs, or is to run again, with another document than the one that is kept. */
  readonly outdated: boolean;
  readonly autostart: boolean;
  /** Name of the TUN device while active. */
  readonly device: string | undefined;
  /** As in `TunnelStatus`; `waiting to retry` while `retrying`. */
  readonly state: string;
  /** Seconds since it came into that state, as far as this daemon saw it. */
  readonly since: number;
  /** As in `TunnelStatus`. */
  readonly degraded: readonly string[];
  /** As in `TunnelStatus`. */
  readonly nothingReceived: readonly string[];
}

export interface ListResult {
  readonly tunnels: readonly TunnelInfo[];
  /** Names of tunnels that are to run and of which no document can be read. */
  readonly unreadable: readonly string[];
}

/** Who keeps a secret: the daemon in its own folder, or libvirt. */
export type SecretSource = 'sectunnel' | 'libvirt';

export interface SecretInfo {
  readonly uuid: string;
  readonly source: SecretSource;
  readonly usage: string | undefined;
  /** `undefined` for libvirt's: to know it, the value would have to be read. */
  readonly hasValue: boolean | undefined;
  readonly description: string | undefined;
}

export interface SecretList {
  readonly secrets: readonly SecretInfo[];
  /** Why secrets may be missing from the list. */
  readonly notes: readonly string[];
}

export interface DefineResult {
  readonly name: string;
  readonly uuid: string;
  readonly warnings: readonly string[];
  /** The document says what the one before said, and nothing was done. */
  readonly unchanged?: boolean;
  /** Of a tunnel that runs with the document: what of it stayed, and what was replaced. */
  readonly renewal?: Renewal | undefined;
}

export interface StartResult {
  readonly name: string;
  readonly device: string;
  readonly warnings: readonly string[];
}

/** Whether the peers of a tunnel answer, for each IKE SA. */
export interface ProbeResult {
  readonly name: string;
  readonly peers: readonly CheckResult[];
}

/** What became of the SAs that were to be replaced. */
export interface RekeyedResult {
  readonly name: string;
  readonly sas: readonly RekeyResult[];
}

/** What came of one of many tunnels that are changed by one request. */
export interface Outcome {
  /** Of the tunnel as it was asked for; of a document that was not defined, what it is called in messages. */
  readonly name: string;
  readonly warnings?: readonly string[];
  /** Why it was not done. */
  readonly error?: ErrorObject;
}

/** How far a change of many tunnels is. */
export interface Progress {
  readonly done: number;
  readonly failed: number;
  readonly remaining: number;
  /** Those since the progress before. */
  readonly outcomes: readonly Outcome[];
}

export interface EachResult {
  readonly done: number;
  readonly failed: number;
}

/** What the definitions on the disk changed when they were read again; names of tunnels. */
export interface ReloadResult {
  readonly defined: readonly string[];
  readonly changed: readonly ReloadedChange[];
  readonly forgotten: readonly Reloaded[];
  readonly unchanged: number;
  /** What could not be taken over, with file and line; what was known of these tunnels stays. */
  readonly problems: readonly string[];
  readonly warnings: readonly string[];
}

/** `active`: it goes on with the document that it runs with, until it is restarted or stopped. */
export interface Reloaded {
  readonly name: string;
  readonly active: boolean;
}

export interface ReloadedChange extends Reloaded {
  /** Between the definition before and that of now. */
  readonly differences: readonly Difference[];
  /** Of one that is active: what `update --live` would keep and replace to have it run with the definition of now. */
  readonly renewal?: Renewal | undefined;
}

/** What happened to a tunnel: the lines of `sectunnel event`. */
export interface TunnelEvent {
  /** ISO 8601, UTC. */
  readonly time: string;
  readonly tunnel: string;
  readonly event: TunnelEventName;
  readonly detail: string;
}

export interface StatusResult {
  readonly version: string;
  readonly pid: number;
  /** Seconds since the daemon began. */
  readonly uptime: number;
  readonly crypto: string;
  /** How packets get to and from the system, by what they pass: `{ udp: ['gro', 'gso'], tun: ['csum', 'tso'] }`. */
  readonly io: Readonly<Record<string, readonly string[]>>;
  readonly workers: WorkersStatus;
  /**
   * File descriptors of the daemon: how many are open, how many may be, and how many of these tunnels do not get. `undefined`
   * where that is not known.
   */
  readonly descriptors: { readonly open: number; readonly limit: number; readonly reserve: number } | undefined;
  readonly tunnels: readonly TunnelStatus[];
  /** libvirt's networks that these tunnels hold. */
  readonly networks: readonly NetworkInfo[];
  /** Messages that belong to no tunnel, by reason. */
  readonly counters: Readonly<Record<string, number>>;
}

/** A libvirt network that a tunnel holds. */
export interface NetworkInfo {
  readonly name: string;
  readonly uuid: string | undefined;
  readonly bridge: string;
  readonly tunnel: string;
  readonly mode: 'exclusive' | 'selective';
  /** Whether libvirt runs it. */
  readonly running: boolean;
  /** Why less may pass than its document says; `undefined` when all is well. */
  readonly problem: string | undefined;
  /** As in `TunnelStatus`. */
  readonly tunnelState: string;
  /** Packets that its fence dropped, by reason. */
  readonly drops: Readonly<Record<string, number>>;
}

export interface NetImportResult {
  readonly name: string;
  readonly tunnel: string;
  readonly mode: 'exclusive' | 'selective';
  readonly xml: string;
  /** What was changed and why, a sentence each. */
  readonly changes: readonly string[];
}

/** What `pki-check` finds, for each `<auth type='x509'>` of a document. */
export interface PkiCheckResult {
  readonly name: string;
  readonly sides: readonly (PkiReport & { readonly side: 'both' | 'local' | 'remote'; readonly line: number })[];
}
