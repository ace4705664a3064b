/** What of an offer the other side has taken away (RFC 7296 §2.9), in words. Control path. */
import { mergeRanges, subtractRanges } from '../base/ranges.ts';
import { pairable } from './narrow.ts';
import {
  containsSelector,
  formatSelector,
  intersectSelector,
  type SelectorPair,
  type TrafficSelector,
} from './selector.ts';

/** `remote 10.2.0.128/25`, `local 10.1.0.0/24 but for 10.1.0.0/24 tcp 80`: what was wanted and is not agreed on. */
export function narrowedAway(wanted: SelectorPair, agreed: SelectorPair): string[] {
  const { local, remote } = pairable(wanted);
  return [
    ...local.flatMap((selector) => without(selector, agreed.local)).map((text) => `local ${text}`),
    ...remote.flatMap((selector) => without(selector, agreed.remote)).map((text) => `remote ${text}`),
  ];
}

/** What is left of a selector without those of a list. */
function without(wanted: TrafficSelector, agreed: readonly TrafficSelector[]): string[] {
  const meeting = agreed.flatMap((selector) => intersectSelector(selector, wanted) ?? []);
  const allOfRange = meeting.filter((selector) => containsSelector({ ...selector, range: wanted.range }, wanted));
  const parts = meeting.filter((selector) => !allOfRange.includes(selector)).map(formatSelector);
  const butFor = parts.length === 0 ? '' : ` but for ${parts.join(', ')}`;
  const ranges = subtractRanges(wanted.range, mergeRanges(allOfRange.map(({ range }) => range)));
  return ranges.map((range) => `${formatSelector({ ...wanted, range })}${butFor}`);
}
