/** Documents name files and figures of the source: they must be there, and be those. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';

const SECURITY = readFileSync('docs/security.md', 'utf8');

/** `src/ike/unassociated.ts` `MAX_INIT_LENGTH` = 8,192, or with several numbers `HINTS` = 5/10. */
const FIGURE = /`(src\/[\w./-]+)` `(\w+)` = (\d[\d,]*(?:\/\d[\d,]*)*)/g;

/** A number, products and sums of numbers, or a list of them. */
const VALUE = String.raw`\[[-+*/ ()0-9a-fA-Fx_.,]+\]|[-+*/ ()0-9a-fA-Fx_.]*[0-9a-fA-F_)]`;

/** The numbers that a constant, or a property of one, is written with; empty where it is not there. */
function figuresOf(source: string, name: string): number[] {
  const written = new RegExp(String.raw`\b${name}\b(?:: [\w<>[\], ]+)?(?: =|:) (${VALUE})(?: as const)?[;,}\n]`).exec(
    source,
  )?.[1];
  if (written === undefined) return [];
  return [new Function(`return ${written}`)()].flat() as number[];
}

describe('docs/security.md', () => {
  it('names figures that are those of the source', () => {
    const figures = [...SECURITY.matchAll(FIGURE)];
    expect(figures.length).toBeGreaterThan(25);
    const wrong = figures.flatMap(([text, file, name, said]) => {
      const wanted = said!.split('/').map((figure) => Number(figure.replaceAll(',', '')));
      const found = figuresOf(readFileSync(file!, 'utf8'), name!);
      return found.join() === wanted.join() ? [] : [`${text}: the source has ${found.join(' and ')}`];
    });
    expect(wrong).toEqual([]);
  });
});

/** The lines of tables that name a test: the cells of each. */
function linesWithTests(document: string): string[][] {
  const lines = readFileSync(document, 'utf8').split('\n');
  const cells = lines.filter((line) => line.startsWith('| ')).map((line) => line.split('|').map((cell) => cell.trim()));
  return cells.filter(([, , , file]) => file?.startsWith('`test/'));
}

const sourceOf = (file: string): string => readFileSync(file.replaceAll('`', ''), 'utf8');

describe('docs/pitfalls.md', () => {
  it('names tests that there are', () => {
    const lines = linesWithTests('docs/pitfalls.md');
    expect(lines.length).toBeGreaterThan(90);
    const missing = lines.filter(([, , , file, test]) => test === '' || !sourceOf(file!).includes(test!));
    expect(missing.map(([, what, , file, test]) => `${what}: ${file} ${test}`)).toEqual([]);
  });
});

describe('docs/exchanges.md', () => {
  const lines = linesWithTests('docs/exchanges.md');

  it('names titles of tests that there are', () => {
    expect(lines.length).toBeGreaterThan(70);
    const missing = lines.filter(([, , , file, test]) => {
      // `it('title'`, `describe.each(…)(\n 'title'`
      const titles = [...sourceOf(file!).matchAll(/\(\s*['`](.*)['`],\s/g)].map(([, title]) => title!);
      return test === '' || !titles.some((title) => title.endsWith(test!));
    });
    expect(missing.map(([, what, , file, test]) => `${what}: ${file} ${test}`)).toEqual([]);
  });

  it('names tests whose messages are drawn above them', () => {
    const files = new Set(lines.map(([, , , file]) => file!).filter((file) => file.startsWith('`test/ike/')));
    const plain = [...files].filter((file) => !/^ *\/\/ +│.*(?:▶│|│◀)/m.test(sourceOf(file)));
    expect(plain).toEqual(['`test/ike/window.test.ts`', '`test/ike/flood-places.test.ts`']);
  });
});

const DOCUMENTS = [
  ...['README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'CHANGELOG.md', 'bench/README.md'],
  ...readdirSync('docs').map((file) => `docs/${file}`),
];

describe('documents', () => {
  it('name files that there are', () => {
    const missing = DOCUMENTS.flatMap((document) => {
      const names = readFileSync(document, 'utf8').matchAll(
        /`((?:src|test|bench|examples|schema|scripts|systemd|vectors|docs)\/[\w./-]*\w)`/g,
      );
      return [...names].flatMap(([, file]) => (existsSync(file!) ? [] : [`${document}: ${file}`]));
    });
    expect(missing).toEqual([]);
  });

  it('link to files that there are', () => {
    const broken = DOCUMENTS.flatMap((document) => {
      const folder = document.includes('/') ? document.replace(/[^/]*$/, '') : '';
      const links = [...readFileSync(document, 'utf8').matchAll(/\]\((?!https?:|#)([^)#\s]+)[^)]*\)/g)];
      return links.flatMap(([, link]) =>
        existsSync(new URL(link!, `file://${process.cwd()}/${folder}`)) ? [] : [`${document}: ${link}`],
      );
    });
    expect(broken).toEqual([]);
  });

  it('link to headings that there are', () => {
    const broken = DOCUMENTS.flatMap((document) => {
      const text = readFileSync(document, 'utf8');
      const links = [...text.matchAll(/\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)/g)];
      return links.flatMap(([link, file, anchor]) => {
        const target = file === '' ? document : `${document.replace(/[^/]*$/, '')}${file}`;
        return anchorsOf(readFileSync(target, 'utf8')).has(anchor!) ? [] : [`${document}: ${link}`];
      });
    });
    expect(broken).toEqual([]);
  });
});

/** The anchors that GitHub gives the headings of a document. */
function anchorsOf(text: string): ReadonlySet<string> {
  const headings = [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading]) => heading!);
  return new Set(
    headings.map((heading) =>
      heading
        .toLowerCase()
        .replace(/[^\p{L}\p{N}\s_-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

const TREES = ['src', 'test', 'bench', 'scripts', 'examples'];

/** Paths of all TypeScript files, as `/src/tun/linux.ts`. */
const SOURCES = TREES.flatMap((tree) =>
  readdirSync(tree, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => `/${tree}/${file}`),
);

describe('comments', () => {
  it('name files that there are', () => {
    const known = new Set(SOURCES.flatMap((file) => suffixesOf(file)));
    const missing = SOURCES.flatMap((file) => {
      const comments = readFileSync(`.${file}`, 'utf8').matchAll(/\/\*.*?\*\/|^\s*\/\/.*$/gms);
      const names = [...comments].flatMap(([comment]) => [
        ...comment.matchAll(/(?<![\w./-])[\w-][\w./-]*(?<!\.d)\.ts\b/g),
      ]);
      return names.flatMap(([name]) => (known.has(name) ? [] : [`${file.slice(1)}: ${name}`]));
    });
    expect(missing).toEqual([]);
  });
});

/** `/src/tun/linux.ts` → `linux.ts`, `tun/linux.ts`, `src/tun/linux.ts`. */
function suffixesOf(file: string): string[] {
  const parts = file.split('/').slice(1);
  return parts.map((_, at) => parts.slice(at).join('/'));
}
