/** What the main thread and its workers tell each other, and the memory that they share. */
import type { MessagePort } from 'node:worker_threads';
import type { SocketAddress } from '../../base/address.ts';
import type { PathReport } from '../../base/path-report.ts';
import type { PlaneReport, ReceiveCommand, SendCommand } from '../../engine/commands.ts';
import type { DropCounters } from '../../esp/drops.ts';
import type { DeviceDescriptor } from '../../tun/device.ts';
import type { UdpDescriptor, UdpSendError } from '../../tun/udp/udp.ts';

/** `send` reads devices and writes to sockets; `receive` the other way round. */
export type WorkerRole = 'send' | 'receive';

/** What both roles are told of descriptors, which the main thread opens and closes. */
export type DescriptorCommand =
  | {
      readonly type: 'open-device';
      readonly tunnel: number;
      readonly descriptor: DeviceDescriptor;
      readonly counters: Float64Array;
    }
  /** Once it is applied, the worker touches the descriptor no more. */
  | { readonly type: 'close-device'; readonly tunnel: number }
  | {
      readonly type: 'open-socket';
      readonly socket: number;
      readonly descriptor: UdpDescriptor;
      readonly counters: Float64Array;
    }
  | { readonly type: 'close-socket'; readonly socket: number };

export type WorkerCommand =
  | DescriptorCommand
  /** `scope` is the zone of the remote address in the command, if it has one: a copy of an address does not tell. */
  | { readonly type: 'send-plane'; readonly command: SendCommand; readonly scope: number }
  | { readonly type: 'receive-plane'; readonly command: ReceiveCommand }
  /** To be applied, and no more: whoever does not answer is taken for dead. */
  | { readonly type: 'alive' }
  | { readonly type: 'stop' };

export type WorkerReport =
  | PlaneReport
  /** Came to a socket that IKE and ESP share. */
  | {
      readonly type: 'datagram';
      readonly data: Uint8Array;
      readonly from: SocketAddress;
      readonly local: SocketAddress;
    }
  /** The device seems to have been taken away. */
  | { readonly type: 'device-lost'; readonly tunnel: number }
  /** Datagrams were larger than their path takes. */
  | { readonly type: 'too-large' }
  /** A router says so of one. */
  | { readonly type: 'path-report'; readonly report: PathReport }
  /** The system refuses datagrams, or ICMP tells that they do not arrive. */
  | { readonly type: 'refused'; readonly remote: SocketAddress; readonly error: UdpSendError };

/** All commands up to number `applied` are carried out. */
export interface WorkerOutput {
  readonly applied: number;
  readonly reports: readonly WorkerReport[];
}

export interface WorkerSetup {
  readonly role: WorkerRole;
  readonly port: MessagePort;
  /** An eventfd: written to when commands wait. */
  readonly wake: number;
  /** By `Control`. */
  readonly control: Int32Array;
  readonly inboundDrops: DropCounters;
  /** The name of the host's cryptographic provider. */
  readonly crypto: string;
  readonly fragmentSeed: number;
  /** What the host's clock shows when that of `bootNow` shows 0, in milliseconds. */
  readonly clockOffset: number;
}

/** Places in the memory that a worker shares with the main thread. */
export const Control = {
  /** Commands that were given. */
  issued: 0,
  /** IKE datagrams that are on their way to the main thread. */
  underWay: 1,
  /** Those that were dropped, because too many were. */
  overflow: 2,
  /** NAT keepalives, and datagrams of no length: they are for nobody. */
  keepalives: 3,
  empty: 4,
  /** ESP packets that are too large for any slot. */
  oversized: 5,
  /** The system's number of the thread. */
  thread: 6,
} as const;

export const CONTROL_BYTES: number = Object.keys(Control).length * Int32Array.BYTES_PER_ELEMENT;

/** IKE datagrams that may be under way: what is more is dropped, and sent again by the peer. */
export const MAX_UNDER_WAY = 512;
