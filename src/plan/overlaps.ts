/** Overlaps between the policies of two tunnels of a host, in words: what is refused, and what the user should know. */
import type { SectunnelDocument } from '../config/model.ts';
import { toPolicy } from '../config/selectors.ts';
import type { PolicyEntry } from '../policy/database.ts';
import { type Claims, claimsOf, type Meeting, meetings, precedenceOf } from '../policy/precedence.ts';
import { formatSelectorPair } from '../policy/selector.ts';
import { deviceConflict, namesSameDevice } from './device-sharing.ts';

/** BOUNDED: overlaps that are reported, a line each. */
const MAX_LISTED = 4;

/** By document; documents do not change. */
const known = new WeakMap<SectunnelDocument, Claims>();

export function documentClaims(document: SectunnelDocument): Claims {
  let claims = known.get(document);
  if (claims === undefined) {
    claims = claimsOf(toPolicy(document).entries);
    known.set(document, claims);
  }
  return claims;
}

interface Conflict {
  readonly tunnel: string;
  readonly text: string;
  /** Whether the documents cannot be kept side by side either. */
  readonly whenKept: boolean;
}

export interface Overlaps {
  /** Tunnels beside which this one cannot run, and why. */
  readonly conflicts: readonly Conflict[];
  readonly warnings: readonly string[];
}

/** @param others documents of other tunnels; those that claim nothing of this host's packets there are left out */
export function overlapsAmong(document: SectunnelDocument, others: Iterable<SectunnelDocument>): Overlaps {
  const found = [...others].flatMap((other) => {
    if (namesSameDevice(document, other)) return [overlapOnDevice(document, other)];
    return mayMeet(document, other) ? [overlapOf(document, other)] : [];
  });
  return {
    conflicts: found.flatMap(({ conflicts }) => conflicts),
    warnings: few(found.flatMap(({ warnings }) => warnings)),
  };
}

/**
 * What to report about a document that is stored.
 * @param isWanted whether a tunnel runs or is to run
 * @returns why it is refused, or what the user should know
 */
export function overlapsWhenKept(
  { conflicts, warnings }: Overlaps,
  isWanted: (tunnel: string) => boolean,
): { readonly refusal: string | undefined; readonly warnings: readonly string[] } {
  const refusal = conflicts.find(({ tunnel, whenKept }) => whenKept || isWanted(tunnel))?.text;
  return {
    refusal,
    warnings: [...warnings, ...few(conflicts.map(({ text }) => `${text}. Only one of the two can be started`))],
  };
}

function few(texts: readonly string[]): string[] {
  const rest = texts.length - MAX_LISTED;
  const more = rest > 0 ? [`overlaps with the policies of other tunnels that are not listed: ${rest}`] : [];
  return [...texts.slice(0, MAX_LISTED), ...more];
}

/** The network namespace and the routing domain of the packets that a document is for. */
export function placeOf({ device: { netns, vrf } }: SectunnelDocument): string {
  return JSON.stringify([netns, vrf]);
}

function mayMeet(one: SectunnelDocument, other: SectunnelDocument): boolean {
  return (
    one.name !== other.name &&
    placeOf(one) === placeOf(other) &&
    one.device.routes === 'auto' &&
    other.device.routes === 'auto' &&
    !isSameGroup(one, other)
  );
}

function isSameGroup(
  { sa: { redundancy: one } }: SectunnelDocument,
  { sa: { redundancy: other } }: SectunnelDocument,
): boolean {
  return one !== undefined && one.group === other?.group;
}

/** The policies of tunnels on one device are one: priorities order what both claim, entry by entry (RFC 4301 §4.4.1). */
function overlapOnDevice(document: SectunnelDocument, other: SectunnelDocument): Overlaps {
  const conflict = (text: string): Overlaps => ({
    conflicts: [{ tunnel: other.name, text, whenKept: true }],
    warnings: [],
  });
  const refused = deviceConflict(document, other);
  if (refused !== undefined) return conflict(refused);
  const { name: device } = document.device;
  const found = meetings(documentClaims(document), documentClaims(other));
  if (found === undefined) {
    return conflict(
      `the policies of this tunnel and of ${other.name} are too large to be compared, and both are for device ${device}: give one of them another device`,
    );
  }
  const unordered = found.find((meeting) => meeting.one.priority === meeting.other.priority);
  if (unordered !== undefined) {
    return conflict(
      `${where(unordered.one)}: tunnel ${other.name} on the same device ${device} protects some of these packets too (${its(unordered.other)}), and no priority decides which of the two carries them: give one of them a higher priority`,
    );
  }
  return { conflicts: [], warnings: found.map((meeting) => warningOf(meeting, other)) };
}

function overlapOf(document: SectunnelDocument, other: SectunnelDocument): Overlaps {
  const found = meetings(documentClaims(document), documentClaims(other));
  if (found === undefined) {
    const text = `the policies of this tunnel and of ${other.name} are too large to be compared: packets that match both go by the one that was started first`;
    return { conflicts: [], warnings: [text] };
  }
  const text = conflictText(found, other);
  if (text !== undefined) return { conflicts: [{ tunnel: other.name, text, whenKept: false }], warnings: [] };
  return { conflicts: [], warnings: found.map((meeting) => warningOf(meeting, other)) };
}

function conflictText(found: readonly Meeting[], other: SectunnelDocument): string | undefined {
  const same = found.find((meeting) => meeting.same);
  if (same !== undefined) {
    return `${where(same.one)}: tunnel ${other.name} protects the same packets (${its(same.other)}), and nothing decides which of the two carries them: give one of them a priority, or write <redundancy group='…'/> in the <sa> of both, which makes the other a reserve`;
  }
  if (precedenceOf(found) !== 'both') return undefined;
  const [before, behind] = [found.find(({ order }) => order < 0)!, found.find(({ order }) => order > 0)!];
  return (
    `${where(before.one)} goes before ${its(before.other)} of tunnel ${other.name}, and ${where(behind.one)} after ${its(behind.other)}: ` +
    'one of two tunnels must come first for all packets that match both; give policies a priority, or put them into separate documents'
  );
}

function warningOf({ one, other, order }: Meeting, { name }: SectunnelDocument): string {
  const text = `${where(one)}: tunnel ${name} matches some of these packets too (${its(other)})`;
  if (order === 0) return `${text}; they go by the one that was started first`;
  const reason = one.priority === other.priority ? 'is more specific' : 'has the higher priority';
  return order < 0 ? `${text}; they go by this one, which ${reason}` : `${text}; they go by ${name}, which ${reason}`;
}

function where({ line, name, selectors }: PolicyEntry): string {
  return `${lineText(line)}<sp name='${name}'>: ${formatSelectorPair(selectors)}`;
}

function its({ line, name, selectors }: PolicyEntry): string {
  return `${lineText(line)}<sp name='${name}'>, ${formatSelectorPair(selectors)}`;
}

function lineText(line: number | undefined): string {
  return line === undefined ? '' : `line ${line}: `;
}
