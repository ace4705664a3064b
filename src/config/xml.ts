/**
 * XML in: text to a plain tree, with every door shut that XML opens to an attacker.
 *
 * No DTD is ever read, hence no entity but the five built-in ones exists: neither expansion ("billion laughs") nor
 * external entities are possible. Size, number of lines and depth are bounded. The parser is libxml2 in
 * WebAssembly; all that lives in its memory is released before this module returns.
 */
import { ParseOption, XmlCData, XmlDocument, XmlElement, XmlParseError, XmlText } from 'libxml2-wasm';
import { DocumentError, type DocumentIssue, quote } from './errors.ts';
import { MAX_DOCUMENT_BYTES } from './size.ts';

/** libxml2 keeps line numbers in 16 bits. */
const MAX_LINES = 0xffff;
/** Tags, comments and sections, counted as `<` before anything is parsed: they cost memory, a hundred times their text. */
const MAX_MARKUP = 20_000;
/** Elements within elements. The grammar needs eight; `metadata` may go deeper. */
const MAX_DEPTH = 64;

export interface XmlAttributeNode {
  readonly prefix: string;
  readonly namespace: string;
  readonly name: string;
  readonly value: string;
}

/** An element as plain data. Comments and processing instructions are left out, CDATA is text. */
export interface XmlNode {
  readonly name: string;
  readonly prefix: string;
  /** Namespace name; empty for none. */
  readonly namespace: string;
  readonly line: number;
  /** `/sectunnel/sp[2]/policy`: the position among siblings of the same name, from 1, where it is not the only one. */
  readonly path: string;
  readonly attributes: readonly XmlAttributeNode[];
  /** Namespace declarations on this element, by prefix. */
  readonly declarations: Readonly<Record<string, string>>;
  readonly children: readonly (XmlNode | string)[];
}

/**
 * Parses a text and hands its tree to `use`; libxml2's own document, for a schema to look at, is gone when that returns.
 *
 * @throws DocumentError for anything that is not well-formed, or that is not read on purpose; and what `use` throws
 */
export function withXml<T>(
  input: string | Uint8Array,
  source: string | undefined,
  use: (root: XmlNode, document: XmlDocument) => T,
): T {
  const text = documentText(input, source);
  const document = parseText(text, source);
  try {
    if (document.dtd !== null) refuse(source, undefined, DTD_MESSAGE);
    return use(plainTree(document.root, source), document);
  } finally {
    document.dispose();
  }
}

const DTD_MESSAGE =
  'a document type declaration (<!DOCTYPE …>) is not allowed: documents have no DTD and no entities of their own. Remove it';

function refuse(source: string | undefined, line: number | undefined, message: string): never {
  throw new DocumentError([malformed(line, message)], source);
}

function malformed(line: number | undefined, message: string): DocumentIssue {
  return {
    kind: 'malformed',
    line,
    path: '/',
    element: '',
    attribute: undefined,
    found: undefined,
    allowed: undefined,
    message,
  };
}

/** UTF-8 text within bounds, without a byte order mark, that has no DTD. */
function documentText(input: string | Uint8Array, source: string | undefined): string {
  const size = typeof input === 'string' ? Buffer.byteLength(input) : input.length;
  if (size > MAX_DOCUMENT_BYTES) {
    refuse(source, undefined, `the document has ${size} bytes; at most ${MAX_DOCUMENT_BYTES} are read`);
  }
  const text = (typeof input === 'string' ? input : decode(input, source)).replace(/^\uFEFF/, '');
  if (/^\s*$/.test(text))
    refuse(source, undefined, 'the document is empty; a <sectunnel> or <secret> element is required');
  const nul = text.indexOf('\0');
  if (nul >= 0) refuse(source, lineAt(text, nul), 'a NUL character is not allowed in XML; save the document as UTF-8');
  if (/\p{Surrogate}/u.test(text))
    refuse(source, undefined, 'the text has half a surrogate pair, which no character is');
  const lines = lineAt(text, text.length);
  if (lines > MAX_LINES) refuse(source, undefined, `the document has ${lines} lines; at most ${MAX_LINES} are read`);
  const markup = countOf(text, '<');
  if (markup > MAX_MARKUP) refuse(source, undefined, `the document has ${markup} tags; at most ${MAX_MARKUP} are read`);
  checkProlog(text, source);
  return text;
}

function decode(bytes: Uint8Array, source: string | undefined): string {
  const wide = (bytes[0] === 0xfe && bytes[1] === 0xff) || (bytes[0] === 0xff && bytes[1] === 0xfe);
  if (wide || (bytes.length > 1 && (bytes[0] === 0) !== (bytes[1] === 0))) {
    refuse(source, 1, 'the document is in UTF-16 or UTF-32; save it as UTF-8');
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return refuse(source, undefined, 'the document is not valid UTF-8; save it as UTF-8');
  }
}

