/**
 * What carries packets between the devices and the sockets of a host: its own event loop (`inline-carrier.ts`), or worker
 * threads (`workers/carrier.ts`). A carrier has the control plane that commands it.
 */
import type { SocketAddress } from '../base/address.ts';
import type { PathReport } from '../base/path-report.ts';
import type { ControlPlane } from '../engine/control-plane.ts';
import type { EngineCounters, EngineOptions } from '../engine/options.ts';
import type { DeviceCounters, PacketDevice } from '../tun/device.ts';
import type { OwnerErrorHandler } from '../tun/owner-calls.ts';
import type { UdpCounters, UdpSendError, UdpSocket } from '../tun/udp/udp.ts';
import type { SocketPool } from './sockets.ts';
import type { WorkerStatus } from './workers/handle.ts';

export interface CarrierOptions {
  readonly engine: EngineOptions;
  readonly sockets: () => SocketPool;
  readonly deviceOf: (tunnel: string) => PacketDevice | undefined;
  /** Asks for the MTU of paths, where it is time to: packets are about to be sent, or some were too large. */
  readonly checkPaths: () => void;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  /** Carries out what the control plane wants done. */
  readonly drain: () => void;
  readonly onError: OwnerErrorHandler;
  /** A router says that a packet of ours was too large. */
  readonly onPathReport: (report: PathReport) => void;
  /** The system, or ICMP, refuses datagrams to `remote`. */
  readonly onRefusal: (remote: SocketAddress, error: UdpSendError) => void;
  /** What a person should know, a sentence. */
  readonly onNote: (text: string) => void;
}

export interface PacketCarrier {
  readonly engine: ControlPlane;
  /** How many threads read ESP, where it comes to the same port as IKE; 0 for the event loop alone. */
  readonly espQueues: number;
  /** Resolved when packets can be carried. @throws Error when they cannot */
  ready(): Promise<void>;
  /** Takes a datagram that came to a socket in the event loop. */
  receive(data: Uint8Array, remote: SocketAddress, local: SocketAddress, trafficClass: number): void;
  /** Uses a socket from now on. @throws Error when that cannot be */
  openSocket(socket: UdpSocket): void;
  /** Resolved when the carrier has let go of the socket. */
  closeSocket(socket: UdpSocket): Promise<void>;
  /** The system told errors of datagrams that were sent. */
  socketErrors(): void;
  /** @throws Error, saying what to do, for a device whose packets cannot be carried */
  checkDevice(device: PacketDevice): void;
  /** Reads the packets of a device, by the engine's number of it, from now on. @throws Error when that cannot be */
  openDevice(index: number, device: PacketDevice): void;
  /** Resolved when the carrier has let go of the device. */
  closeDevice(index: number): Promise<void>;
  /** Sends and writes what the control plane, or the engine, has for the network and the devices. */
  transmit(): void;
  /** A question of the control plane was answered: packets that came early may have an SA now. */
  settle(): void;
  /** What went through a device, and what it lost. */
  deviceCounters(index: number, device: PacketDevice): Readonly<DeviceCounters>;
  /** Counted at all sockets by others than the sockets of the event loop. */
  socketCounters(): Readonly<UdpCounters> | undefined;
  /** Datagrams that reached neither IKE nor ESP. */
  strayCounters(): Readonly<EngineCounters>;
  /** Makes what the control plane shows of packets up to date. */
  refresh(): void;
  /** The worker threads; `undefined` without any. */
  status(): readonly WorkerStatus[] | undefined;
  close(): Promise<void>;
}
