/** Whether two documents say the same, however they are written. */
import { createHash } from 'node:crypto';
import { dumpDocument } from './dump.ts';
import type { SectunnelDocument } from './model.ts';

/** Of documents that do not change. */
const digests = new WeakMap<SectunnelDocument, string>();

export function sameDocument(a: SectunnelDocument | undefined, b: SectunnelDocument | undefined): boolean {
  return a === b || (a !== undefined && b !== undefined && digestOf(a) === digestOf(b));
}

/** Of the document as it is dumped: with its defaults, in one order, without comments. */
function digestOf(document: SectunnelDocument): string {
  let digest = digests.get(document);
  if (digest === undefined) {
    digest = createHash('sha256').update(dumpDocument(document)).digest('base64');
    digests.set(document, digest);
  }
  return digest;
}
