/**
 * Certificates that were read before: a peer sends the same ones each time, and to read them takes longer than to verify a
 * signature. What is found here is as untrusted as it was: paths are validated anew each time.
 */
import { createHash } from 'node:crypto';
import { plainView } from '../base/bytes.ts';
import { type Certificate, readCertificate } from './certificate.ts';
import { type ElementAllowance, type Outline, outlineCertificate } from './outline.ts';

const MAX_ENTRIES = 256;
/** Bytes of a certificate that is kept; most have a quarter of that. */
const MAX_KEPT = 4_096;

export class CertificateCache {
  /** By the hash of all bytes, the last used last. BOUNDED: MAX_ENTRIES of MAX_KEPT bytes. */
  readonly #known = new Map<string, Certificate>();

  /** A certificate that was read before. */
  find(der: Uint8Array): Certificate | undefined {
    if (der.length > MAX_KEPT) return undefined;
    const key = keyOf(der);
    const certificate = this.#known.get(key);
    if (certificate !== undefined) {
      this.#known.delete(key);
      this.#known.set(key, certificate);
    }
    return certificate;
  }

  /**
   * The certificate of an outline, but for its key as `readCertificate` reads it.
   * @throws MalformedCertificateError
   */
  read(outline: Outline, allowance: ElementAllowance): Certificate {
    const certificate = readCertificate(outline, allowance);
    if (outline.der.length > MAX_KEPT) return certificate;
    this.#known.set(keyOf(outline.der), certificate);
    if (this.#known.size > MAX_ENTRIES) {
      const [oldest] = this.#known.keys();
      this.#known.delete(oldest!);
    }
    return certificate;
  }

  /** @throws MalformedCertificateError */
  parse(der: Uint8Array, allowance: ElementAllowance): Certificate {
    return this.find(der) ?? this.read(ownOutline(der, allowance), allowance);
  }

  get size(): number {
    return this.#known.size;
  }
}

function keyOf(der: Uint8Array): string {
  return createHash('sha256').update(der).digest('base64');
}

/**
 * The outline of a copy: the bytes may be a view of a message, which would be kept with them. Not slice(): that of a Node
 * Buffer is a view.
 */
export function ownOutline(der: Uint8Array, allowance: ElementAllowance): Outline {
  return outlineCertificate(der.length > MAX_KEPT ? der : plainView(der).slice(), allowance);
}
