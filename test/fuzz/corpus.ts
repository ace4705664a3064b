/** Inputs that are kept: those that reached code of their own, and those that once broke something. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Target } from './target.ts';

/** A folder for each target. */
export const CORPUS = 'test/fuzz/corpus';

/** Files whose names begin so once broke something, and stay. */
export const BROKE = 'broke-';

/** By file. */
export function corpusOf({ name }: Target): ReadonlyMap<string, Uint8Array> {
  const folder = join(CORPUS, name);
  const files = existsSync(folder) ? readdirSync(folder).sort() : [];
  return new Map(files.map((file) => [file, new Uint8Array(readFileSync(join(folder, file)))]));
}
