/**
 * `<metadata>`: XML of other programs, kept unchanged. Each element in it is kept as a text that stands for
 * itself: namespaces that were declared further out are declared on it.
 */
import type { Issues } from './issues.ts';
import { escapeAttribute, escapeText } from './write.ts';
import { childElements, type XmlNode } from './xml.ts';

const XML_NAMESPACE = 'http://www.w3.org/XML/1998/namespace';

/** As libvirt has it: own namespaces only, and one element for each. */
export function readMetadata(issues: Issues, node: XmlNode | undefined): string[] {
  if (node === undefined) return [];
  const text = node.children.find((child) => typeof child === 'string' && child.trim() !== '');
  if (text !== undefined) issues.add(node, 'there is text in it outside of any element; put it into an element');
  // BOUNDED: by the size of the document.
  const lines = new Map<string, number>();
  for (const child of childElements(node)) {
    const first = lines.get(child.namespace);
    if (child.namespace === '') {
      issues.add(child, "elements of <metadata> need a namespace of their own; add xmlns:app='…' and write <app:…>");
    } else if (first !== undefined) {
      issues.add(
        child,
        `line ${first} has an element in the namespace '${child.namespace}' already; put both into one`,
        {
          found: child.namespace,
        },
      );
    } else lines.set(child.namespace, child.line);
  }
  return childElements(node).map((child) => serialize(child, new Map([['xml', XML_NAMESPACE]])));
}

/** `scope` has the namespaces that are declared around the element, by prefix. */
function serialize(node: XmlNode, scope: ReadonlyMap<string, string>): string {
  const inner = new Map(scope);
  const declarations: string[] = [];
  const declare = (prefix: string, namespace: string): void => {
    if ((inner.get(prefix) ?? '') === namespace) return;
    inner.set(prefix, namespace);
    declarations.push(` xmlns${prefix === '' ? '' : `:${prefix}`}='${escapeAttribute(namespace)}'`);
  };
  for (const [prefix, namespace] of Object.entries(node.declarations)) declare(prefix, namespace);
  declare(node.prefix, node.namespace);
  for (const { prefix, namespace } of node.attributes) if (prefix !== '') declare(prefix, namespace);
  const name = node.prefix === '' ? node.name : `${node.prefix}:${node.name}`;
  const attributes = node.attributes.map(
    (attribute) =>
      ` ${attribute.prefix === '' ? '' : `${attribute.prefix}:`}${attribute.name}='${escapeAttribute(attribute.value)}'`,
  );
  const start = `<${name}${declarations.join('')}${attributes.join('')}`;
  const content = node.children.map((child) =>
    typeof child === 'string' ? escapeText(child) : serialize(child, inner),
  );
  return content.length === 0 ? `${start}/>` : `${start}>${content.join('')}</${name}>`;
}
