/**
 * Collects the problems of a document while it is read, so that one run shows all of them.
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
  badValue(node: XmlNode, attribute: string, found: string, allowed: string, why = `${allowed} is required`): void {
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

export function allowedNames(names: readonly string[]): string {
  return names.length === 0 ? 'nothing' : listOf(names);
}
