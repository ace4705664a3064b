/**
 * `npm run docs:document`: writes docs/document.md, the reference of the `<sectunnel>` document, from the annotations of
 * schema/sectunnel.rng. A test holds the file against what this makes of the schema.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { argv } from 'node:process';
import { fileURLToPath } from 'node:url';
import { attributeOf } from '../src/config/values.ts';
import { childElements, textContent, withXml, type XmlNode } from '../src/config/xml.ts';

/** How often an element or attribute may stand there. */
type Count = 'one' | 'optional' | 'any number' | 'one or more';

interface AttributeEntry {
  readonly name: string;
  readonly count: Count;
  /** As the schema lists them. */
  readonly values: readonly string[];
  readonly fallback: string;
  readonly text: string;
}

interface ElementEntry extends Content {
  readonly name: string;
  readonly count: Count;
  readonly text: string;
  readonly fallback: string;
}

/** What a pattern lets stand in an element. */
interface Content {
  readonly attributes: readonly AttributeEntry[];
  readonly elements: readonly ElementEntry[];
}

/** @param schema text of the RELAX NG schema */
export function documentReference(schema: string, example: string): string {
  return withXml(schema, 'schema/sectunnel.rng', (grammar) => {
    const defines = new Map(childElements(grammar, 'define').map((node) => [attributeOf(node, 'name')!, node]));
    const root = contentOf(defines.get('sectunnel')!, defines).elements[0]!;
    return [
      '# The document',
      '',
      '<!-- Made by `npm run docs:document` from schema/sectunnel.rng. Change the annotations there. -->',
      '',
      'Every element and attribute of a `<sectunnel>` document. What is optional and left out has the default; `sectunnel dumpxml`',
      'writes all of them out. What policies mean is in [`policy.md`](policy.md), certificates are in',
      '[`certificates.md`](certificates.md), what passes in the clear and what does not in [`steering.md`](steering.md).',
      '',
      '```xml',
      example.trim(),
      '```',
      '',
      ...sections(root),
    ].join('\n');
  });
}

type Defines = ReadonlyMap<string, XmlNode>;

/** What the parts of a pattern let stand together, references followed. */
function contentOf(node: XmlNode, defines: Defines): Content {
  return together(childElements(node).map((child) => contentOfPart(child, defines)));
}

function contentOfPart(node: XmlNode, defines: Defines): Content {
  switch (node.name) {
    case 'element':
      return { attributes: [], elements: elementEntry(node, defines) };
    case 'attribute':
      return { attributes: attributeEntry(node, defines), elements: [] };
    case 'ref':
      return contentOf(defines.get(attributeOf(node, 'name')!)!, defines);
    case 'choice':
      return oneOf(childElements(node).map((child) => contentOfPart(child, defines)));
    case 'optional':
      return counted(contentOf(node, defines), () => 'optional');
    case 'zeroOrMore':
      return counted(contentOf(node, defines), () => 'any number');
    case 'oneOrMore':
      return counted(contentOf(node, defines), (count) => (count === 'one' ? 'one or more' : 'any number'));
    default:
      return contentOf(node, defines);
  }
}

function together(parts: readonly Content[]): Content {
  return {
    attributes: merged(parts.flatMap(({ attributes }) => attributes)),
    elements: merged(parts.flatMap(({ elements }) => elements)),
  };
}

/** What stands in every alternative must stand there; all else may. */
function oneOf(alternatives: readonly Content[]): Content {
  const always = <Entry extends { readonly name: string }>(all: readonly (readonly Entry[])[]) => {
    return (name: string) => all.every((entries) => entries.some((entry) => entry.name === name));
  };
  const attributes = always(alternatives.map((content) => content.attributes));
  const elements = always(alternatives.map((content) => content.elements));
  const all = together(alternatives);
  return {
    attributes: all.attributes.map((entry) => (attributes(entry.name) ? entry : { ...entry, count: 'optional' })),
    elements: all.elements.map((entry) => (elements(entry.name) ? entry : { ...entry, count: orNone(entry.count) })),
  };
}

function orNone(count: Count): Count {
  return count === 'one' ? 'optional' : count === 'one or more' ? 'any number' : count;
}

function counted({ attributes, elements }: Content, change: (count: Count) => Count): Content {
  return {
    attributes: attributes.map((entry) => ({ ...entry, count: change(entry.count) })),
    elements: elements.map((entry) => ({ ...entry, count: change(entry.count) })),
  };
}

/** Alternatives may name the same twice: the annotation stands at one of them, values at both. */
function merged<Entry extends AttributeEntry | ElementEntry>(entries: readonly Entry[]): Entry[] {
  const known = new Map<string, Entry>();
  for (const entry of entries) {
    const before = known.get(entry.name);
    known.set(entry.name, before === undefined ? entry : joined(before, entry));
  }
  return [...known.values()];
}

function joined<Entry extends AttributeEntry | ElementEntry>(a: Entry, b: Entry): Entry {
  const { text, fallback } = a.text === '' ? b : a;
  const values = 'values' in a && 'values' in b ? { values: [...new Set([...a.values, ...b.values])] } : {};
  return { ...a, ...values, text, fallback };
}

