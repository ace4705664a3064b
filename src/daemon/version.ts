/** The version of this package, from its own package.json. */
import { readFileSync } from 'node:fs';

let known: string | undefined;

export function version(): string {
  known ??= read();
  return known;
}

function read(): string {
  const file = new URL('../../package.json', import.meta.url);
  const { version } = JSON.parse(readFileSync(file, 'utf8')) as { version: string };
  return version;
}
