/** A fence in memory: keeps the parts, and drops nothing. For tests and for hosts with devices in memory. */
import type { FenceCounters, FenceKeeper, FencePart } from './fence.ts';
import { FENCE_COUNTERS } from './fence.ts';

export class MemoryFence implements FenceKeeper {
  /** BOUNDED: by the owner's tunnels and bridges. */
  readonly parts: Map<string, FencePart> = new Map();

  set(key: string, part: FencePart | undefined): Promise<void> {
    if (part === undefined) this.parts.delete(key);
    else this.parts.set(key, part);
    return Promise.resolve();
  }

  reconcile(kind: FencePart['kind'], keep: readonly string[]): Promise<void> {
    for (const [key, part] of this.parts) if (part.kind === kind && !keep.includes(key)) this.parts.delete(key);
    return Promise.resolve();
  }

  mend(): Promise<number> {
    return Promise.resolve(0);
  }

  counters(): Promise<ReadonlyMap<string, FenceCounters>> {
    const zeros = [...this.parts].map(([key, { kind }]) => {
      return [key, Object.fromEntries(FENCE_COUNTERS[kind].map((name) => [name, 0]))] as const;
    });
    return Promise.resolve(new Map(zeros));
  }
}
