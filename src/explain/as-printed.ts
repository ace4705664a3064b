/**
 * Documents as `dumpxml` prints them: line numbers must refer to a text that the user can see, and the text that a
 * document came from may be gone or changed.
 */
import type { Checked } from '../check/report.ts';
import { dumpDocument } from '../config/dump.ts';
import { documentLines } from '../config/lines.ts';
import type { SectunnelDocument } from '../config/model.ts';
import { parseDocument } from '../config/parse.ts';

/** BOUNDED: by the documents that there are. */
const printed = new WeakMap<SectunnelDocument, Checked>();

/** The same document with the lines of its print. Made once. */
export function asPrinted(document: SectunnelDocument): Checked {
  let known = printed.get(document);
  if (known === undefined) {
    const xml = dumpDocument(document);
    known = { side: 'a', title: document.name, document: parseDocument(xml), lines: documentLines(xml) };
    printed.set(document, known);
  }
  return known;
}
