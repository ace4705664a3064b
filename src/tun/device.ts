/**
 * The interface of a device that hands over and takes whole IP packets: a Linux TUN, or its twin in memory.
 *
 * The owner works in turns: `onReadable` calls it, it reads batches, and either empties the device or is called
 * again. Nothing here waits, and nothing here throws on bad traffic: what cannot be passed on is counted.
 */
import type { PacketBatch } from '../base/batch.ts';

/** Why a device lost a packet. */
export type DeviceDropReason =
  /** Larger than a slot of the batch, or than the device can pass on. */
  | 'too-large'
  /** The device takes only IPv4 and IPv6 packets. */
  | 'not-ip'
  /** The virtio header (how to divide the packet, where its checksum is) makes no sense. */
  | 'bad-offload'
  /** The queue behind the device is full. */
  | 'queue-full'
  /** The interface is administratively down. */
  | 'interface-down'
  /** The device was closed, or taken away. */
  | 'closed'
  | 'io-error';

/** Counted since the device was opened. Live: the same object shows later values. */
export interface DeviceCounters {
  /** From the device to the program: what the host's applications send into the tunnel. */
  readPackets: number;
  readBytes: number;
  /** From the program to the device: what came out of the tunnel. */
  writtenPackets: number;
  writtenBytes: number;
  readonly dropped: Record<DeviceDropReason, number>;
}

/**
 * A device of whole IP packets, as a host works with it. Implement it to give a tunnel a network stack of your own.
 */
export interface PacketDevice {
  readonly name: string;
  /** The device that this is a share of: several tunnels may each have one. Missing for a device of one tunnel's own. */
  readonly shareOf?: PacketDevice;
  /** The largest packet in bytes that is read from it. What is written may be larger. */
  readonly mtu: number;
  readonly counters: Readonly<DeviceCounters>;
  /** What the system leaves to the device, in its own words, such as `tso`; may change as the system refuses. */
  readonly features: readonly string[];

  /**
   * Appends waiting packets to the batch until it is full or nothing is left. Never waits.
   * Returns how many were appended.
   */
  read(batch: PacketBatch): number;

  /** Writes every slot whose length is not 0. Returns how many were taken; the others are counted as dropped. */
  write(batch: PacketBatch): number;

  /**
   * Calls `handler` when packets wait, in a turn of its own. It may read as much or as little as it likes: while
   * packets are left it is called again. The later of two handlers replaces the earlier.
   */
  onReadable(handler: () => void): void;

  /**
   * Calls each `handler` once when the device ends: with `undefined` after `close()`, with the reason when it was taken
   * away (its interface was deleted) or can no longer be used.
   */
  onClosed(handler: (reason: Error | undefined) => void): void;

  /**
   * Lets other threads read and write by the descriptors, one for each queue; the device itself no longer does. Threads must
   * have stopped using a descriptor before `close`. Missing where there are no descriptors.
   */
  handOver?(): readonly DeviceDescriptor[];

  /** Looks whether the device is still there, and ends it if it is not. */
  checkAttached?(): void;

  /** Ends the device. After it nothing is read or written and no handler but `onClosed` is called. */
  close(): Promise<void>;
}

/** A device of the operating system's own. Plain data, good in all threads of the process. */
export interface DeviceDescriptor {
  readonly fd: number;
  /** The packets that pass it joined. */
  readonly offload: 'all' | 'tcp' | 'none';
}

export function newDeviceCounters(): DeviceCounters {
  return {
    readPackets: 0,
    readBytes: 0,
    writtenPackets: 0,
    writtenBytes: 0,
    dropped: {
      'too-large': 0,
      'not-ip': 0,
      'bad-offload': 0,
      'queue-full': 0,
      'interface-down': 0,
      closed: 0,
      'io-error': 0,
    },
  };
}

/** True for a byte that starts an IPv4 or IPv6 packet. */
export function startsIpPacket(firstByte: number): boolean {
  const version = firstByte >>> 4;
  return version === 4 || version === 6;
}
