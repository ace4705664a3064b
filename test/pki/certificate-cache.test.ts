/** Certificates that were read before are not read again, and nothing else is taken for them. */
import { describe, expect, it } from 'vitest';
import type { Certificate } from '../../src/pki/certificate.ts';
import { CertificateCache } from '../../src/pki/certificate-cache.ts';
import { MalformedCertificateError } from '../../src/pki/malformed.ts';
import { ElementAllowance } from '../../src/pki/outline.ts';
import { authority, extension, make } from './make.ts';

const ROOT = authority('CN=root');
const parse = (cache: CertificateCache, der: Uint8Array): Certificate => cache.parse(der, new ElementAllowance());

describe('a cache of certificates', () => {
  it('gives what it read for the same bytes, and keeps none of the message around them', () => {
    const cache = new CertificateCache();
    const message = Buffer.concat([Buffer.alloc(5_000), ROOT.der]);
    const first = parse(cache, message.subarray(5_000));
    expect(parse(cache, ROOT.der)).toBe(first);
    expect(first.der).toEqual(ROOT.der);
    expect(first.der.buffer.byteLength).toBe(ROOT.der.length);
    message.fill(0);
    expect(parse(cache, ROOT.der).der).toEqual(ROOT.der);
  });

  it('gives nothing else for bytes of which one differs: they are read, or refused', () => {
    const cache = new CertificateCache();
    const known = parse(cache, ROOT.der);
    for (let at = 0; at < ROOT.der.length; at += 7) {
      const changed = ROOT.der.slice();
      changed[at] = changed[at]! ^ 1;
      try {
        const found = parse(cache, changed);
        expect(found).not.toBe(known);
        expect(found.der).toEqual(changed);
      } catch (error) {
        expect(error).toBeInstanceOf(MalformedCertificateError);
      }
    }
  });

  it('keeps 256, those that were used last, and none that is large or malformed', () => {
    const cache = new CertificateCache();
    const root = parse(cache, ROOT.der);
    const certificate = (serial: number): Uint8Array =>
      make({ subject: 'CN=x', key: ROOT.key, serial: Uint8Array.of(1, serial >>> 8, serial) }).der;
    for (let serial = 0; serial < 300; serial++) {
      parse(cache, certificate(serial));
      if (serial % 100 === 0) expect(parse(cache, ROOT.der)).toBe(root);
    }
    expect(cache.size).toBe(256);
    expect(parse(cache, ROOT.der)).toBe(root);
    for (let serial = 300; serial < 556; serial++) parse(cache, certificate(serial));
    expect(parse(cache, ROOT.der)).not.toBe(root);
    const large = make({ subject: 'CN=x', extra: [extension('2a03', false, new Uint8Array(5_000))] }).der;
    const fresh = new CertificateCache();
    expect(parse(fresh, large)).not.toBe(parse(fresh, large));
    expect(() => parse(fresh, Uint8Array.of(1, 2, 3))).toThrow(MalformedCertificateError);
    expect(fresh.size).toBe(0);
  });
});
