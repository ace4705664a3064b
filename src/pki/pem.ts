/** PEM (RFC 7468): blocks between lines of text, as certtool and openssl write them; or DER as it is. */
import { checkDer, DerTag } from '../base/der.ts';

export interface PemBlock {
  /** `CERTIFICATE`, `RSA PRIVATE KEY` … */
  readonly label: string;
  /** The block alone, without what stands around it. */
  readonly pem: string;
  /** `undefined` where it is encrypted by its headers (RFC 1421), or no base64. */
  readonly der: Uint8Array | undefined;
}

/** Blocks in a file, in its order. A label that is opened and not closed is no block. */
export function pemBlocks(text: string): PemBlock[] {
  const blocks: PemBlock[] = [];
  for (const match of text.matchAll(/^-----BEGIN ([A-Z0-9 ]{1,40})-----\s*$([\s\S]*?)^-----END \1-----\s*$/gm)) {
    const [pem, label = '', body = ''] = match;
    blocks.push({ label, pem, der: decode(body) });
  }
  return blocks;
}

function decode(body: string): Uint8Array | undefined {
  const base64 = body.replace(/\s/g, '');
  if (base64 === '' || base64.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(base64)) return undefined;
  return new Uint8Array(Buffer.from(base64, 'base64'));
}

export function isDer(bytes: Uint8Array): boolean {
  if (bytes[0] !== DerTag.SEQUENCE) return false;
  try {
    checkDer(bytes);
    return true;
  } catch {
    return false;
  }
}
