/**
 * An index of selector pairs that finds the pairs which overlap a given one (share a packet with it). Its cost does not
 * grow with the number of pairs, and it changes with every CHILD SA: an `AddressIndex` in which each remote selector, with the
 * hull of the local addresses that pair with it, is a box.
 */
import type { AddressRange } from '../base/address.ts';
import { type AddressBox, AddressIndex } from './address-index.ts';
import { canPair } from './narrow.ts';
import { intersectSelector, type SelectorPair, type TrafficSelector } from './selector.ts';

/** BOUNDED: what one query compares and finds, a few milliseconds. A peer may ask for 255 selectors on each side. */
const MAX_COMPARED = 20_000;
const MAX_FOUND = 1_000;

/** A value whose selectors overlap those of a query. */
export interface Meeting<T> {
  readonly value: T;
  /** The overlap of their remote sides. */
  readonly remote: readonly TrafficSelector[];
}

interface Box<T> {
  readonly ranges: AddressBox;
  readonly remote: TrafficSelector;
  readonly pair: SelectorPair;
  readonly value: T;
}

export class SelectorIndex<T> {
  readonly #boxes = new AddressIndex<Box<T>>();

  /** BOUNDED: by the caller, which deletes what it added, with the same selector objects. */
  add(pair: SelectorPair, value: T): void {
    for (const box of boxesOf(pair, value)) this.#boxes.add(box);
  }

  /** Does nothing when it is not there. */
  delete(pair: SelectorPair, value: T): void {
    for (const { ranges, remote } of boxesOf(pair, value)) {
      this.#boxes.delete(ranges, (box) => box.value === value && box.remote === remote);
    }
  }

  /**
   * The values whose selectors overlap `pair`, each once; `undefined` beyond MAX_COMPARED or MAX_FOUND.
   * @param wanted whether a value counts
   */
  meeting(pair: SelectorPair, wanted: (value: T) => boolean): Meeting<T>[] | undefined {
    const found = new Map<T, TrafficSelector[]>();
    let compared = 0;
    for (const { ranges, remote } of boxesOf(pair, undefined)) {
      for (const box of this.#boxes.within(ranges)) {
        if (!wanted(box.value)) continue;
        const common = intersectSelector(remote, box.remote);
        compared += common === undefined ? 1 : pair.local.length * box.pair.local.length;
        if (compared > MAX_COMPARED || found.size > MAX_FOUND) return undefined;
        if (common === undefined || !localsMeet(pair.local, box.pair.local, common)) continue;
        const known = found.get(box.value);
        if (known === undefined) found.set(box.value, [common]);
        else known.push(common);
      }
    }
    return [...found].map(([value, remote]) => ({ value, remote }));
  }
}

/** One box for each remote selector that a local one can pair with. */
function boxesOf<T>(pair: SelectorPair, value: T): Box<T>[] {
  return pair.remote.flatMap((remote) => {
    const around = hullOf(pair.local.filter((local) => canPair(local, remote)));
    return around === undefined ? [] : [{ ranges: [remote.range, around], remote, pair, value } as const];
  });
}

function hullOf([first, ...others]: readonly TrafficSelector[]): AddressRange | undefined {
  if (first === undefined) return undefined;
  let { start, end } = first.range;
  for (const { range } of others) {
    if (range.start.value < start.value) start = range.start;
    if (range.end.value > end.value) end = range.end;
  }
  return { start, end };
}

/** Whether one packet can fit `remote` and a selector of each of the two local sides. */
function localsMeet(
  local: readonly TrafficSelector[],
  others: readonly TrafficSelector[],
  remote: TrafficSelector,
): boolean {
  return local.some((mine) =>
    others.some((other) => {
      const both = intersectSelector(mine, other);
      return both !== undefined && canPair(both, remote);
    }),
  );
}
