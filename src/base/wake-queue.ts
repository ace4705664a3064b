/** When each of many is to be woken: the earliest is at hand, however many there are. A binary heap. */

interface Entry<T> {
  readonly at: number;
  readonly item: T;
}

export class WakeQueue<T> {
  /** BOUNDED: one entry for each item. */
  readonly #times = new Map<T, number>();
  /** Has entries that do not hold any more. BOUNDED: to twice those that do, see `#compact`. */
  #heap: Entry<T>[] = [];

  /** Sets or, with `undefined`, clears the time of an item. */
  set(item: T, at: number | undefined): void {
    if (this.#times.get(item) === at) return;
    if (at === undefined) {
      this.#times.delete(item);
      return;
    }
    this.#times.set(item, at);
    this.#push({ at, item });
  }

  /** The earliest time, `undefined` when there is none. */
  next(): number | undefined {
    for (;;) {
      const top = this.#heap[0];
      if (top === undefined || this.#times.get(top.item) === top.at) return top?.at;
      this.#pop();
    }
  }

  /** Takes out all whose time has come, the earliest first. */
  takeDue(now: number): T[] {
    const due: T[] = [];
    for (let next = this.next(); next !== undefined && next <= now; next = this.next()) {
      const { item } = this.#heap[0]!;
      this.#times.delete(item);
      this.#pop();
      due.push(item);
    }
    return due;
  }

  #push(entry: Entry<T>): void {
    if (this.#heap.length > 2 * this.#times.size + 16) this.#compact();
    const heap = this.#heap;
    let at = heap.push(entry) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (heap[parent]!.at <= entry.at) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = entry;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && heap[child + 1]!.at < heap[child]!.at) child++;
      if (heap[child]!.at >= last.at) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
  }

  /** A sorted array is a heap. */
  #compact(): void {
    this.#heap = [...this.#times].map(([item, at]) => ({ at, item })).sort((a, b) => a.at - b.at);
  }
}
