/**
 * Both halves of the data plane in the engine's own thread: commands are carried out at once. ESP packets are gathered
 * until their owner has read all that waited, and opened together.
 */
import type { PacketBatch } from '../base/batch.ts';
import type { CryptoProvider, RandomSource } from '../crypto/types.ts';
import { type DropCounters, DropReason, newDropCounters } from '../esp/drops.ts';
import type { Path } from '../ike/events.ts';
import { MAX_PACKET, newPacketBatch } from './batches.ts';
import type { DataPlane, PlaneReport, ReceiveCommand, SendCommand } from './commands.ts';
import { ReceivePlane } from './receive-plane.ts';
import { SendPlane } from './send-plane.ts';
import { wipeKeys } from './suite.ts';
import { forEachTag } from './tags.ts';

export interface InlinePlanesOptions {
  readonly crypto: CryptoProvider;
  readonly random: RandomSource;
  readonly fragmentSeed: number;
  /** The time of the call that is being served. */
  readonly now: () => number;
  readonly report: (report: PlaneReport) => void;
  readonly onReleased: (batch: PacketBatch) => void;
  readonly onDeviceWrite: (device: number, packet: Uint8Array) => void;
  readonly allocate?: ((bytes: number) => Uint8Array) | undefined;
}

export class InlinePlanes implements DataPlane {
  readonly sending: SendPlane;
  readonly receiving: ReceivePlane;
  readonly inboundDrops: DropCounters = newDropCounters();
  readonly #now: () => number;
  readonly #gathered: PacketBatch;
  readonly #gatheredPaths: Path[] = [];

  constructor({ crypto, random, fragmentSeed, now, report, onReleased, onDeviceWrite, allocate }: InlinePlanesOptions) {
    this.#now = now;
    this.sending = new SendPlane({ crypto, random, report, onReleased, onDeviceWrite, maxPacket: MAX_PACKET });
    this.receiving = new ReceivePlane({ crypto, report, fragmentSeed, drops: this.inboundDrops });
    this.#gathered = newPacketBatch(allocate);
  }

  commandSender(command: SendCommand): void {
    try {
      this.sending.apply(this.#now(), command);
    } finally {
      if (command.type === 'install') wipeKeys(command.keys);
    }
  }

  commandReceiver(command: ReceiveCommand): void {
    try {
      this.receiving.apply(command);
    } finally {
      if (command.type === 'install') wipeKeys(command.keys);
    }
    for (const { data, path, trafficClass } of this.receiving.takeEarly()) {
      if (!this.gather(path, data, trafficClass)) this.inboundDrops[DropReason.unknownSpi]!++;
    }
  }

  /** Whether ESP packets wait for `flush`. */
  get hasGathered(): boolean {
    return this.#gathered.count > 0;
  }

  /** Whether no more can be gathered. */
  get isFull(): boolean {
    return this.#gathered.count === this.#gathered.capacity;
  }

  /** False when there is no room, or the packet is too large. */
  gather(path: Path, data: Uint8Array, trafficClass: number): boolean {
    const slot = this.#gathered.push(data);
    if (slot < 0) return false;
    this.#gatheredPaths[slot] = path;
    this.#gathered.trafficClass[slot] = trafficClass;
    return true;
  }

  /** Opens what was gathered. `deliver` is called once for each device that packets came out for. */
  flush(now: number, deliver: (device: number, batch: PacketBatch) => void): void {
    const batch = this.#gathered;
    this.receiving.open(now, batch, this.#gatheredPaths);
    forEachTag(batch, (tag) => deliver(tag, batch));
    batch.clear();
  }

  /** When `expire` is due next; `Infinity` for never. */
  nextDeadline(): number {
    return Math.min(this.sending.nextDeadline(), this.receiving.nextDeadline());
  }

  expire(now: number): void {
    this.receiving.expire(now);
    this.sending.expire(now);
  }
}
