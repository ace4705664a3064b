/** The commands and reports between the main thread and its workers, and the memory that they share. */
import type { MessagePort } from 'node:worker_threads';
import type { SocketAddress } from '../../base/address.ts';
import type { PathReport } from '../../base/path-report.ts';
import type { PlaneReport, ReceiveCommand, SendCommand } from '../../engine/commands.ts';
import type { DropCounters } from '../../esp/drops.ts';
import type { DeviceDescriptor } from '../../tun/device.ts';
import type { UdpDescriptor, UdpSendError } from '../../tun/udp/udp.ts';

/** `send`: from the devices to the sockets; `receive`: from the sockets to the devices. */
export type WorkerRole = 'send' | 'receive';

/** Commands about descriptors, for both roles. The main thread opens and closes them. */
export type DescriptorCommand =
  | {
      readonly type: 'open-device';
      readonly device: number;
      readonly descriptor: DeviceDescriptor;
      readonly counters: Float64Array;
    }
  /** Once it is applied, the worker does not use the descriptor any more. */
  | { readonly type: 'close-device'; readonly device: number }
  | {
      readonly type: 'open-socket';
      readonly socket: number;
      readonly descriptor: UdpDescriptor;
      readonly counters: Float64Array;
    }
  | { readonly type: 'close-socket'; readonly socket: number };

export type WorkerCommand =
  | DescriptorCommand
  /** `scope`: the IPv6 zone of the command's remote address, which a copied address does not carry; 0 for none. */
  | { readonly type: 'send-plane'; readonly command: SendCommand; readonly scope: number }
  | { readonly type: 'receive-plane'; readonly command: ReceiveCommand }
  /** Only to be acknowledged: a worker that does not answer is taken for dead. */
  | { readonly type: 'alive' }
  | { readonly type: 'stop' };

export type WorkerReport =
  | PlaneReport
  /** An IKE datagram that came to a socket shared with ESP. */
  | {
      readonly type: 'datagram';
      readonly data: Uint8Array;
      readonly from: SocketAddress;
      readonly local: SocketAddress;
    }
  /** The device seems to have been deleted or moved. */
  | { readonly type: 'device-lost'; readonly device: number }
  /** Datagrams were larger than their path takes. */
  | { readonly type: 'too-large' }
  /** A router says that a datagram was larger than its link takes. */
  | { readonly type: 'path-report'; readonly report: PathReport }
  /** The system refuses datagrams, or ICMP says that they do not arrive. */
  | { readonly type: 'refused'; readonly remote: SocketAddress; readonly error: UdpSendError };

/** Acknowledges all commands up to number `applied`. */
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
  /** The host's clock minus that of `bootNow`, in milliseconds. */
  readonly clockOffset: number;
}

/** Places in the memory that a worker shares with the main thread. */
export const Control = {
  /** Commands that were given. */
  issued: 0,
  /** IKE datagrams under way to the main thread. */
  underWay: 1,
  /** IKE datagrams that were dropped because too many were under way. */
  overflow: 2,
  /** NAT keepalives, and datagrams without a byte. */
  keepalives: 3,
  empty: 4,
  /** ESP packets that are too large for any slot. */
  oversized: 5,
  /** The system's number of the thread. */
  thread: 6,
} as const;

export const CONTROL_BYTES: number = Object.keys(Control).length * Int32Array.BYTES_PER_ELEMENT;

/** IKE datagrams that may be under way. More are dropped: the peer sends them again. */
export const MAX_UNDER_WAY = 512;
