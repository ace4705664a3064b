/** Reads the package's declaration files (`dist/**.d.ts`): what an entry exports, and which types that mentions. */
import { readFileSync } from 'node:fs';
import { dirname, relative, resolve } from 'node:path';
import { parseSync } from 'oxc-parser';

/** A node of the ESTree that oxc makes of TypeScript. */
interface Node {
  readonly type: string;
  readonly [key: string]: unknown;
}

/** One declaration: a file and the name that it has there. */
export interface Declared {
  readonly file: string;
  readonly name: string;
}

interface Module {
  /** Exported name → where it stands, in this file or in another. */
  readonly exports: ReadonlyMap<string, Declared>;
  /** Imported name → where it comes from; of another package: its name as `file`. */
  readonly imports: ReadonlyMap<string, Declared>;
  /** A function with several signatures has several. */
  readonly declarations: ReadonlyMap<string, readonly Node[]>;
  /** The documentation comment before a declaration, where there is one. */
  readonly comments: ReadonlyMap<string, string>;
}

const modules = new Map<string, Module>();

function readModule(file: string): Module {
  const found = modules.get(file);
  if (found !== undefined) return found;
  const source = readFileSync(file, 'utf8');
  const { program, comments } = parseSync(file, source);
  const exports = new Map<string, Declared>();
  const imports = new Map<string, Declared>();
  const declarations = new Map<string, Node[]>();
  const documentation = new Map<string, string>();
  const body = program.body as unknown as Node[];
  for (const node of body) {
    const from = sourceOf(file, node);
    if (node.type === 'ImportDeclaration') {
      for (const specifier of node.specifiers as Node[]) {
        const name = specifier.type === 'ImportSpecifier' ? nameOf(specifier.imported) : '*';
        imports.set(nameOf(specifier.local), { file: from!, name });
      }
      continue;
    }
    if (node.type === 'ExportAllDeclaration') {
      for (const name of readModule(from!).exports.keys()) exports.set(name, { file: from!, name });
      continue;
    }
    const isExport = node.type === 'ExportNamedDeclaration';
    for (const specifier of isExport ? (node.specifiers as Node[]) : []) {
      const local = nameOf(specifier.local);
      exports.set(nameOf(specifier.exported), from === undefined ? { file, name: local } : { file: from, name: local });
    }
    const declaration = isExport ? (node.declaration as Node | null) : node;
    if (declaration === null) continue;
    for (const name of namesOf(declaration)) {
      declarations.set(name, [...(declarations.get(name) ?? []), declaration]);
      const before = comments.filter(({ end, value }) => end <= (node.start as number) && value.startsWith('*')).at(-1);
      const isNext = before !== undefined && source.slice(before.end, node.start as number).trim() === '';
      if (isNext) documentation.set(name, before.value);
      if (isExport) exports.set(name, { file, name });
    }
  }
  const module = { exports, imports, declarations, comments: documentation };
  modules.set(file, module);
  return module;
}

function sourceOf(file: string, node: Node): string | undefined {
  const source = (node.source as Node | null | undefined)?.value as string | undefined;
  if (source === undefined) return undefined;
  return source.startsWith('.') ? resolve(dirname(file), source.replace(/\.(?:js|ts)$/, '.d.ts')) : source;
}

function nameOf(node: unknown): string {
  const { name, value } = node as { readonly name?: string; readonly value?: string };
  return name ?? value!;
}

function namesOf(declaration: Node): string[] {
  if (declaration.type === 'VariableDeclaration') {
    return (declaration.declarations as Node[]).map(({ id }) => nameOf(id));
  }
  return declaration.id === undefined || declaration.id === null ? [] : [nameOf(declaration.id)];
}

/** Follows re-exports and imports to where a name is declared; `undefined` where that is another package. */
function originOf({ file, name }: Declared): Declared | undefined {
  if (!file.startsWith('/')) return undefined;
  const { exports, imports, declarations } = readModule(file);
  if (declarations.has(name)) return { file, name };
  const next = exports.get(name) ?? imports.get(name);
  if (next === undefined || (next.file === file && next.name === name)) {
    const imported = imports.get(name);
    if (imported === undefined) throw new Error(`${file} has no ${name}`);
    return originOf(imported);
  }
  return originOf(next.file === file ? (imports.get(next.name) ?? next) : next);
}

