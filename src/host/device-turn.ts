/** Reads from and writes to a tunnel's device, in the event loop as in workers. */
import { PacketBatch } from '../base/batch.ts';
import { MIN_MTU } from '../base/mtu.ts';
import type { PacketDevice } from '../tun/device.ts';

/** Batches that are read from a device before others have their turn. */
export const BATCHES_PER_TURN = 4;
/** No ICMP message to the sender of a packet is larger: what every IPv6 link takes. */
const MAX_DEVICE_WRITE = MIN_MTU[6];

/** Reads a device batch by batch until nothing is left, or others must have their turn. */
export function readTurn(
  device: Pick<PacketDevice, 'read'>,
  batch: PacketBatch,
  carry: (batch: PacketBatch) => void,
  batches: number = BATCHES_PER_TURN,
): void {
  for (let turn = 0; turn < batches; turn++) {
    batch.clear();
    if (device.read(batch) === 0) return;
    carry(batch);
  }
}

/** One packet at a time for a device, beside what comes out of its tunnel. */
export class DeviceWriteBatch {
  readonly #batch = new PacketBatch(1, MAX_DEVICE_WRITE);

  /** The batch with this packet in it. */
  holding(packet: Uint8Array): PacketBatch {
    this.#batch.clear();
    this.#batch.push(packet);
    return this.#batch;
  }
}
