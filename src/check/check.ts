/**
 * The room `check`: whether two documents will negotiate with each other, and if not, what to change. The code that negotiates
 * compares each part with its counterpart, and the whole is tried in memory (`dry-run.ts`).
 */

import { checkAuthentication, type DnMatcher } from './authentication.ts';
import type { DryRun } from './dry-run.ts';
import { checkEnds } from './ends.ts';
import { checkAlone, checkFlows } from './flows.ts';
import { checkLifetimes } from './lifetimes.ts';
import { byWeight, type Checked, type Finding } from './report.ts';
import { checkSuites } from './suites.ts';

export interface PairReport {
  readonly willNegotiate: boolean;
  /** What weighs most comes first. */
  readonly findings: readonly Finding[];
  /** With each side that can begin as the initiator. */
  readonly dryRuns: readonly DryRun[];
}

/** The problems of one document alone. */
export function checkDocument(checked: Checked): Finding[] {
  return byWeight(checkAlone(checked));
}

/** @param dryRuns with each side that can begin as the initiator */
export function checkPair(a: Checked, b: Checked, dryRuns: readonly DryRun[], matches: DnMatcher): PairReport {
  const compared = [
    ...checkEnds(a, b),
    ...checkAuthentication(a, b, matches),
    ...checkSuites(a, b),
    ...checkFlows(a, b),
    ...checkLifetimes(a, b),
    ...checkAlone(a),
    ...checkAlone(b),
  ];
  const wrong = compared.some(({ level }) => level === 'error');
  // The comparison explains an error better, with lines.
  const findings = wrong ? compared : [...compared, ...dryRuns.flatMap((dry) => negotiationFindings(a, b, dry))];
  return { willNegotiate: findings.every(({ level }) => level !== 'error'), findings: byWeight(findings), dryRuns };
}

function negotiationFindings(a: Checked, b: Checked, { ok, initiator, failures }: DryRun): Finding[] {
  if (ok) return [];
  const begins = (initiator === 'a' ? a : b).title;
  const why = failures.map(({ side, reason, detail }) => `${(side === 'a' ? a : b).title}: ${reason}: ${detail}`);
  const message = `when ${begins} initiates, the negotiation fails: ${why.length === 0 ? 'some rules got no SA' : why.join('; ')}`;
  return [{ level: 'error', topic: 'negotiation', message, places: [], change: '' }];
}