/** Goes over what may stand before the root element; only there can a DTD stand (XML 1.0 §2.8). */
function checkProlog(text: string, source: string | undefined): void {
  const declared = /^<\?xml\s[^>]*?encoding\s*=\s*["']([^"'>]*)["']/.exec(text)?.[1];
  if (declared !== undefined && !/^(utf-8|us-ascii)$/i.test(declared)) {
    refuse(source, 1, `encoding=${quote(declared)} is declared; only UTF-8 is read. Save the document as UTF-8`);
  }
  const step = /\s+|<\?[\s\S]*?\?>|<!--[\s\S]*?-->/y;
  let at = 0;
  while (step.test(text)) at = step.lastIndex;
  if (/^<!doctype/i.test(text.slice(at, at + 9))) refuse(source, lineAt(text, at), DTD_MESSAGE);
}

function lineAt(text: string, at: number): number {
  return countOf(text.slice(0, at), '\n') + 1;
}

function countOf(text: string, character: string): number {
  let count = 0;
  for (let at = text.indexOf(character); at >= 0; at = text.indexOf(character, at + 1)) count++;
  return count;
}

function parseText(text: string, source: string | undefined): XmlDocument {
  try {
    return XmlDocument.fromString(text, { option: ParseOption.XML_PARSE_NONET | ParseOption.XML_PARSE_NO_XXE });
  } catch (error) {
    if (!(error instanceof XmlParseError)) throw error;
    const detail = error.details.find((entry) => entry.level > 1) ?? error.details[0];
    const reason = (detail?.message ?? 'it cannot be parsed').trim().replace(/\s+/g, ' ');
    return refuse(source, detail?.line === 0 ? undefined : detail?.line, `this is not well-formed XML: ${reason}`);
  }
}

function plainTree(element: XmlElement, source: string | undefined, parentPath = '', step = '', depth = 1): XmlNode {
  // The parser keeps the line in the low half of this word.
  const line = element.line & 0xffff;
  if (depth > MAX_DEPTH) refuse(source, line, `elements are nested more than ${MAX_DEPTH} deep`);
  const path = `${parentPath}/${step === '' ? qualified(element) : step}`;
  const nodes: (XmlElement | string)[] = [];
  for (let node = element.firstChild; node !== null; node = node.next) {
    if (node instanceof XmlElement) nodes.push(node);
    else if (node instanceof XmlText || node instanceof XmlCData) nodes.push(node.content);
  }
  const steps = childSteps(nodes.filter((node) => typeof node !== 'string'));
  const children = nodes.map((node) =>
    typeof node === 'string' ? node : plainTree(node, source, path, steps.get(node), depth + 1),
  );
  return {
    name: element.name,
    prefix: element.prefix,
    namespace: element.namespaceUri,
    line,
    path,
    attributes: element.attrs.map((attribute) => ({
      prefix: attribute.prefix,
      namespace: attribute.namespaceUri,
      name: attribute.name,
      value: attribute.value,
    })),
    declarations: { ...element.nsDeclarations },
    children: joinText(children),
  };
}

function qualified(element: XmlElement): string {
  return element.prefix === '' ? element.name : `${element.prefix}:${element.name}`;
}

function childSteps(elements: readonly XmlElement[]): ReadonlyMap<XmlElement, string> {
  // BOUNDED: by the children of one element of a bounded document.
  const totals = new Map<string, number>();
  for (const element of elements) totals.set(qualified(element), (totals.get(qualified(element)) ?? 0) + 1);
  const seen = new Map<string, number>();
  const steps = new Map<XmlElement, string>();
  for (const element of elements) {
    const name = qualified(element);
    const index = (seen.get(name) ?? 0) + 1;
    seen.set(name, index);
    steps.set(element, totals.get(name) === 1 ? name : `${name}[${index}]`);
  }
  return steps;
}

/** Text that only a comment or a CDATA border stood between is one text. */
function joinText(children: readonly (XmlNode | string)[]): (XmlNode | string)[] {
  const joined: (XmlNode | string)[] = [];
  for (const child of children) {
    const last = joined.at(-1);
    if (typeof child === 'string' && typeof last === 'string') joined[joined.length - 1] = last + child;
    else joined.push(child);
  }
  return joined;
}

export function childElements(node: XmlNode, name?: string): XmlNode[] {
  return node.children.filter(
    (child) => typeof child !== 'string' && (name === undefined || child.name === name),
  ) as XmlNode[];
}

export function textContent(node: XmlNode): string {
  return node.children.map((child) => (typeof child === 'string' ? child : textContent(child))).join('');
}
