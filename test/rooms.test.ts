/**
 * Which room may use which (docs/architecture.md): a list of what is allowed, type imports included, for the packages of
 * others too. And no circle of files anywhere: what refers to itself by way of others cannot be read from one end.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

interface Room {
  readonly rooms: readonly string[];
  /** Packages; `node:*` for all of Node's own. */
  readonly packages?: readonly string[];
}

const SYSTEM = ['node:*'];

const ROOMS: Readonly<Record<string, Room>> = {
  base: { rooms: [] },
  sys: { rooms: ['base'], packages: ['koffi', ...SYSTEM] },
  crypto: { rooms: ['base'] },
  'crypto/noble': { rooms: ['base', 'crypto'], packages: ['@noble/ciphers', '@noble/curves', '@noble/hashes'] },
  'crypto/node': { rooms: ['base', 'crypto'], packages: SYSTEM },
  'crypto/openssl': { rooms: ['base', 'sys', 'crypto', 'crypto/node'] },
  'crypto/ipsec-mb': { rooms: ['sys', 'crypto', 'crypto/node'], packages: SYSTEM },
  policy: { rooms: ['base'] },
  ike: { rooms: ['base', 'crypto', 'policy'] },
  esp: { rooms: ['base', 'crypto', 'policy'] },
  engine: { rooms: ['base', 'crypto', 'policy', 'ike', 'esp'] },
  tun: { rooms: ['base', 'sys'], packages: SYSTEM },
  hostnet: { rooms: ['base', 'sys', 'policy', 'tun'], packages: SYSTEM },
  config: { rooms: ['base', 'crypto', 'policy'], packages: ['libxml2-wasm', ...SYSTEM] },
  pki: { rooms: ['base'], packages: ['pkijs', 'asn1js', ...SYSTEM] },
  libvirt: { rooms: ['base', 'config'], packages: ['libxml2-wasm', ...SYSTEM] },
  export: { rooms: ['base', 'config'] },
  plan: { rooms: ['base', 'crypto', 'policy', 'ike', 'esp', 'engine', 'hostnet', 'config'] },
  check: { rooms: ['base', 'crypto', 'policy', 'ike', 'config'] },
  host: {
    rooms: [
      'base',
      'sys',
      'crypto',
      'policy',
      'ike',
      'esp',
      'engine',
      'tun',
      'hostnet',
      'config',
      'pki',
      'libvirt',
      'plan',
    ],
    packages: SYSTEM,
  },
  explain: { rooms: ['base', 'policy', 'ike', 'engine', 'hostnet', 'config', 'check'] },
  control: { rooms: ['base', 'sys', 'config', 'pki', 'plan', 'host', 'explain'], packages: ['valibot', ...SYSTEM] },
  daemon: {
    rooms: [
      'base',
      'sys',
      'crypto',
      'engine',
      'tun',
      'hostnet',
      'config',
      'pki',
      'libvirt',
      'plan',
      'host',
      'explain',
      'control',
    ],
    packages: ['pino', ...SYSTEM],
  },
  cli: {
    rooms: [
      'base',
      'sys',
      'crypto',
      'policy',
      'ike',
      'hostnet',
      'config',
      'libvirt',
      'pki',
      'plan',
      'check',
      'export',
      'host',
      'explain',
      'control',
      'daemon',
    ],
    packages: SYSTEM,
  },
  public: {
    rooms: [
      'base',
      'sys',
      'crypto',
      'policy',
      'ike',
      'esp',
      'engine',
      'tun',
      'hostnet',
      'config',
      'pki',
      'plan',
      'host',
    ],
  },
  bench: {
    rooms: ['base', 'sys', 'crypto', 'policy', 'ike', 'esp', 'engine', 'tun', 'pki', 'host', 'control', 'test'],
    packages: SYSTEM,
  },
  scripts: { rooms: ['config', 'examples'], packages: ['sectunnel', ...SYSTEM] },
  examples: { rooms: [], packages: ['sectunnel', ...SYSTEM] },
};

/** Providers are rooms of their own: what they may use, the rest of `crypto` may not. */
function roomOf(file: string): string {
  const [top, room, sub, ...rest] = file.split('/');
  if (top !== 'src') return top!;
  const inner = `${room}/${sub}`;
  return rest.length > 0 && inner in ROOMS ? inner : room!;
}

/** Who may use a room may use its inner ones; itself it uses them only where it says so. */
function mayUse(room: string, other: string): boolean {
  const { rooms } = ROOMS[room]!;
  return room === other || rooms.includes(other) || (room !== topOf(other) && rooms.includes(topOf(other)));
}

function topOf(room: string): string {
  return room.split('/')[0]!;
}

const FILES = ['src', 'bench', 'scripts', 'examples'].flatMap((top) =>
  readdirSync(join(ROOT, top), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => join(top, file)),
);

