/**
 * Sizes beyond which a reader loses the thread, and parameters whose meaning a call does not show. Measured on what the
 * compiler declares of each file (dist/**\/*.d.ts).
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const MAX_LINES = 400;
const MAX_FILES = 30;
const MAX_PARAMETERS = 5;

/** Called for each packet, where an object for the parameters would be made each time. */
const HOT: readonly string[] = [
  'crypto/types: seal',
  'policy/compiled: matchesFlow',
  'policy/ranks: ofFlow',
  'tun/offload/checksum: copySum',
  'tun/offload/join-packet: readJoinPacket',
];

/** The condition of an assertion, and the value of what is set by name, are explained by the name. */
const NAMED = /: (invariant|set[A-Z]\w*)$/;

function files(folder: string, suffix: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith(suffix) && !file.endsWith('.gen.ts'))
    .map((file) => join(folder, file));
}

interface Signature {
  /** `ike/endpoint: add`. */
  readonly name: string;
  readonly parameters: readonly string[];
}

/** Functions and methods that other files can call, from declarations. */
function signatures(file: string): Signature[] {
  const text = readFileSync(join(ROOT, file), 'utf8').replace(/\/\*[\s\S]*?\*\//g, '');
  const found: Signature[] = [];
  for (const match of text.matchAll(/^(?:export declare function | {4}(?:static )?)([A-Za-z]\w*)(?:<[^(]*>)?\(/gm)) {
    const from = match.index + match[0].length;
    found.push({
      name: `${file.slice('dist/'.length, -'.d.ts'.length)}: ${match[1]!}`,
      parameters: splitParameters(text, from),
    });
  }
  return found;
}

/** The parameters from after the opening bracket to the closing one, at commas outside of inner brackets. */
function splitParameters(text: string, from: number): string[] {
  const parts: string[] = [];
  let depth = 0;
  let start = from;
  for (let at = from; at < text.length; at++) {
    const char = text[at]!;
    if (char === '=' && text[at + 1] === '>') at++;
    else if ('([{<'.includes(char)) depth++;
    else if (')]}>'.includes(char) && depth > 0) depth--;
    else if (char === ')' || (char === ',' && depth === 0)) {
      parts.push(text.slice(start, at).trim());
      start = at + 1;
      if (char === ')') break;
    }
  }
  return parts.filter((part) => part !== '');
}

describe('the sources', () => {
  it(`have no file of more than ${MAX_LINES} lines`, () => {
    const long = files('src', '.ts')
      .map((file) => [file, readFileSync(join(ROOT, file), 'utf8').split('\n').length - 1] as const)
      .filter(([, lines]) => lines > MAX_LINES)
      .map(([file, lines]) => `${file}: ${lines}`);
    expect(long).toEqual([]);
  });

  it(`have no folder of more than ${MAX_FILES} files`, () => {
    const counts = new Map<string, number>();
    for (const file of files('src', '.ts')) counts.set(dirname(file), (counts.get(dirname(file)) ?? 0) + 1);
    expect([...counts].filter(([, count]) => count > MAX_FILES)).toEqual([]);
  });

  const declared = existsSync(join(ROOT, 'dist')) ? files('dist', '.d.ts').flatMap(signatures) : [];

  it('declare what is looked at here, once they are built', () => {
    expect(declared.length).toBeGreaterThan(1_000);
    const hot = HOT.filter((name) => !declared.some((one) => one.name === name));
    expect(hot).toEqual([]);
  });

  it(`have no function of more than ${MAX_PARAMETERS} parameters`, () => {
    const many = declared
      .filter(({ name, parameters }) => parameters.length > MAX_PARAMETERS && !HOT.includes(name))
      .map(({ name, parameters }) => `${name}: ${parameters.length}`);
    expect(many).toEqual([]);
  });

  it('have no function with a bare boolean, which a call does not explain', () => {
    const explained = declared.filter(({ name }) => !HOT.includes(name) && !NAMED.test(name));
    const bare = explained.flatMap(({ name, parameters }) =>
      parameters.filter((one) => /^\w+\??: boolean( \| undefined)?$/.test(one)).map((one) => `${name}(${one})`),
    );
    expect(bare).toEqual([]);
  });
});
