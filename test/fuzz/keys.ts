/** Keys and certificates that are the same in each process, so that what is kept of a search still means something. */
import { createPrivateKey, type KeyObject } from 'node:crypto';
import { concatBytes, fromHex } from '../../src/base/bytes.ts';
import { authority, type Made, make } from '../pki/make.ts';

/** AlgorithmIdentifier of Ed25519 (RFC 8410 §3), whose signatures are the same each time. */
export const ED25519: { readonly der: Uint8Array; readonly hash: string } = {
  der: fromHex('300506032b6570'),
  hash: 'sha512',
};

function key(fill: number): KeyObject {
  const der = concatBytes(fromHex('302e020100300506032b657004220420'), new Uint8Array(32).fill(fill));
  return createPrivateKey({ key: Buffer.from(der), format: 'der', type: 'pkcs8' });
}

const common = { algorithm: ED25519 };

export const ROOT: Made = authority('O=Example, CN=Root', { ...common, key: key(1), serial: Uint8Array.of(1) });

/** A certificate of the root. */
export function certified(subject: string, fill: number, more: Partial<Parameters<typeof make>[0]> = {}): Made {
  return make({ ...common, subject, issuer: ROOT, key: key(fill), serial: Uint8Array.of(fill), ...more });
}
