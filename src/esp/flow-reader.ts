/** Reads the flows of the packets of one device and direction; fragments get the ports of their first (RFC 4301 §7.3). */
import type { PacketBatch } from '../base/batch.ts';
import { Flow, FlowError, Fragment, readFlow } from '../policy/flow.ts';
import type { FragmentTracker } from '../policy/fragments.ts';

export class FlowReader {
  /** Of the packet that was read last. */
  readonly flow: Flow = new Flow();
  readonly #fragments: FragmentTracker;

  constructor(fragments: FragmentTracker) {
    this.#fragments = fragments;
  }

  /** False when what the slot holds is no packet. */
  read(now: number, batch: PacketBatch, slot: number): boolean {
    const { flow } = this;
    if (readFlow(batch.buffer, batch.offset[slot]!, batch.length[slot]!, flow) !== FlowError.none) return false;
    if (flow.fragment !== Fragment.none) this.#fragments.resolve(flow, now);
    return true;
  }
}
