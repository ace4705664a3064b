/** Which of many tunnels may meet the claims of one, found by addresses, at a cost that does not grow with their number. */
import { type AddressBox, AddressIndex } from './address-index.ts';
import type { Claims } from './precedence.ts';

/** Claims of more boxes stand in the index by the hulls around them. */
const MAX_BOXES = 256;

interface Entry<K> {
  readonly ranges: AddressBox;
  readonly key: K;
}

export class ClaimsIndex<K> {
  readonly #boxes = new AddressIndex<Entry<K>>();
  /** BOUNDED: by the caller, which deletes what it set. */
  readonly #claims = new Map<K, Claims>();

  get isEmpty(): boolean {
    return this.#claims.size === 0;
  }

  /** Replaces what the key claimed before. */
  set(key: K, claims: Claims): void {
    if (this.#claims.get(key) === claims) return;
    this.delete(key);
    this.#claims.set(key, claims);
    for (const ranges of rangesOf(claims)) this.#boxes.add({ ranges, key });
  }

  /** Does nothing when it is not there. */
  delete(key: K): void {
    const claims = this.#claims.get(key);
    if (claims === undefined) return;
    this.#claims.delete(key);
    for (const ranges of rangesOf(claims)) this.#boxes.delete(ranges, (entry) => entry.key === key);
  }

  /** Keys whose claims share addresses with these; whether a packet fits both is for `meetings` to say. */
  near(claims: Claims): Set<K> {
    const found = new Set<K>();
    for (const ranges of rangesOf(claims)) for (const { key } of this.#boxes.within(ranges)) found.add(key);
    return found;
  }
}

/** The same for policies of different places, such as routing domains: those of one place meet those of another never. */
export class PlacedClaims<K> {
  /** BOUNDED: by the places of the keys. */
  readonly #indexes = new Map<string | undefined, ClaimsIndex<K>>();
  /** BOUNDED: by the caller, which deletes what it set. */
  readonly #places = new Map<K, string | undefined>();

  /** Replaces what the key claimed before, wherever that was. */
  set(key: K, claims: Claims, place: string | undefined): void {
    if (this.#places.get(key) !== place) this.delete(key);
    const index = this.#indexes.get(place) ?? new ClaimsIndex<K>();
    this.#indexes.set(place, index);
    this.#places.set(key, place);
    index.set(key, claims);
  }

  /** Does nothing when it is not there. */
  delete(key: K): void {
    const place = this.#places.get(key);
    const index = this.#indexes.get(place);
    index?.delete(key);
    this.#places.delete(key);
    if (index?.isEmpty === true) this.#indexes.delete(place);
  }

  /** As `ClaimsIndex.near`, in one place. */
  near(claims: Claims, place: string | undefined): Set<K> {
    return this.#indexes.get(place)?.near(claims) ?? new Set();
  }
}

function rangesOf({ boxes, hulls }: Claims): AddressBox[] {
  const counted = boxes.length <= MAX_BOXES ? boxes.map(({ box }) => box) : hulls;
  return counted.map(({ remote, local }) => [remote, local] as const);
}
