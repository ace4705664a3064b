/** The parameters of a request, held against what its verb takes (`verbs.ts`), and the words in which they are refused. */
import * as v from 'valibot';
import { SectunnelError } from '../base/error.ts';
import { suggestion } from '../base/similar.ts';
import { MAX_LINE } from './protocol.ts';
import { type Kind, type Kinds, type Params, VERBS, type Verb } from './verbs.ts';

/** Longest text in characters. */
const MAX_TEXT = 4096;
/** Characters of a wrong name or value that are repeated in its refusal. */
const MAX_QUOTED = 40;

const KINDS: { readonly [K in keyof Kinds]: v.GenericSchema<Kinds[K]> } = {
  text: text(MAX_TEXT),
  document: text(MAX_LINE),
  flag: v.boolean(wanted('true or false')),
  octet: integer(0, 255),
  count: integer(1, Number.MAX_SAFE_INTEGER),
  names: v.array(text(MAX_TEXT), wanted('an array of strings')),
  documents: v.array(
    v.strictObject({ xml: text(MAX_LINE), source: text(MAX_TEXT) }, wanted("an object with 'xml' and 'source'")),
    wanted('an array of documents'),
  ),
};

function integer(least: number, most: number): v.GenericSchema<number> {
  const words = wanted(`an integer from ${least} to ${most}`);
  return v.pipe(v.number(words), v.integer(words), v.minValue(least, words), v.maxValue(most, words));
}

function text(limit: number): v.GenericSchema<string> {
  return v.pipe(
    v.string(wanted('a string')),
    v.maxLength(limit, ({ input }) => `has ${input.length} characters; at most ${limit} are allowed`),
    // Paths and the C programs behind this one would end there.
    v.excludes('\0', 'contains a zero character'),
  );
}

function wanted(what: string): (issue: { readonly input: unknown }) => string {
  return ({ input }) => `is ${found(input)}; expected: ${what}`;
}

function found(value: unknown): string {
  if (typeof value === 'string') return `the string ${JSON.stringify(clipped(value))}`;
  if (Array.isArray(value)) return 'an array';
  return typeof value === 'object' && value !== null ? 'an object' : String(value);
}

function clipped(name: string): string {
  return name.length <= MAX_QUOTED ? name : `${name.slice(0, MAX_QUOTED)}…`;
}

const SCHEMAS: ReadonlyMap<string, v.GenericSchema> = new Map(
  Object.entries(VERBS).map(([verb, takes]) => [verb, schemaOf(takes)]),
);

function schemaOf(takes: Readonly<Record<string, Kind>>): v.GenericSchema {
  const entries = Object.entries(takes).map(([name, kind]) => {
    const isOptional = kind.endsWith('?');
    const schema = KINDS[kind.replace('?', '') as keyof Kinds];
    return [name, isOptional ? v.optional(schema) : schema] as const;
  });
  return v.strictObject(Object.fromEntries(entries));
}

/** @throws SectunnelError when there is no such verb */
export function checkVerb(verb: string): asserts verb is Verb {
  if (SCHEMAS.has(verb)) return;
  const hint = suggestion(verb, [...SCHEMAS.keys()]);
  throw new SectunnelError('bad-request', `unknown verb '${clipped(verb)}'${hint}`);
}

/** @throws SectunnelError that names the first parameter that is unknown, missing or of another kind */
export function readParams<V extends Verb>(verb: V, given: Readonly<Record<string, unknown>>): Params<V> {
  const read = v.safeParse(SCHEMAS.get(verb)!, given, { abortPipeEarly: true });
  if (read.success) return read.output as Params<V>;
  // A name that is not known explains one that is missing.
  const issue = read.issues.find(({ expected }) => expected === 'never') ?? read.issues[0];
  throw new SectunnelError('bad-request', refusalOf(verb, issue));
}

function refusalOf(verb: Verb, issue: v.BaseIssue<unknown>): string {
  const name = String(issue.path?.[0].key);
  const known = Object.keys(VERBS[verb]);
  const isInside = (issue.path?.length ?? 0) > 1;
  if (issue.type !== 'strict_object' || isInside) return `the parameter '${name}' ${issue.message}`;
  if (issue.expected !== 'never') return `the parameter '${name}' is missing; '${verb}' takes ${known.join(', ')}`;
  const takes = known.length === 0 ? 'no parameters' : known.join(', ');
  return `unknown parameter '${clipped(name)}'${suggestion(name, known)}; '${verb}' takes ${takes}`;
}
