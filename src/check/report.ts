/** What the check of documents finds: plain data that a command prints and a program reads. */
import type { SectunnelDocument } from '../config/model.ts';

/** Which of the two documents. */
export type Side = 'a' | 'b';

/** A document, and what is needed to speak of its lines. */
export interface Checked {
  readonly side: Side;
  /** What to call it: the name of its file. */
  readonly title: string;
  readonly document: SectunnelDocument;
  /** Lines of start tags by path (`documentLines`). */
  readonly lines: ReadonlyMap<string, readonly number[]>;
}

/** A line of a document, and what it says. */
export interface Place {
  readonly side: Side;
  readonly title: string;
  readonly line: number;
  /** `<remote address='192.0.2.2'>`; as the document means it, defaults filled in. */
  readonly says: string;
}

/** `error`: the two will not negotiate, or not for long; `warning`: they will, but something is probably wrong. */
export type FindingLevel = 'error' | 'warning' | 'note';

export type FindingTopic =
  | 'address'
  | 'port'
  | 'start'
  | 'nat'
  | 'identity'
  | 'authentication'
  | 'ike-proposal'
  | 'esp-proposal'
  | 'mode'
  | 'selectors'
  | 'one-sided'
  | 'lifetime'
  | 'unreached'
  | 'document'
  | 'negotiation';

export interface Finding {
  readonly level: FindingLevel;
  readonly topic: FindingTopic;
  /** What was found, in a sentence; further lines say more. */
  readonly message: string;
  readonly places: readonly Place[];
  /** What to change; empty where there is nothing to. */
  readonly change: string;
}

/** The line of an element, or of what it would stand in: the model's own line. */
export function lineOf({ lines }: Checked, path: string, otherwise: number, index = 0): number {
  return lines.get(path)?.[index] ?? otherwise;
}

export function placeIn(checked: Checked, line: number, says: string): Place {
  return { side: checked.side, title: checked.title, line, says };
}

const RANK: Readonly<Record<FindingLevel, number>> = { error: 0, warning: 1, note: 2 };

/** The gravest first; otherwise in the order in which they were found. */
export function byWeight(findings: readonly Finding[]): Finding[] {
  return findings.toSorted((a, b) => RANK[a.level] - RANK[b.level]);
}
