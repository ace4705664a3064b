/** XML out: elements as data, laid out as libvirt lays out its own, and escaping. */

type Attributes = Readonly<Record<string, string | number | bigint | undefined>>;

/** An element whose content is a text, or elements; those that are strings are XML already. */
export interface OutputElement {
  readonly name: string;
  readonly attributes: Attributes;
  readonly content: string | readonly (OutputElement | string)[];
}

/** Attributes that are `undefined` are left out. */
export function element(name: string, attributes: Attributes, content: OutputElement['content'] = []): OutputElement {
  return { name, attributes, content };
}

/** The lines of an element, two spaces a level; text stays on the line of its element. */
export function layOut(node: OutputElement | string, indent = ''): string[] {
  if (typeof node === 'string') return [indent + node];
  const attributes = Object.entries(node.attributes)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => ` ${name}='${escapeAttribute(String(value))}'`)
    .join('');
  const start = `${indent}<${node.name}${attributes}`;
  if (typeof node.content === 'string') return [`${start}>${escapeText(node.content)}</${node.name}>`];
  if (node.content.length === 0) return [`${start}/>`];
  return [`${start}>`, ...node.content.flatMap((child) => layOut(child, `${indent}  `)), `${indent}</${node.name}>`];
}

/** So that parsing gives back exactly this text: a bare carriage return would become a line feed. */
export function escapeText(text: string): string {
  return text.replace(/[&<>\r]/g, escapeCharacter);
}

/** For single quotes. Tabs and line ends would become spaces if they stood there as they are. */
export function escapeAttribute(text: string): string {
  return text.replace(/[&<>'\t\n\r]/g, escapeCharacter);
}

function escapeCharacter(character: string): string {
  switch (character) {
    case '&':
      return '&amp;';
    case '<':
      return '&lt;';
    case '>':
      return '&gt;';
    case "'":
      return '&apos;';
    default:
      return `&#${character.charCodeAt(0)};`;
  }
}
