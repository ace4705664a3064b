/**
 * What of a tunnel that runs has to be replaced when its document changes, and what stays. Decided by what the documents say
 * alone, so that it can be shown before it is done.
 */
import { type Difference, differencesOf } from '../config/differences.ts';
import type { SectunnelDocument } from '../config/model.ts';
import { hasIpv6, toChildren } from '../config/selectors.ts';
import { pairKey } from '../policy/selector.ts';

/**
 * `kept`; `rekeyed`: replaced by a new one, with nothing interrupted; `anew`: closed, and negotiated again; `added`; `removed`.
 */
export type Fate = 'kept' | 'rekeyed' | 'anew' | 'added' | 'removed';

export interface Renewal {
  /** `anew`: the tunnel is stopped and started. */
  readonly device: 'kept' | 'anew';
  readonly ikeSas: 'kept' | 'rekeyed' | 'anew';
  /** Of the CHILD SAs of each child, which has the name of its `<sp>`. */
  readonly children: readonly { readonly name: string; readonly fate: Fate }[];
}

/** What a difference asks for. */
type Effect = 'none' | 'rekey-children' | 'rekey-ike' | 'new-ike' | 'new-device';

/**
 * By the beginning of the path of a difference: the first that fits. What is not here needs a new device. Of children each is
 * looked at by itself; lifetimes hold from the next rekeying on.
 */
const RULES: readonly (readonly [path: string, effect: Effect])[] = [
  ['title', 'none'],
  ['description', 'none'],
  ['metadata', 'none'],
  ['sp', 'none'],
  ['device/@ipv6', 'none'],
  ['sa/redundancy', 'none'],
  ['sa/ike/@start', 'none'],
  ['sa/ike/lifetime', 'none'],
  ['sa/ike/dpd', 'none'],
  ['sa/ike/nat/@keepalive', 'none'],
  ['sa/esp/lifetime', 'none'],
  ['sa/esp', 'rekey-children'],
  ['sa/ike/proposal', 'rekey-ike'],
  ['sa/local', 'new-ike'],
  ['sa/remote', 'new-ike'],
  ['sa/auth', 'new-ike'],
  ['sa/ike/nat', 'new-ike'],
  ['sa/ike/fragmentation', 'new-ike'],
];

/** What putting a document in the place of another one comes to. */
export function renewalOf(before: SectunnelDocument, after: SectunnelDocument): Renewal {
  const differences = differencesOf(before, after);
  const effects = new Set(differences.map(effectOf));
  const has = (effect: Effect): boolean => effects.has(effect);
  const device = has('new-device') || needsDevice(before, after) ? 'anew' : 'kept';
  const ikeSas = device === 'anew' || has('new-ike') ? 'anew' : has('rekey-ike') ? 'rekeyed' : 'kept';
  const stays: Fate = ikeSas === 'anew' ? 'anew' : has('rekey-children') ? 'rekeyed' : 'kept';
  return { device, ikeSas, children: fatesOf(before, after, stays) };
}

function effectOf({ path }: Difference): Effect {
  const isAt = (start: string): boolean => path === start || /^[/[]/.test(path.slice(start.length));
  return RULES.find(([start]) => path.startsWith(start) && isAt(start))?.[1] ?? 'new-device';
}

/** The connection comes or goes; or a device that was made to fit is to carry IPv6, for which it may be too small. */
function needsDevice(before: SectunnelDocument, after: SectunnelDocument): boolean {
  const [old, fresh] = [before, after].map((document) => toChildren(document).length === 0);
  const isMade = after.device.mtu === undefined;
  return old !== fresh || (isMade && hasIpv6(after.sps) && !hasIpv6(before.sps));
}

function fatesOf(before: SectunnelDocument, after: SectunnelDocument, stays: Fate): Renewal['children'] {
  const [old, fresh] = [childrenOf(before), childrenOf(after)];
  const fates = [...fresh].map(([name, child]) => {
    const known = old.get(name);
    const fate: Fate = known === undefined ? 'added' : known === child ? stays : 'anew';
    return { name, fate };
  });
  const gone = [...old.keys()].filter((name) => !fresh.has(name));
  return [...fates, ...gone.map((name) => ({ name, fate: 'removed' as const }))];
}

/** By name, what an SA is negotiated for. */
function childrenOf(document: SectunnelDocument): ReadonlyMap<string, string> {
  return new Map(
    toChildren(document).map(({ name, mode, selectors, pfp }) => [
      name,
      `${mode} ${pairKey(selectors)} ${JSON.stringify(pfp)}`,
    ]),
  );
}
