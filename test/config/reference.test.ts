/** docs/document.md: made of the schema, complete, and with the defaults that documents have. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { documentReference } from '../../scripts/document-reference.ts';
import { dumpDocument } from '../../src/config/dump.ts';
import { SECTUNNEL_SHAPE } from '../../src/config/grammar.ts';
import { parseDocument } from '../../src/config/parse.ts';
import type { ElementShape } from '../../src/config/shape.ts';
import { childElements, withXml, type XmlNode } from '../../src/config/xml.ts';

const REFERENCE = readFileSync('docs/document.md', 'utf8');
const SCHEMA = readFileSync('schema/sectunnel.rng', 'utf8');

/** Sections by the paths in their headings. */
const sections = new Map(
  REFERENCE.split(/^## /m)
    .slice(1)
    .flatMap((section) => {
      const heading = section.split('\n')[0]!;
      return [...heading.matchAll(/`([^`]+)`/g)].map(([, path]) => [path!, section] as const);
    }),
);

function rowsOf(section: string): Map<string, readonly string[]> {
  const rows = [...section.matchAll(/^\| `<?(\w+)>?` *\| (.*?) *\| (.*?) *\|$/gm)];
  return new Map(rows.map(([, name, meaning, last]) => [name!, [meaning!, last!]]));
}

describe('the reference of the document', () => {
  it('is what `npm run docs:document` makes of the schema', () => {
    expect(REFERENCE).toBe(documentReference(SCHEMA, readFileSync('examples/ex-psk.xml', 'utf8')));
  });

  it('describes every element and attribute', () => {
    const missing: string[] = [];
    const look = ({ attributes = {}, children = {} }: ElementShape, path: string): void => {
      const rows = rowsOf(sections.get(path) ?? '');
      for (const name of [...Object.keys(attributes), ...Object.keys(children)]) {
        if ((rows.get(name)?.[0] ?? '').length < 4) missing.push(`${path} ${name}`);
      }
      for (const [name, { shape }] of Object.entries(children)) look(shape, `${path}/${name}`);
    };
    look(SECTUNNEL_SHAPE, 'sectunnel');
    expect(missing).toEqual([]);
  });

  it('names no element or attribute that a document may not have', () => {
    const unknown: string[] = [];
    const look = ({ attributes = {}, children = {} }: ElementShape, path: string): void => {
      for (const name of rowsOf(sections.get(path) ?? '').keys()) {
        if (!Object.hasOwn(attributes, name) && !Object.hasOwn(children, name)) unknown.push(`${path} ${name}`);
      }
      for (const [name, { shape }] of Object.entries(children)) look(shape, `${path}/${name}`);
    };
    look(SECTUNNEL_SHAPE, 'sectunnel');
    expect(unknown).toEqual([]);
  });

  it('lists the defaults that a document gets', () => {
    const document = parseDocument(readFileSync('examples/ex-seed.xml', 'utf8'), {
      newUuid: () => '7e5f1c8e-6d0e-4b7e-9a55-0c3f2f6d1a10',
    });
    const wrong: string[] = [];
    let compared = 0;
    const look = (node: XmlNode, path: string): void => {
      const rows = rowsOf(sections.get(path) ?? '');
      for (const { name, value } of node.attributes) {
        const fallback = rows.get(name)?.[1] ?? '';
        if (!/^[a-z0-9]+$/.test(fallback) || fallback === 'required') continue;
        compared++;
        if (value !== fallback) wrong.push(`${path} ${name}: ${value}, not ${fallback}`);
      }
      for (const child of childElements(node)) look(child, `${path}/${child.name}`);
    };
    // What the seed says itself: the ports of its end points, and of its ranges.
    const bare = dumpDocument(document)
      .replace(/ port='\d+'/g, '')
      .replaceAll("address='192.0.2.1'", '')
      .replaceAll("address='192.0.2.2'", '');
    withXml(bare, undefined, (root) => look(root, 'sectunnel'));
    expect(wrong).toEqual([]);
    expect(compared).toBeGreaterThan(8);
  });
});
