/**
 * Which packets both documents protect: the rules that belong together with what they narrow to (RFC 7296 §2.9), rules
 * that have no counterpart, packets that only one side protects, and policies that are never reached.
 */

import { listSome } from '../base/text.ts';
import { type ChildPlan, toChildren, toPolicy } from '../config/selectors.ts';
import { sharedKeyWarning } from '../config/shared-keys.ts';
import { type Box, boxesOf, formatBox, hullOf, intersectBoxes, mirrorBox, subtractAll } from '../policy/boxes.ts';
import { orderPolicy, type PolicyEntry } from '../policy/database.ts';
import type { Direction } from '../policy/direction.ts';
import { entryName } from '../policy/explain.ts';
import { chooseNarrowing, explainPairMismatch, narrowPair } from '../policy/narrow.ts';
import { formatSelectorPair, type SelectorPair } from '../policy/selector.ts';
import { shadowedEntries } from '../policy/shadow.ts';
import { rulePlace } from './places.ts';
import { type Checked, type Finding, type Place, placeIn } from './report.ts';

/** BOUNDED: rules without a counterpart, and one-sided flows, that are reported one by one. */
const MAX_LISTED = 8;

export function checkFlows(a: Checked, b: Checked): Finding[] {
  if ([a, b].every(({ document }) => toChildren(document).length === 0)) {
    const message = "neither document protects anything: no <policy> has action='ipsec'";
    return [{ level: 'error', topic: 'selectors', message, places: [], change: 'add a rule to both' }];
  }
  // Modes that differ are the same matter from both sides.
  const seenFromB = checkRules(b, a).filter(({ topic }) => topic !== 'mode');
  const alone = [...checkRules(a, b), ...seenFromB];
  return [...bounded(alone, a, b), ...bounded([...oneSided(a, b), ...oneSided(b, a)], a, b)];
}

function bounded(findings: readonly Finding[], a: Checked, b: Checked): Finding[] {
  const more = findings.length - MAX_LISTED;
  if (more <= 0) return [...findings];
  const { level, topic } = findings[MAX_LISTED]!;
  const message = `and ${more} more of the same kind between ${a.title} and ${b.title}`;
  return [...findings.slice(0, MAX_LISTED), { level, topic, message, places: [], change: '' }];
}

function mirrored({ local, remote }: SelectorPair): SelectorPair {
  return { local: remote, remote: local };
}

/** Each rule of one side needs a rule of the other side that allows at least a part of its selectors, in its mode. */
function checkRules(asking: Checked, asked: Checked): Finding[] {
  const rules = toChildren(asked.document);
  return toChildren(asking.document).flatMap((rule) => checkRule(asking, rule, asked, rules) ?? []);
}

function checkRule(asking: Checked, rule: ChildPlan, asked: Checked, rules: readonly ChildPlan[]): Finding | undefined {
  const proposed = mirrored(rule.selectors);
  const meeting = rules.filter(({ selectors }) => narrowPair(proposed, selectors).ok);
  const usable = meeting.filter(({ mode }) => mode === rule.mode);
  const choice = chooseNarrowing(
    proposed,
    usable.map(({ selectors }) => selectors),
  );
  const place = rulePlace(asking, rule);
  if (choice !== undefined) {
    const other = usable[choice.index]!;
    const { selectors, ...narrowing } = { whole: true, ...narrowPair(proposed, other.selectors), ...choice };
    if (narrowing.whole) return undefined;
    const message = `'${rule.name}' of ${asking.title} is narrowed to ${formatSelectorPair(mirrored(selectors))}; its other packets get no SA and are dropped`;
    const change = `write the same ranges in both, or leave them if the other packets need no tunnel`;
    return { level: 'warning', topic: 'selectors', message, places: [place, rulePlace(asked, other)], change };
  }
  const [other] = meeting;
  if (other !== undefined) {
    const message = `'${rule.name}' of ${asking.title} is in ${rule.mode} mode, and '${other.name}' of ${asked.title}, for the same packets, in ${other.mode} mode`;
    const change = `write mode='${other.mode}' in ${asking.title}, or mode='${rule.mode}' in ${asked.title}`;
    return { level: 'error', topic: 'mode', message, places: [place, rulePlace(asked, other)], change };
  }
  return withoutCounterpart(asking, rule, asked, rules);
}

function withoutCounterpart(asking: Checked, rule: ChildPlan, asked: Checked, rules: readonly ChildPlan[]): Finding {
  const proposed = mirrored(rule.selectors);
  const what = `'${rule.name}' of ${asking.title} protects ${formatSelectorPair(rule.selectors)}`;
  const [only] = rules;
  const why = rules.length === 1 ? [`seen from ${asked.title}, ${explainPairMismatch(proposed, only!.selectors)}`] : [];
  const [fate] = fatesOf(asked, 'in', boxesOf(proposed));
  const lines = [`${what}, and no rule of ${asked.title} protects any of it`, ...why];
  if (fate !== undefined) lines.push(`${asked.title} ${fate.text}`);
  const places = [rulePlace(asking, rule), ...rules.slice(0, 4).map((other) => rulePlace(asked, other))];
  const change = `write the mirror of its ranges in a rule of ${asked.title}: ${formatSelectorPair(proposed)}`;
  return { level: 'error', topic: 'selectors', message: lines.join('\n'), places, change };
}

