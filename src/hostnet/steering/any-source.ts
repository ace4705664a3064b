/**
 * What the fence has to drop of the host's own packets whatever their source. Policy routing gives packets without a source
 * one that the policy protects. Where its rules are missing the kernel gives them another one, for which no entry is: then the
 * destination decides. RFC 4301 §4.4.1: what no entry matches is discarded. Pure.
 */
import {
  type AddressRange,
  anyRange,
  formatRange,
  type IpFamily,
  intersectRanges,
  rangeContains,
} from '../../base/address.ts';
import { isWhole, mergeRanges, overlapsMerged } from '../../base/ranges.ts';
import type { FenceEntry } from '../fence/fence.ts';
import { fenceEntry, isRequired, type PolicyBox } from './plan.ts';

/**
 * The widest ranges that one organisation has to itself: 10.0.0.0/8 (RFC 1918) and fc00::/7 (RFC 4193). What is wider holds the
 * Internet, and a host that may send nothing there is cut off.
 */
const WIDEST: Readonly<Record<IpFamily, bigint>> = { 4: 1n << 24n, 6: 1n << 121n };
const FAMILIES: readonly IpFamily[] = [4, 6];

/**
 * Entries for the host's own packets that match none of `outbound`, in their order.
 *
 * @param isOfGuests whether the local addresses of an entry are those of guests: then it is not for what the host itself sends
 */
export function anySourceEntries(
  outbound: readonly PolicyBox[],
  isOfGuests: (local: AddressRange) => boolean,
): FenceEntry[] {
  return FAMILIES.flatMap((family) => {
    const boxes = outbound.filter(({ local }) => local.start.family === family);
    const guards = boxes.filter((box) => isRequired(box) && !isWhole(box.local) && !isOfGuests(box.local));
    const narrow = narrowRanges(guards.map(({ remote }) => remote));
    const kept = new Set(guards.filter(({ remote }) => !isWhole(remote) && overlapsMerged(narrow, remote)));
    return kept.size === 0 ? [] : [...passing(boxes, narrow), ...ofAnySource(boxes, kept, narrow)];
  });
}

/** Together, since parts of the whole add up to it. */
export function narrowRanges(remotes: readonly AddressRange[]): AddressRange[] {
  return mergeRanges(remotes.filter((remote) => !isWhole(remote))).filter(
    ({ start, end }) => end.value - start.value < WIDEST[start.family],
  );
}

/** What the policy lets pass from a source of its own: it was not dropped before. */
function passing(boxes: readonly PolicyBox[], narrow: readonly AddressRange[]): FenceEntry[] {
  return boxes.map(fenceEntry).filter(({ action, remote }) => action === 'pass' && overlapsMerged(narrow, remote));
}

/**
 * The entries as they are for a source of which they know nothing. One that does not protect holds against those behind it
 * that do, if it is for all their sources.
 */
function ofAnySource(
  boxes: readonly PolicyBox[],
  guards: ReadonlySet<PolicyBox>,
  narrow: readonly AddressRange[],
): FenceEntry[] {
  const bySource = remotesBySource([...guards]);
  const holds = ({ local, remote }: PolicyBox): boolean =>
    bySource.every((guard) => within(guard.local, local) || !overlapsMerged(guard.remotes, remote));
  const found: FenceEntry[] = [];
  // BOUNDED: by the policy.
  let run: PolicyBox[] = [];
  for (const box of boxes.slice(0, boxes.findLastIndex((one) => guards.has(one)) + 1)) {
    if (guards.has(box)) {
      run.push(box);
      continue;
    }
    if (isRequired(box) || !overlapsMerged(narrow, box.remote) || !holds(box)) continue;
    // What goes to destinations that are not protected is not dropped either.
    const remotes =
      box.action === 'discard' ? narrow.flatMap((one) => intersectRanges(one, box.remote) ?? []) : [box.remote];
    found.push(...joined(run), ...remotes.map((remote) => widened(box, remote)));
    run = [];
  }
  return [...found, ...joined(run)];
}

function remotesBySource(
  guards: readonly PolicyBox[],
): { readonly local: AddressRange; readonly remotes: readonly AddressRange[] }[] {
  return groups(guards, ({ local }) => formatRange(local)).map((alike) => ({
    local: alike[0]!.local,
    remotes: mergeRanges(alike.map(({ remote }) => remote)),
  }));
}

/** Those that differ in their addresses alone become as few entries as there can be. */
function joined(guards: readonly PolicyBox[]): FenceEntry[] {
  const alike = groups(guards, ({ protocol, localPorts, remotePorts, icmp }) =>
    JSON.stringify([protocol, localPorts, remotePorts, icmp]),
  );
  return alike.flatMap((boxes) =>
    mergeRanges(boxes.map(({ remote }) => remote)).map((remote) => widened(boxes[0]!, remote)),
  );
}

function groups(boxes: readonly PolicyBox[], keyOf: (box: PolicyBox) => string): PolicyBox[][] {
  // BOUNDED: by the policy.
  const found = new Map<string, PolicyBox[]>();
  for (const box of boxes) {
    const group = found.get(keyOf(box));
    if (group === undefined) found.set(keyOf(box), [box]);
    else group.push(box);
  }
  return [...found.values()];
}

function widened(box: PolicyBox, remote: AddressRange): FenceEntry {
  return { ...fenceEntry(box), local: anyRange(remote.start.family), remote };
}

/** Whether a range lies in another one. */
function within({ start, end }: AddressRange, other: AddressRange): boolean {
  return rangeContains(other, start) && rangeContains(other, end);
}
