/**
 * Documents for programs that embed the library. The parser is loaded with the first of them: its XML library begins with a
 * top-level await, which a program that loads us by `require` could not wait for.
 */
import type { SectunnelDocument } from './model.ts';
import type { ParseOptions } from './parse.ts';

/** @throws DocumentError, and nothing else, whatever the text is */
export async function parseDocument(xml: string | Uint8Array, options?: ParseOptions): Promise<SectunnelDocument> {
  const parser = await import('./parse.ts');
  return parser.parseDocument(xml, options);
}
