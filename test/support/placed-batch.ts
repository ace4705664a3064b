/** Packets as a socket with GRO is read: one right behind the other, in a batch that takes each where it lies. */
import { PacketBatch } from '../../src/base/batch.ts';

export function placedBatch(
  packets: readonly Uint8Array[],
  allocate = (bytes: number): Uint8Array => new Uint8Array(bytes),
): PacketBatch {
  const landing = packets.reduce((sum, packet) => sum + packet.length, 0);
  const largest = Math.max(1500, ...packets.map(({ length }) => length));
  const batch = new PacketBatch(packets.length, largest, undefined, undefined, (bytes) => allocate(bytes + landing));
  let at = 0;
  for (const packet of packets) {
    batch.landing.set(packet, at);
    batch.place(batch.landing.subarray(at, at + packet.length));
    at += packet.length;
  }
  return batch;
}
