/** Things by a key of their own, of which those of one tunnel are found without a look at the others. */
import { SetMap } from '../../base/set-map.ts';

export class ByTunnel<K, V> implements Iterable<[K, V]> {
  readonly #tunnelOf: (value: V) => string;
  /** BOUNDED, both: by the owner, who deletes what it set. */
  readonly #values = new Map<K, V>();
  readonly #keys = new SetMap<string, K>();

  constructor(tunnelOf: (value: V) => string) {
    this.#tunnelOf = tunnelOf;
  }

  get size(): number {
    return this.#values.size;
  }

  get(key: K): V | undefined {
    return this.#values.get(key);
  }

  /** Takes the place of what had the key. */
  set(key: K, value: V): void {
    const before = this.#values.get(key);
    if (before !== undefined) this.#keys.delete(this.#tunnelOf(before), key);
    this.#values.set(key, value);
    this.#keys.add(this.#tunnelOf(value), key);
  }

  delete(key: K): void {
    const value = this.#values.get(key);
    if (value === undefined) return;
    this.#values.delete(key);
    this.#keys.delete(this.#tunnelOf(value), key);
  }

  /** Those of a tunnel, in the order in which they were set. */
  of(tunnel: string): V[] {
    return [...this.#keys.get(tunnel)].map((key) => this.#values.get(key)!);
  }

  forget(tunnel: string): void {
    for (const key of [...this.#keys.get(tunnel)]) this.delete(key);
  }

  keys(): Iterable<K> {
    return this.#values.keys();
  }

  [Symbol.iterator](): Iterator<[K, V]> {
    return this.#values.entries();
  }
}
