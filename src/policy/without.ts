/** Narrowing to free addresses (RFC 7296 §2.9): selectors without some addresses of their remote side. Control path. */
import { mergeRanges, subtractRanges } from '../base/ranges.ts';
import { pairable } from './narrow.ts';
import { intersectSelector, MAX_SELECTORS, makeSelector, type SelectorPair, type TrafficSelector } from './selector.ts';

/**
 * Removes the remote addresses of which any part, even one port, is taken: selectors cannot express "all but TCP".
 * Returns `undefined` when nothing is left. Keeps the first `MAX_SELECTORS`.
 */
export function withoutRemote(pair: SelectorPair, taken: readonly TrafficSelector[]): SelectorPair | undefined {
  const remote = pair.remote.flatMap((selector) => {
    const meeting = taken.flatMap((other) => intersectSelector(selector, other)?.range ?? []);
    if (meeting.length === 0) return [selector];
    const { protocol, range } = selector;
    return subtractRanges(range, mergeRanges(meeting)).map((free) => makeSelector(free, protocol, selector));
  });
  const left = pairable({ local: pair.local, remote: remote.slice(0, MAX_SELECTORS) });
  return left.remote.length === 0 ? undefined : left;
}
