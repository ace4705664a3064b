/**
 * The problems of a document, in words that a person can act on: where, what was found, what is allowed.
 */
import { SectunnelError } from '../base/error.ts';

/**
 * `malformed`: not XML, or XML that is not read (DTD, size, encoding). `invalid`: XML that is not a document.
 * `unsupported`: a document that asks for something that is not there.
 */
export type IssueKind = 'malformed' | 'invalid' | 'unsupported';

/** One thing that is wrong with a document. */
export interface DocumentIssue {
  readonly kind: IssueKind;
  /** Line of the start tag (the last one if it has several), counted from 1; `undefined` when the whole document is meant. */
  readonly line: number | undefined;
  /** Where the element stands: `/sectunnel/sp[2]/policy`. */
  readonly path: string;
  /** Name of the element; empty when the whole document is meant. */
  readonly element: string;
  readonly attribute: string | undefined;
  /** What stands there, as far as it can be quoted. */
  readonly found: string | undefined;
  /** What may stand there. */
  readonly allowed: string | undefined;
  /** One sentence or two: what was found, what is wanted, what to change. */
  readonly message: string;
}

// BOUNDED: more issues than this are not collected, as no reader needs them at once.
export const MAX_ISSUES = 20;

/**
 * A document that is refused. Its `code` is `bad-document`, or `unsupported` when the document asks for what this version does
 * not do. The first issue is the primary one; its fields are repeated on the error itself.
 */
export class DocumentError extends SectunnelError {
  override readonly name = 'DocumentError';
  readonly source: string | undefined;
  readonly issues: readonly DocumentIssue[];
  readonly kind: IssueKind;
  readonly line: number | undefined;
  readonly path: string;
  readonly element: string;
  readonly found: string | undefined;
  readonly allowed: string | undefined;

  /** @param source what to call the document in messages, such as its file name */
  constructor(issues: readonly [DocumentIssue, ...DocumentIssue[]], source?: string) {
    const [first] = issues;
    const text = issues.map((issue) => formatIssue(issue, source)).join('\n');
    super(first.kind === 'unsupported' ? 'unsupported' : 'bad-document', text);
    this.source = source;
    this.issues = issues;
    this.kind = first.kind;
    this.line = first.line;
    this.path = first.path;
    this.element = first.element;
    this.found = first.found;
    this.allowed = first.allowed;
  }
}

/** `lan.xml:12: <src_range>: prefixlen='33' …` */
export function formatIssue(issue: DocumentIssue, source?: string): string {
  const where = [
    source,
    issue.line === undefined ? undefined : source === undefined ? `line ${issue.line}` : issue.line,
  ]
    .filter((part) => part !== undefined)
    .join(':');
  const kind = issue.kind === 'unsupported' ? 'unsupported configuration: ' : '';
  const element = issue.element === '' ? '' : `<${issue.element}>: `;
  return `${where === '' ? '' : `${where}: `}${kind}${element}${issue.message}`;
}

/** Text from a document, made fit for a message: one line, no control characters, not long. */
export function quote(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the pattern looks for control characters
  const clean = text.replace(/[\u0000-\u001f\u007f-\u009f]/g, ' ');
  return `'${clean.length > 80 ? `${clean.slice(0, 77)}...` : clean}'`;
}

/** `a`, `a or b`, `a, b or c`. */
export function listOf(names: readonly string[]): string {
  if (names.length < 2) return names.join('');
  return `${names.slice(0, -1).join(', ')} or ${names.at(-1)}`;
}
