/** The pairs of UDP end points that sealed packets go to, by the small number that travels with each packet. */
import { sameSocketAddress } from '../base/address.ts';
import type { Path } from '../ike/events.ts';

export function samePath(a: Path, b: Path): boolean {
  return sameSocketAddress(a.remote, b.remote) && sameSocketAddress(a.local, b.local);
}

export class PathTable {
  // BOUNDED: one entry for each CHILD SA; numbers are used again.
  readonly #paths: (Path | undefined)[] = [];
  readonly #free: number[] = [];

  add(path: Path): number {
    const index = this.#free.pop() ?? this.#paths.length;
    this.#paths[index] = path;
    return index;
  }

  set(index: number, path: Path): void {
    this.#paths[index] = path;
  }

  remove(index: number): void {
    this.#paths[index] = undefined;
    this.#free.push(index);
  }

  get(index: number): Path | undefined {
    return this.#paths[index];
  }
}
