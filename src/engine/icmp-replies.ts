/** ICMP messages to the senders of packets that a tunnel does not carry, at a bounded rate (RFC 1812 §4.3.2.8). */
import type { PacketBatch } from '../base/batch.ts';
import { TokenBucket } from '../base/token-bucket.ts';
import { mayBeTold, tooBigMessage, type UnreachableReason, unreachableMessage } from '../esp/icmp-error.ts';
import { Flow, FlowError, readFlow } from '../policy/flow.ts';

/** Messages a second, and at once. Without the size that fits, connections hang, so those messages have their own bucket. */
const RATE = [100, 50] as const;

export class IcmpReplies {
  readonly #write: (packet: Uint8Array) => void;
  readonly #tooBig = new TokenBucket(...RATE);
  readonly #unreachable = new TokenBucket(...RATE);
  readonly #flow = new Flow();

  /** @param write takes a packet for the tunnel's device */
  constructor(write: (packet: Uint8Array) => void) {
    this.#write = write;
  }

  /** The packet in a slot does not fit: `mtu` is what does. */
  tooBig(now: number, batch: PacketBatch, slot: number, flow: Flow, mtu: number): void {
    if (mayBeTold(flow) && this.#tooBig.take(now))
      this.#send(tooBigMessage(batch.buffer, batch.offset[slot]!, flow, mtu));
  }

  /** The packet in a slot is not carried. */
  unreachable(now: number, batch: PacketBatch, slot: number, flow: Flow, reason: UnreachableReason): void {
    this.#unreachableAt(now, batch.buffer, batch.offset[slot]!, flow, reason);
  }

  /** The same for a packet that has waited. */
  unreachableHeld(now: number, packet: Uint8Array, reason: UnreachableReason): void {
    if (readFlow(packet, 0, packet.length, this.#flow) !== FlowError.none) return;
    this.#unreachableAt(now, packet, 0, this.#flow, reason);
  }

  #unreachableAt(now: number, buffer: Uint8Array, at: number, flow: Flow, reason: UnreachableReason): void {
    if (mayBeTold(flow) && this.#unreachable.take(now)) this.#send(unreachableMessage(buffer, at, flow, reason));
  }

  #send(message: Uint8Array | undefined): void {
    if (message !== undefined) this.#write(message);
  }
}
