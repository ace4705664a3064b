/** Where two documents differ, by element and attribute: in what they say, not in how it is written. */
import { documentElement } from './dump.ts';
import type { SectunnelDocument } from './model.ts';
import { layOut, type OutputElement } from './write.ts';

/** One place at which two documents differ. `undefined`: it is not there. */
export interface Difference {
  /** As in XPath: `sa/ike/dpd/@interval`, `sa/ike/proposal`, `sp[lan]/policy`. */
  readonly path: string;
  /** The value of an attribute, the text of an element, or the XML of what has more inside. */
  readonly before: string | undefined;
  readonly after: string | undefined;
}

/** In the order of the elements of the later document. Defaults count as written; an `<sp>` is known by its name. */
export function differencesOf(before: SectunnelDocument, after: SectunnelDocument): Difference[] {
  return [...differences('', documentElement(before), documentElement(after))];
}

function* differences(path: string, before: OutputElement, after: OutputElement): Generator<Difference> {
  for (const name of unionOf(Object.keys(after.attributes), Object.keys(before.attributes))) {
    const [old, fresh] = [before.attributes[name], after.attributes[name]];
    if (old !== fresh) yield { path: within(path, `@${name}`), before: textOf(old), after: textOf(fresh) };
  }
  const [old, fresh] = [partsOf(before), partsOf(after)];
  const common = (keys: Iterable<string>): string =>
    [...keys].filter((key) => old.has(key) && fresh.has(key)).join(' ');
  const [order, newOrder] = [common(old.keys()), common(fresh.keys())];
  // All others are written out in one order.
  if (order !== newOrder) yield { path: within(path, 'sp'), before: order, after: newOrder };
  for (const key of unionOf([...fresh.keys()], [...old.keys()])) {
    const [was, is] = [old.get(key) ?? [], fresh.get(key) ?? []];
    const [one, other] = [alone(was), alone(is)];
    if (one !== undefined && other !== undefined) yield* differences(within(path, key), one, other);
    else if (xmlOf(was) !== xmlOf(is)) yield { path: within(path, key), before: xmlOf(was), after: xmlOf(is) };
  }
}

type Part = OutputElement | string;

/** What is inside an element, by name: several of a name are one list, whose order counts. */
function partsOf({ content }: OutputElement): ReadonlyMap<string, readonly Part[]> {
  // BOUNDED: by the document.
  const parts = new Map<string, Part[]>();
  for (const part of typeof content === 'string' ? [content] : content) {
    const key = keyOf(part);
    parts.set(key, [...(parts.get(key) ?? []), part]);
  }
  return parts;
}

function keyOf(part: Part): string {
  if (typeof part === 'string') return 'text()';
  return part.name === 'sp' ? `sp[${part.attributes.name}]` : part.name;
}

/** The one element that is to be looked into; `undefined` for text, and where there are none or several. */
function alone(parts: readonly Part[]): OutputElement | undefined {
  const [first] = parts;
  return parts.length === 1 && typeof first === 'object' ? first : undefined;
}

function xmlOf(parts: readonly Part[]): string | undefined {
  return parts.length === 0 ? undefined : parts.flatMap((part) => layOut(part).map((line) => line.trim())).join('');
}

function textOf(value: string | number | bigint | undefined): string | undefined {
  return value === undefined ? undefined : String(value);
}

function unionOf(first: readonly string[], second: readonly string[]): Set<string> {
  return new Set([...first, ...second]);
}

function within(path: string, name: string): string {
  return path === '' ? name : `${path}/${name}`;
}
