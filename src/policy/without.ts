/** Narrowing to free addresses (RFC 7296 §2.9): selectors without some addresses of one side. Control path. */
import { mergeRanges, subtractRanges } from '../base/ranges.ts';
import { pairable } from './narrow.ts';
import { intersectSelector, MAX_SELECTORS, makeSelector, type SelectorPair, type TrafficSelector } from './selector.ts';

/** What of a pair is left without the remote addresses that are taken; `undefined` when nothing is. */
export function withoutRemote(pair: SelectorPair, taken: readonly TrafficSelector[]): SelectorPair | undefined {
  const left = pairable({ local: pair.local, remote: without(pair.remote, taken) });
  return left.remote.length === 0 ? undefined : left;
}

/**
 * Removes the addresses of which any part, even one port, is in use: selectors cannot express "all but TCP". Keeps the
 * first `MAX_SELECTORS`.
 */
export function without(side: readonly TrafficSelector[], taken: readonly TrafficSelector[]): TrafficSelector[] {
  const left = side.flatMap((selector) => {
    const meeting = taken.flatMap((other) => intersectSelector(selector, other)?.range ?? []);
    if (meeting.length === 0) return [selector];
    const { protocol, range } = selector;
    return subtractRanges(range, mergeRanges(meeting)).map((free) => makeSelector(free, protocol, selector));
  });
  return left.slice(0, MAX_SELECTORS);
}