/** What an entry exports: its name there, and where it is declared. */
export function exportsOf(entry: string): ReadonlyMap<string, Declared> {
  return new Map(
    [...readModule(entry).exports].flatMap(([name, declared]) => {
      const origin = originOf(declared);
      return origin === undefined ? [] : [[name, origin] as const];
    }),
  );
}

/** The documentation comment of a declaration; empty without one. */
export function documentationOf({ file, name }: Declared): string {
  return readModule(file).comments.get(name) ?? '';
}

/** Whether a function of the declaration has a boolean by position: `f(true)` says nothing to who reads it. */
export function hasPositionalBoolean({ file, name }: Declared): boolean {
  return (readModule(file).declarations.get(name) ?? []).some(takesBoolean);
}

function takesBoolean(node: unknown): boolean {
  if (Array.isArray(node)) return node.some(takesBoolean);
  if (typeof node !== 'object' || node === null) return false;
  const { params, type, accessibility, ...rest } = node as Node;
  if (accessibility === 'private') return false;
  const isBoolean = (parameter: Node): boolean => typeOf(parameter)?.type === 'TSBooleanKeyword';
  const isCalled = type !== 'TSFunctionType' && type !== 'TSTypeParameterInstantiation';
  return (
    (isCalled && Array.isArray(params) && (params as Node[]).some(isBoolean)) || Object.values(rest).some(takesBoolean)
  );
}

/** The type that a parameter is annotated with. */
function typeOf({ typeAnnotation }: Node): Node | undefined {
  return (typeAnnotation as Node | null | undefined)?.typeAnnotation as Node | undefined;
}

/** Declarations of this package that a declaration mentions: what its reader may want to name. */
export function mentionedBy({ file, name }: Declared): Declared[] {
  const { declarations, imports } = readModule(file);
  return [...new Set((declarations.get(name) ?? []).flatMap((node) => [...mentions(node, new Set())]))]
    .filter((mention) => mention !== name && (declarations.has(mention) || imports.has(mention)))
    .flatMap((mention) => originOf(declarations.has(mention) ? { file, name: mention } : imports.get(mention)!) ?? []);
}

/** Names of types and of classes that are extended; no private members, no type parameters. */
function* mentions(node: unknown, bound: ReadonlySet<string>): Generator<string> {
  if (Array.isArray(node)) {
    for (const part of node) yield* mentions(part, bound);
    return;
  }
  if (typeof node !== 'object' || node === null) return;
  const { type, accessibility, ...rest } = node as Node;
  if (accessibility === 'private') return;
  const parameters = (rest.typeParameters as { readonly params?: readonly Node[] } | null | undefined)?.params ?? [];
  const inner = new Set([...bound, ...parameters.map((parameter) => nameOf(parameter.name))]);
  if (type === 'TSTypeReference') yield* rootOf(rest.typeName, inner);
  if (type === 'TSInterfaceHeritage' || type === 'TSClassImplements') yield* rootOf(rest.expression, inner);
  if (type === 'ClassDeclaration') yield* rootOf(rest.superClass, inner);
  for (const part of Object.values(rest)) yield* mentions(part, inner);
}

/** `Buffer` of `Buffer.Encoding`, `Buffer` of `Buffer`. */
function* rootOf(node: unknown, bound: ReadonlySet<string>): Generator<string> {
  if (typeof node !== 'object' || node === null) return;
  const { type, left, name } = node as Node;
  if (type === 'TSQualifiedName') yield* rootOf(left, bound);
  else if (typeof name === 'string' && !bound.has(name)) yield name;
}

/** For messages: `dist/ike/config.d.ts Lifetime`. */
export function showDeclared({ file, name }: Declared): string {
  return `${relative(process.cwd(), file)} ${name}`;
}
