/** Where the elements of a document stand, for messages that are more precise than the model's own lines. */
import { withXml, type XmlNode } from './xml.ts';

/**
 * Lines of start tags by path within the root element: `sa/ike/proposal` has one for each proposal, in their order.
 * @throws DocumentError when the text is not XML
 */
export function documentLines(xml: string | Uint8Array, source?: string): ReadonlyMap<string, readonly number[]> {
  // BOUNDED: by the elements of a bounded document.
  const lines = new Map<string, number[]>();
  const walk = (node: XmlNode, path: string): void => {
    const known = lines.get(path);
    if (known === undefined) lines.set(path, [node.line]);
    else known.push(node.line);
    for (const child of node.children) if (typeof child !== 'string') walk(child, `${path}/${child.name}`);
  };
  withXml(xml, source, (root) => {
    for (const child of root.children) if (typeof child !== 'string') walk(child, child.name);
  });
  return lines;
}