/** What one side does with packets: with which of them, and by which entry. */
interface Fate {
  readonly boxes: readonly Box[];
  readonly entry: PolicyEntry | undefined;
  /** `drops them: no policy matches`. */
  readonly text: string;
}

/** What becomes of packets that a side does not protect, by the first entry that takes them; the rest comes last. */
function fatesOf({ document }: Checked, direction: Direction, packets: readonly Box[]): Fate[] {
  const fates: Fate[] = [];
  let left: Box[] | undefined = [...packets];
  for (const entry of orderPolicy(toPolicy(document).entries, direction)) {
    if (left === undefined || left.length === 0) return fates;
    const boxes = boxesOf(entry.selectors);
    const taken: Box[] | undefined = intersectBoxes(left, boxes);
    if (taken === undefined) return fates;
    if (taken.length === 0) continue;
    left = subtractAll(left, boxes);
    if (entry.action === 'protect') continue;
    const verb = entry.action === 'bypass' ? 'lets them pass in the clear' : 'drops them';
    fates.push({ boxes: taken, entry, text: `${verb} by ${entryName(entry)}` });
  }
  if (left !== undefined && left.length > 0) {
    fates.push({ boxes: left, entry: undefined, text: 'drops them: none of its policies matches' });
  }
  return fates;
}

/**
 * Packets that one side protects on their way out, or in, and the other does not on their way in, or out. Rules without
 * any counterpart are reported by themselves.
 */
function oneSided(owner: Checked, other: Checked): Finding[] {
  // BOUNDED: by pairs of entries.
  const found = new Map<string, Finding>();
  const rules = toChildren(other.document);
  for (const direction of ['out', 'in'] as const) {
    let before: readonly Box[] = [];
    for (const entry of orderPolicy(toPolicy(owner.document).entries, direction)) {
      const boxes = boxesOf(entry.selectors);
      const reached = subtractAll(boxes, before);
      before = before.concat(boxes);
      if (entry.action !== 'protect' || reached === undefined) continue;
      if (!rules.some(({ selectors }) => narrowPair(mirrored(entry.selectors), selectors).ok)) continue;
      for (const fate of fatesOf(other, direction === 'out' ? 'in' : 'out', reached.map(mirrorBox))) {
        const key = `${entry.name} ${fate.entry?.name}`;
        if (!found.has(key)) found.set(key, oneSidedFinding(owner, entry, other, fate));
      }
    }
  }
  return [...found.values()];
}

function oneSidedFinding(owner: Checked, entry: PolicyEntry, other: Checked, fate: Fate): Finding {
  const message = `${owner.title} protects ${extent(fate.boxes, entry)} by '${entry.name}', and ${other.title} ${fate.text}`;
  const places = [policyPlace(owner, entry), ...(fate.entry === undefined ? [] : [policyPlace(other, fate.entry)])];
  const change = 'make both sides do the same with these packets';
  return { level: 'warning', topic: 'one-sided', message, places, change };
}

/** Of an entry that others before it have cut to pieces, only between which ends its packets lie. */
function extent(boxes: readonly Box[], { selectors }: PolicyEntry): string {
  const ours = boxes.map(mirrorBox);
  const parts = boxesOf(selectors).flatMap((whole) => {
    const within = intersectBoxes(ours, [whole]) ?? [whole];
    if (within.length === 0) return [];
    return within.length === 1 ? formatBox(within[0]!) : `parts of ${formatBox(hullOf(within))}`;
  });
  return listSome(parts, 2);
}

function policyPlace(checked: Checked, { name, action, line, selectors }: PolicyEntry): Place {
  return placeIn(checked, line ?? 1, `<policy> of '${name}', ${action}: ${formatSelectorPair(selectors)}`);
}

/** Policies that no packet reaches, and what else is amiss with a document by itself. */
export function checkAlone(checked: Checked): Finding[] {
  const { entries, warnings } = toPolicy(checked.document);
  // BOUNDED: by the policies; both directions of one make one finding.
  const unreached = new Map<string, Finding>();
  for (const direction of ['out', 'in'] as const) {
    for (const { entry, by } of shadowedEntries(orderPolicy(entries, direction))) {
      const key = `${entry.name} ${entry.line}`;
      if (!unreached.has(key)) unreached.set(key, unreachedFinding(checked, entry, by));
    }
  }
  const said = [...sharedKeyWarning(checked.document), ...warnings].map(
    (message): Finding => ({
      level: 'warning',
      topic: 'document',
      message: `${checked.title}: ${message}`,
      places: [],
      change: '',
    }),
  );
  return [...said, ...unreached.values()];
}

function unreachedFinding(checked: Checked, entry: PolicyEntry, by: readonly PolicyEntry[]): Finding {
  const places = [entry, ...by.slice(0, MAX_LISTED)].map((one) => policyPlace(checked, one));
  if (by.length === 0) {
    const message = `no packet can match '${entry.name}' of ${checked.title}: its two sides have no address family, protocol or ICMP type in common`;
    return { level: 'warning', topic: 'unreached', message, places, change: 'correct its ranges, or remove it' };
  }
  const names = by.slice(0, MAX_LISTED).map(({ name }) => `'${name}'`);
  const message = `'${entry.name}' of ${checked.title} is never reached: ${names.join(' and ')} before it ${by.length === 1 ? 'matches' : 'match'} all its packets`;
  const change = 'give it a higher priority, narrow the policies before it, or remove it';
  return { level: 'warning', topic: 'unreached', message, places, change };
}
