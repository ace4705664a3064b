/** Reads the flows of the packets of one device and direction; fragments get the ports of their first (RFC 4301 §7.3). */
import type { PacketBatch } from '../base/batch.ts';
import { Flow, FlowError, Fragment, readFlow } from '../policy/flow.ts';
import { FragmentTracker, type FragmentTrackerOptions } from '../policy/fragments.ts';

export class FlowReader {
  /** Of the packet that was read last. */
  readonly flow: Flow = new Flow();
  readonly #options: FragmentTrackerOptions;
  /** Made with the first fragment: most devices never have one, and it takes more memory than all else of a tunnel. */
  #fragments: FragmentTracker | undefined;

  /** @param options of the tracker of fragments; one with a random seed is safer against floods of them */
  constructor(options: FragmentTrackerOptions = {}) {
    this.#options = options;
  }

  /** False when what the slot holds is no packet. */
  read(now: number, batch: PacketBatch, slot: number): boolean {
    const { flow } = this;
    if (readFlow(batch.buffer, batch.offset[slot]!, batch.length[slot]!, flow) !== FlowError.none) return false;
    if (flow.fragment !== Fragment.none) {
      this.#fragments ??= new FragmentTracker(this.#options);
      this.#fragments.resolve(flow, now);
    }
    return true;
  }
}
