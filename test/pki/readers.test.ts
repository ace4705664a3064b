/** Our own DER reader and PKI.js share the parsing of certificates (src/pki/certificate.ts): no file uses both. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const ROOM = fileURLToPath(new URL('../../src/pki', import.meta.url));
const SOURCES = readdirSync(ROOM, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => [name, readFileSync(join(ROOM, name), 'utf8')] as const);
const using = (wanted: RegExp): string[] => SOURCES.filter(([, text]) => wanted.test(text)).map(([name]) => name);
const PKIJS = /from '(?:pkijs|asn1js)'/;
const OWN = /from '[^']*\/(?:der|outline|signed)\.ts'/;

describe('the readers of certificates', () => {
  it('are PKI.js in one file', () => {
    expect(using(PKIJS)).toEqual(['extension-values.ts']);
  });

  it('are never both in one file', () => {
    expect(using(OWN)).toContain('certificate-cache.ts');
    expect(using(OWN).filter((name) => using(PKIJS).includes(name))).toEqual([]);
  });
});
