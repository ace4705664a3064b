/**
 * Remembers for which packets the peer or its policy has just refused an SA (RFC 4301 §5.1.1): until the next attempt they
 * do not wait.
 */
import type { CompiledSelectors } from '../policy/compiled.ts';
import type { Flow } from '../policy/flow.ts';

/** Keys of one child: those of SAs that are populated from packets, else 0. */
const MAX_KEYS = 1_024;
/** Parts of one child. Each is looked at for every packet that has no SA. */
const MAX_PARTS = 16;

interface RefusedPart {
  readonly selectors: CompiledSelectors;
  readonly until: number;
}

export class Refusals {
  /** By child and key: until when. BOUNDED: children by the policy, MAX_KEYS of each. */
  readonly #until = new Map<string, Map<number, number>>();
  /** By child, the oldest first. BOUNDED: children by the policy, MAX_PARTS of each. */
  readonly #parts = new Map<string, RefusedPart[]>();

  add(child: string, key: number, until: number): void {
    let keys = this.#until.get(child);
    if (keys === undefined) {
      keys = new Map();
      this.#until.set(child, keys);
    }
    keys.delete(key);
    keys.set(key, until);
    const [oldest] = keys.keys();
    if (keys.size > MAX_KEYS && oldest !== undefined) keys.delete(oldest);
  }

  /** An SA for a part of the child's packets was refused. */
  addPart(child: string, selectors: CompiledSelectors, until: number): void {
    const parts = [...(this.#parts.get(child) ?? []), { selectors, until }];
    this.#parts.set(child, parts.slice(-MAX_PARTS));
  }

  /** Whether the last refusal still holds. */
  holds(now: number, child: string, key: number): boolean {
    const keys = this.#until.get(child);
    const until = keys?.get(key);
    if (keys === undefined || until === undefined) return false;
    if (until > now) return true;
    keys.delete(key);
    return false;
  }

  /** Whether the packet is of a part that was refused. */
  holdsPart(now: number, child: string, flow: Flow): boolean {
    const parts = this.#parts.get(child);
    if (parts === undefined) return false;
    return parts.some(({ selectors, until }) => until > now && selectors.matchesFlow(flow, true));
  }

  clear(): void {
    this.#until.clear();
    this.#parts.clear();
  }
}
