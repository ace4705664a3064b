/** A queue that serves its sources in turn, so that one that asks a lot makes itself wait and no other. */
export class FairQueue<T> {
  readonly #maxOfSource: number;
  readonly #max: number;
  /** By source, the next to be served first; none is empty. BOUNDED: #max items. */
  readonly #waiting = new Map<string, T[]>();
  #size = 0;

  constructor(maxOfSource: number, max: number) {
    this.#maxOfSource = maxOfSource;
    this.#max = max;
  }

  get size(): number {
    return this.#size;
  }

  /** `false` when there is no room for it, of its source's or at all. */
  push(source: string, item: T): boolean {
    const waiting = this.#waiting.get(source) ?? [];
    if (this.#size >= this.#max || waiting.length >= this.#maxOfSource) return false;
    waiting.push(item);
    this.#waiting.set(source, waiting);
    this.#size++;
    return true;
  }

  /** The item whose turn it is. */
  shift(): T | undefined {
    const [next] = this.#waiting;
    if (next === undefined) return undefined;
    const [source, waiting] = next;
    const item = waiting.shift();
    // Behind all others.
    this.#waiting.delete(source);
    if (waiting.length > 0) this.#waiting.set(source, waiting);
    this.#size--;
    return item;
  }
}