function elementEntry(node: XmlNode, defines: Defines): ElementEntry[] {
  const name = attributeOf(node, 'name');
  // An element of any name is another program's.
  return name === undefined ? [] : [{ name, count: 'one', ...annotations(node), ...contentOf(node, defines) }];
}

function attributeEntry(node: XmlNode, defines: Defines): AttributeEntry[] {
  const name = attributeOf(node, 'name');
  return name === undefined ? [] : [{ name, count: 'one', ...annotations(node), values: valuesOf(node, defines) }];
}

/** What may stand for a value, as far as the schema lists it. */
function valuesOf(node: XmlNode, defines: Defines): string[] {
  return childElements(node).flatMap((child) => {
    switch (child.name) {
      case 'value':
        return textContent(child) === '' ? [] : [`\`${textContent(child)}\``];
      case 'choice':
        return valuesOf(child, defines);
      case 'ref':
        return valuesOf(defines.get(attributeOf(child, 'name')!)!, defines);
      case 'data':
        return attributeOf(child, 'type')?.startsWith('unsigned') === true ? [range(child)] : [];
      default:
        return [];
    }
  });
}

const LARGEST: Readonly<Record<string, string>> = { unsignedByte: '255', unsignedShort: '65535' };

function range(data: XmlNode): string {
  const limit = (name: string): string | undefined => {
    const param = childElements(data, 'param').find((node) => attributeOf(node, 'name') === name);
    return param && textContent(param).trim();
  };
  const [from, to] = [limit('minInclusive') ?? '0', limit('maxInclusive') ?? LARGEST[attributeOf(data, 'type')!]];
  return to === undefined ? `from ${from}` : `${from} to ${to}`;
}

function annotations(node: XmlNode): { readonly text: string; readonly fallback: string } {
  const said = (name: string): string => {
    const found = childElements(node, name).find(({ prefix }) => prefix !== '');
    return found === undefined ? '' : textContent(found).trim().replace(/\s+/g, ' ');
  };
  return { text: said('documentation'), fallback: said('default') };
}

interface Section {
  readonly paths: string[];
  readonly entry: ElementEntry;
  readonly tables: string;
}

/** A section for each kind of element, in the order in which they stand in a document. */
function sections(root: ElementEntry): string[] {
  const found = new Map<string, Section>();
  gather(root, '', found);
  return [...found.values()].flatMap(({ paths, entry, tables }) => [
    `## ${paths.map((path) => `\`${path}\``).join(', ')}`,
    '',
    ...(paths.length === 1 ? [cell(sentences(entry.text, fallbackSentence(entry))), ''] : []),
    tables,
  ]);
}

/** Elements that are alike, such as both ends, are told of once. Those without attributes or parts stand in their parent's. */
function gather(entry: ElementEntry, parent: string, found: Map<string, Section>): void {
  const path = parent === '' ? entry.name : `${parent}/${entry.name}`;
  const tables = [...attributeTable(entry.attributes), ...elementTable(entry.elements)].join('\n');
  const known = found.get(tables);
  if (tables === '') return;
  if (known !== undefined) known.paths.push(path);
  else found.set(tables, { paths: [path], entry, tables });
  for (const child of entry.elements) gather(child, path, found);
}

function fallbackSentence({ fallback }: ElementEntry): string {
  return fallback === '' ? '' : `Default: ${fallback}.`;
}

function attributeTable(attributes: readonly AttributeEntry[]): string[] {
  const rows = attributes.map(({ name, count, values, fallback, text }) => [
    `\`${name}\``,
    sentences(text, values.length === 0 ? '' : `Values: ${values.join(', ')}.`),
    count === 'one' ? 'required' : fallback,
  ]);
  return table(['attribute', 'meaning', 'default'], rows);
}

function elementTable(elements: readonly ElementEntry[]): string[] {
  const rows = elements.map((entry) => [
    `\`<${entry.name}>\``,
    sentences(entry.text, fallbackSentence(entry)),
    entry.count,
  ]);
  return table(['element', 'meaning', 'how many'], rows);
}

function sentences(...parts: readonly string[]): string {
  return parts.filter((part) => part !== '').join(' ');
}

/** Columns as wide as their widest cell, as the formatter has them. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  if (rows.length === 0) return [];
  const cells = [head, ...rows].map((row) => row.map(cell));
  const widths = head.map((_, at) => Math.max(...cells.map((row) => row[at]!.length)));
  const line = (row: readonly string[], fill: string): string =>
    `| ${widths.map((width, at) => (row[at] ?? '').padEnd(width, fill)).join(' | ')} |`;
  const [first, ...others] = cells.map((row) => line(row, ' '));
  return [first!, line([], '-'), ...others, ''];
}

/** Tags are code. */
function cell(text: string): string {
  return text.replaceAll('|', '\\|').replace(/(?<!`)<\w+[^>]*>(?!`)/g, '`$&`');
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  // npm runs scripts in the folder of the package.
  const read = (file: string): string => readFileSync(file, 'utf8');
  writeFileSync('docs/document.md', documentReference(read('schema/sectunnel.rng'), read('examples/ex-psk.xml')));
}
