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

function rangesOf({ boxes, hulls }: Claims): AddressBox[] {
  const counted = boxes.length <= MAX_BOXES ? boxes.map(({ box }) => box) : hulls;
  return counted.map(({ remote, local }) => [remote, local] as const);
}
