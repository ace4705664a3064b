/** What the maps of the fence have of its parts, and which of it overlaps: whatever the number of parts, that is found at once. Pure. */
import { type AddressBox, AddressIndex } from '../../policy/address-index.ts';
import { type AddressPair, overlap } from './dispatch.ts';

/** A part that maps find. */
export interface MappedPart {
  readonly id: string;
  readonly pairs: readonly AddressPair[];
}

interface Place {
  readonly id: string;
  readonly pair: AddressPair;
  readonly ranges: AddressBox;
}

export class MappedPairs {
  /** BOUNDED: by the parts, as the index. */
  readonly #pairs = new Map<string, readonly AddressPair[]>();
  readonly #index = new AddressIndex<Place>();

  get(id: string): readonly AddressPair[] | undefined {
    return this.#pairs.get(id);
  }

  ids(): Iterable<string> {
    return this.#pairs.keys();
  }

  /** @param pairs left out: the part is in no map any more */
  set(id: string, pairs: readonly AddressPair[] | undefined): void {
    for (const pair of this.#pairs.get(id) ?? []) this.#index.delete(boxOf(pair), (place) => place.id === id);
    this.#pairs.delete(id);
    if (pairs === undefined) return;
    this.#pairs.set(id, pairs);
    for (const pair of pairs) this.#index.add({ id, pair, ranges: boxOf(pair) });
  }

  /** Ids of parts with which these pairs overlap. */
  *overlapping(pairs: readonly AddressPair[]): Generator<string> {
    for (const pair of pairs) {
      for (const other of this.#index.within(boxOf(pair))) if (overlap([pair], [other.pair])) yield other.id;
    }
  }

  /** What becomes of it, before it does. */
  changed(): MappedChange {
    return new MappedChange(this);
  }
}

/** Other pairs than those of now, of some parts. */
export class MappedChange {
  readonly #before: MappedPairs;
  /** BOUNDED: by the parts. */
  readonly #changes = new Map<string, readonly AddressPair[] | undefined>();

  constructor(before: MappedPairs) {
    this.#before = before;
  }

  get(id: string): readonly AddressPair[] | undefined {
    return this.#changes.has(id) ? this.#changes.get(id) : this.#before.get(id);
  }

  /** Ids of the parts that have others. */
  ids(): Iterable<string> {
    return this.#changes.keys();
  }

  remove(id: string): void {
    this.#changes.set(id, undefined);
  }

  /** @returns false where they overlap with those of another part */
  add(id: string, pairs: readonly AddressPair[]): boolean {
    for (const other of this.#before.overlapping(pairs)) if (other !== id && !this.#changes.has(other)) return false;
    for (const [other, theirs] of this.#changes) {
      if (other !== id && theirs !== undefined && overlap(pairs, theirs)) return false;
    }
    this.#changes.set(id, pairs);
    return true;
  }

  /** It is so now. */
  settle(): void {
    for (const [id, pairs] of this.#changes) this.#before.set(id, pairs);
  }
}

/** Those of the parts that are there. */
export function partsIn(mapped: Pick<MappedPairs, 'get'>, ids: Iterable<string>): MappedPart[] {
  return [...ids].flatMap((id) => {
    const pairs = mapped.get(id);
    return pairs === undefined ? [] : [{ id, pairs }];
  });
}

function boxOf({ remote, local }: AddressPair): AddressBox {
  return [remote, local];
}
