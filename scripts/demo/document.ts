/** The seed's own document, and what the other end has. */
import { readFileSync } from 'node:fs';

/** Seen from build/scripts/demo. */
const file = new URL('../../../examples/ex-seed.xml', import.meta.url);

/** The encapsulation port that the document names. */
export const PORT = 55055;

export function seedDocument(): string {
  return readFileSync(file, 'utf8');
}

/** The document seen from the other end: what goes out here comes in there. */
export function mirror(document: string): string {
  return document.replace(
    /direction='(in|out)'/g,
    (_, direction) => `direction='${direction === 'in' ? 'out' : 'in'}'`,
  );
}
