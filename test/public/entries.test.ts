/** What the package's entries export: every type that they mention can be imported, and each export is documented. */
import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  type Declared,
  documentationOf,
  exportsOf,
  hasPositionalBoolean,
  mentionedBy,
  showDeclared,
} from '../support/declarations.ts';

const { exports } = JSON.parse(readFileSync('package.json', 'utf8')) as {
  readonly exports: Readonly<Record<string, string | { readonly types: string }>>;
};

const ENTRIES = Object.entries(exports).flatMap(([name, target]) =>
  typeof target === 'string' ? [] : [[name, resolve(target.types)] as const],
);

const key = ({ file, name }: Declared): string => `${file} ${name}`;

describe('the entries', () => {
  it('are built', () => {
    expect(ENTRIES.length).toBeGreaterThan(5);
    expect(
      ENTRIES.filter(([, file]) => !existsSync(file)),
      'npm run build makes them',
    ).toEqual([]);
  });

  it('export every type that what they export mentions', () => {
    const exported = new Set(ENTRIES.flatMap(([, file]) => [...exportsOf(file).values()].map(key)));
    const missing = new Set<string>();
    for (const [name, file] of ENTRIES) {
      for (const declared of exportsOf(file).values()) {
        for (const mention of mentionedBy(declared)) {
          if (!exported.has(key(mention))) missing.add(`${name}: ${declared.name} mentions ${showDeclared(mention)}`);
        }
      }
    }
    expect([...missing]).toEqual([]);
  });

  it('take no boolean by position', () => {
    const booleans = ENTRIES.flatMap(([, file]) =>
      [...exportsOf(file).values()].filter(hasPositionalBoolean).map(showDeclared),
    );
    expect([...new Set(booleans)]).toEqual([]);
  });

  it('document all that they export', () => {
    const silent = ENTRIES.flatMap(([, file]) =>
      [...exportsOf(file).values()].filter((declared) => documentationOf(declared) === '').map(showDeclared),
    );
    expect([...new Set(silent)]).toEqual([]);
  });
});
