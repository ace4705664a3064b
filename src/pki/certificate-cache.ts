/**
 * Certificates that were read before: a peer sends the same ones each time, and to read them takes longer than to verify a
 * signature. What is found here is as untrusted as it was: paths are validated anew each time.
 */
import { createHash } from 'node:crypto';
import { plainView } from '../base/bytes.ts';
import { type Certificate, parseCertificate } from './certificate.ts';
import type { ElementAllowance } from './outline.ts';

const MAX_ENTRIES = 256;
/** Bytes of a certificate that is kept; most have a quarter of that. */
const MAX_KEPT = 4_096;

export class CertificateCache {
  /** By the hash of all bytes, the last used last. BOUNDED: MAX_ENTRIES of MAX_KEPT bytes. */
  readonly #known = new Map<string, Certificate>();

  /** @throws MalformedCertificateError, as `parseCertificate` */
  parse(der: Uint8Array, allowance?: ElementAllowance): Certificate {
    if (der.length > MAX_KEPT) return parseCertificate(der, allowance);
    const key = createHash('sha256').update(der).digest('base64');
    // The bytes may be a view of a message, which would be kept with them. Not slice(): that of a Node Buffer is a view.
    const certificate = this.#known.get(key) ?? parseCertificate(plainView(der).slice(), allowance);
    this.#known.delete(key);
    this.#known.set(key, certificate);
    if (this.#known.size > MAX_ENTRIES) {
      const [oldest] = this.#known.keys();
      this.#known.delete(oldest!);
    }
    return certificate;
  }

  get size(): number {
    return this.#known.size;
  }
}
