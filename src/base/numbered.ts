/** Things by small numbers, which are used again when the thing is gone. */
export class Numbered<T> {
  // BOUNDED: by the owner, who removes what was added.
  readonly #items: (T | undefined)[] = [];
  readonly #free: number[] = [];

  /** The number that the next thing gets. */
  get next(): number {
    return this.#free.at(-1) ?? this.#items.length;
  }

  add(item: T): number {
    const index = this.#free.pop() ?? this.#items.length;
    this.#items[index] = item;
    return index;
  }

  /** Replaces the thing of a number. */
  set(index: number, item: T): void {
    this.#items[index] = item;
  }

  get(index: number): T | undefined {
    return this.#items[index];
  }

  /** @param index that has a thing */
  remove(index: number): void {
    this.#items[index] = undefined;
    this.#free.push(index);
  }
}
