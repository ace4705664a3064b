/** The batches in which packets are carried, in an engine as in workers. */
import { PacketBatch } from '../base/batch.ts';

/** Packets that are carried at a time: read from a device, or gathered until they are opened. */
const BATCH_PACKETS = 64;
/** No IP packet is larger; one byte more, for slots that start where lines of the cache do. */
export const MAX_PACKET = 0x1_0000;

/** A batch as packets of any size are carried in. @param allocate where its memory comes from; default: the heap */
export function newPacketBatch(allocate?: (bytes: number) => Uint8Array): PacketBatch {
  return new PacketBatch(BATCH_PACKETS, MAX_PACKET, undefined, undefined, allocate);
}
