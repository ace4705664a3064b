/** Several values under a key: an index of things by what many of them may share. */

const NONE: ReadonlySet<never> = new Set<never>();

export class SetMap<K, V> {
  // BOUNDED: by its user, who takes out what it put in; an empty set is not kept.
  readonly #sets = new Map<K, Set<V>>();

  /** The values of a key, in the order in which they were added. Changes with the map. */
  get(key: K): ReadonlySet<V> {
    return this.#sets.get(key) ?? NONE;
  }

  add(key: K, value: V): void {
    const values = this.#sets.get(key);
    if (values === undefined) this.#sets.set(key, new Set([value]));
    else values.add(value);
  }

  /** The values of all other keys, key by key. */
  *valuesExcept(key: K): Generator<V> {
    for (const [other, values] of this.#sets) if (other !== key) yield* values;
  }

  /** Does nothing when the value is not there. */
  delete(key: K, value: V): void {
    const values = this.#sets.get(key);
    if (values?.delete(value) === true && values.size === 0) this.#sets.delete(key);
  }
}
