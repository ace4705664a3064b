/**
 * A fence in memory: keeps the parts, and drops nothing. For tests and for hosts with devices in memory. What stands of a
 * part may be taken away by others, as in a kernel.
 */
import type { FenceCounters, FenceDamage, FenceKeeper, FencePart } from './fence.ts';
import { FENCE_COUNTERS } from './fence.ts';

export class MemoryFence implements FenceKeeper {
  /** What stands. BOUNDED: by the owner's tunnels and bridges. */
  readonly parts: Map<string, FencePart> = new Map();
  /** What was set. BOUNDED: by the owner's tunnels and bridges. */
  readonly #wanted = new Map<string, FencePart>();
  readonly #by = new Set<string>();
  #onChange: (() => void) | undefined;
  /** Why it cannot be put right. */
  refusal: Error | undefined;

  set(key: string, part: FencePart | undefined): Promise<void> {
    for (const parts of [this.parts, this.#wanted]) {
      if (part === undefined) parts.delete(key);
      else parts.set(key, part);
    }
    return Promise.resolve();
  }

  reconcile(kind: FencePart['kind'], keep: readonly string[]): Promise<void> {
    for (const [key, part] of this.parts) {
      if (part.kind !== kind || keep.includes(key)) continue;
      this.parts.delete(key);
      this.#wanted.delete(key);
    }
    return Promise.resolve();
  }

  watch(onChange: () => void): void {
    this.#onChange = onChange;
  }

  /** Another program takes a part away, or puts another one in its place. */
  tamper(key: string, part?: FencePart, by?: string): void {
    if (part === undefined) this.parts.delete(key);
    else this.parts.set(key, part);
    if (by !== undefined) this.#by.add(by);
    this.#onChange?.();
  }

  mend(): Promise<FenceDamage> {
    const lost = [...this.#wanted].filter(([key, part]) => this.parts.get(key) !== part);
    if (lost.length > 0 && this.refusal !== undefined) return Promise.reject(this.refusal);
    for (const [key, part] of lost) this.parts.set(key, part);
    const by = [...this.#by];
    this.#by.clear();
    return Promise.resolve({ found: lost.map(([key]) => `${key} was changed`), by });
  }

  counters(): Promise<ReadonlyMap<string, FenceCounters>> {
    const zeros = [...this.parts].map(([key, { kind }]) => {
      return [key, Object.fromEntries(FENCE_COUNTERS[kind].map((name) => [name, 0]))] as const;
    });
    return Promise.resolve(new Map(zeros));
  }

  close(): Promise<void> {
    this.#onChange = undefined;
    return Promise.resolve();
  }
}