/** What a file imports: other files by their paths, packages by their names. */
function importsOf(file: string): { readonly files: string[]; readonly packages: string[] } {
  const source = readFileSync(join(ROOT, file), 'utf8');
  const names = [
    ...source.matchAll(/^(?:import|export)\b[^;'"`]*?\bfrom '([^']+)';$/gm),
    ...source.matchAll(/^import '([^']+)';$/gm),
    ...source.matchAll(/\bimport\('([^']+)'\)/g),
    ...source.matchAll(/(?:\brequire|createRequire\(import\.meta\.url\))\('([^']+)'\)/g),
  ].map((match) => match[1]!);
  const local = (name: string): string => relative(ROOT, normalize(join(ROOT, dirname(file), name)));
  return {
    files: names.filter((name) => name.startsWith('.')).map(local),
    packages: names.filter((name) => !name.startsWith('.')),
  };
}

const IMPORTS: ReadonlyMap<string, ReturnType<typeof importsOf>> = new Map(
  FILES.map((file) => [file, importsOf(file)]),
);

/** `@noble/hashes/sha2.js` → `@noble/hashes`. */
function packageOf(name: string): string {
  if (name.startsWith('node:')) return 'node:*';
  return name
    .split('/')
    .slice(0, name.startsWith('@') ? 2 : 1)
    .join('/');
}

describe('rooms', () => {
  it('are all on the list', () => {
    expect(FILES.length).toBeGreaterThan(300);
    expect([...new Set(FILES.map(roomOf))].filter((room) => !(room in ROOMS))).toEqual([]);
  });

  it('use no room and no package that is not on their list, not even a type', () => {
    const wrong: string[] = [];
    for (const [file, { files, packages }] of IMPORTS) {
      const room = roomOf(file);
      const { packages: allowed = [] } = ROOMS[room]!;
      for (const other of files) {
        if (!mayUse(room, roomOf(other))) wrong.push(`${file} imports ${other}`);
      }
      for (const name of packages) {
        if (!allowed.includes(packageOf(name))) wrong.push(`${file} imports ${name}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  it('are on the list of another only where it uses them', () => {
    const used = new Map(Object.keys(ROOMS).map((room) => [room, new Set<string>()]));
    for (const [file, { files, packages }] of IMPORTS) {
      for (const other of files)
        used
          .get(roomOf(file))
          ?.add(roomOf(other))
          .add(topOf(roomOf(other)));
      for (const name of packages) used.get(roomOf(file))?.add(packageOf(name));
    }
    const unused = Object.entries(ROOMS).flatMap(([room, { rooms, packages = [] }]) =>
      [...rooms, ...packages].filter((other) => !used.get(room)!.has(other)).map((other) => `${room}: ${other}`),
    );
    expect(unused).toEqual([]);
  });

  it('name files that exist', () => {
    const missing = [...IMPORTS].flatMap(([file, { files }]) =>
      files.filter((other) => !existsSync(join(ROOT, other))).map((other) => `${file} imports ${other}`),
    );
    expect(missing).toEqual([]);
  });

  it('are named as they are built, where programs of the tests load what was built', () => {
    const programs = readdirSync(join(ROOT, 'test'), { recursive: true, encoding: 'utf8' })
      .filter((file) => /\.(ts|mjs)$/.test(file))
      .map((file) => join('test', file));
    const built = programs.flatMap((file) =>
      [...readFileSync(join(ROOT, file), 'utf8').matchAll(/\b(?:dist|built)(?:\('|\}?\/)([a-z][\w/-]*)\.js\b/g)].map(
        ([, name]) => ({ file, source: `src/${name}.ts` }),
      ),
    );
    expect(built.length).toBeGreaterThan(8);
    const isProgram = (source: string): boolean => source.startsWith('src/programs/');
    expect(built.filter(({ source }) => !isProgram(source) && !existsSync(join(ROOT, source)))).toEqual([]);
  });

  it('have no circle of files', () => {
    expect(circles((file) => IMPORTS.get(file)?.files ?? [], FILES)).toEqual([]);
  });

  it('would be caught in one', () => {
    const graph: Readonly<Record<string, readonly string[]>> = { a: ['b'], b: ['c', 'd'], c: ['a'], d: [], e: ['e'] };
    expect(circles((node) => graph[node]!, Object.keys(graph))).toEqual([['a', 'b', 'c'], ['e']]);
  });
});

/** The strongly connected parts of a graph that have more than one node or a node that names itself (Tarjan 1972). */
function circles(next: (node: string) => readonly string[], nodes: readonly string[]): string[][] {
  const order = new Map<string, number>();
  const low = new Map<string, number>();
  const stack: string[] = [];
  const found: string[][] = [];
  const visit = (node: string): void => {
    order.set(node, order.size);
    low.set(node, order.get(node)!);
    stack.push(node);
    for (const other of next(node)) {
      if (!order.has(other)) visit(other);
      if (stack.includes(other)) low.set(node, Math.min(low.get(node)!, low.get(other)!));
    }
    if (low.get(node) !== order.get(node)) return;
    const part = stack.splice(stack.indexOf(node));
    if (part.length > 1 || next(node).includes(node)) found.push(part.sort());
  };
  for (const node of nodes) if (!order.has(node)) visit(node);
  return found.sort();
}
