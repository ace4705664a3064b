/**
 * Collecting what is wrong with a document while it is read, so that one run shows all of it.
 */
import { DocumentError, type DocumentIssue, type IssueKind, listOf, MAX_ISSUES, quote } from './errors.ts';
import type { XmlNode } from './xml.ts';

export interface IssueDetail {
  readonly kind?: IssueKind;
  readonly attribute?: string;
  readonly found?: string;
  readonly allowed?: string;
}

/** The issues of one document. Reading goes on after an issue; `throwIfAny` ends it. */
export class Issues {
  readonly #list: DocumentIssue[] = [];

  add(node: XmlNode, message: string, detail: IssueDetail = {}): void {
    // BOUNDED: by MAX_ISSUES.
    if (this.full) return;
    this.#list.push({
      kind: detail.kind ?? 'invalid',
      line: node.line,
      path: node.path,
      element: node.name,
      attribute: detail.attribute,
      found: detail.found,
      allowed: detail.allowed,
      message,
    });
  }

  /** An attribute whose value cannot be used: `mtu='70': a whole number from 576 to 65535 is wanted`. */
  badValue(node: XmlNode, attribute: string, found: string, allowed: string, why = `${allowed} is wanted`): void {
    this.add(node, `${attribute}=${quote(found)}: ${why}`, { attribute, found, allowed });
  }

  get any(): boolean {
    return this.#list.length > 0;
  }

  /** No more are taken, so there is no use in looking for them. */
  get full(): boolean {
    return this.#list.length >= MAX_ISSUES;
  }

  /** In order of lines; what is invalid before what is only unsupported. */
  throwIfAny(source: string | undefined): void {
    const rank = (issue: DocumentIssue): number => (issue.kind === 'unsupported' ? 1 : 0);
    const [first, ...rest] = this.#list.toSorted((a, b) => rank(a) - rank(b) || (a.line ?? 0) - (b.line ?? 0));
    if (first !== undefined) throw new DocumentError([first, ...rest], source);
  }
}

/** The one of the names that is nearly what was found. */
export function nearest(found: string, names: readonly string[]): string | undefined {
  const lower = found.toLowerCase();
  return names.find((name) => name.length > 2 && (name.toLowerCase() === lower || editDistance(lower, name) <= 2));
}

/** ` (did you mean 'policy'?)` when one of the names is nearly what was found, else nothing. */
export function suggestion(found: string, names: readonly string[]): string {
  const near = nearest(found, names);
  return near === undefined ? '' : ` (did you mean '${near}'?)`;
}

export function allowedNames(names: readonly string[]): string {
  return names.length === 0 ? 'nothing' : listOf(names);
}

/** Levenshtein distance, exact up to 2; of short names only. */
function editDistance(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 2 || a.length > 32) return 3;
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
