/**
 * What may stand where in an element, as a table, and the check of a tree against it.
 *
 * The RELAX NG schema has the same rules and is the authority for other programs; this check explains to a person
 * what is wrong. The readers of values do not report again what it has found.
 */
import { nearest, suggestion } from '../base/similar.ts';
import { listOf, quote } from './errors.ts';
import { allowedNames, type Issues } from './issues.ts';
import { childElements, type XmlNode } from './xml.ts';

export interface AttributeShape {
  readonly required?: boolean;
  /** All allowed values, where they can be listed. */
  readonly values?: readonly string[];
}

export interface ChildShape {
  readonly shape: ElementShape;
  readonly min?: number;
  /** 1 where left out. */
  readonly max?: number;
}

export interface ElementShape {
  readonly attributes?: Readonly<Record<string, AttributeShape>>;
  readonly children?: Readonly<Record<string, ChildShape>>;
  /** `elements` where left out; what is in `anything` is not looked at. */
  readonly content?: 'elements' | 'text' | 'anything';
}

export function checkShape(issues: Issues, node: XmlNode, shape: ElementShape): void {
  if (issues.full) return;
  checkAttributes(issues, node, shape.attributes ?? {});
  if (shape.content === 'anything') return;
  if (shape.content !== 'text') checkText(issues, node);
  checkChildren(issues, node, shape.children ?? {});
}

function checkAttributes(issues: Issues, node: XmlNode, attributes: Readonly<Record<string, AttributeShape>>): void {
  const names = Object.keys(attributes);
  const misspelt = new Set<string>();
  for (const { prefix, name, value } of node.attributes) {
    if (issues.full) return;
    const shape = prefix === '' && Object.hasOwn(attributes, name) ? attributes[name] : undefined;
    if (shape === undefined) {
      const found = prefix === '' ? name : `${prefix}:${name}`;
      const allowed = allowedNames(names);
      const message = `the attribute ${found}=${quote(value)} is not known here${suggestion(found, names)}; allowed: ${allowed}. Remove or rename it`;
      issues.add(node, message, { attribute: found, found, allowed });
      misspelt.add(nearest(found, names) ?? '');
    } else if (shape.values !== undefined && !shape.values.includes(value)) {
      const allowed = listOf(shape.values);
      issues.badValue(node, name, value, allowed, `allowed: ${allowed}${suggestion(value, shape.values)}`);
    }
  }
  for (const [name, { required, values }] of Object.entries(attributes)) {
    const given = misspelt.has(name) || node.attributes.some((attribute) => attribute.name === name);
    if (required !== true || given) continue;
    const allowed = values === undefined ? undefined : listOf(values);
    const message = `the attribute ${name}='…' is missing; add it${allowed === undefined ? '' : `: ${allowed}`}`;
    issues.add(node, message, { attribute: name, ...(allowed === undefined ? {} : { allowed }) });
  }
}

function checkText(issues: Issues, node: XmlNode): void {
  const text = node.children.find((child) => typeof child === 'string' && child.trim() !== '') as string | undefined;
  if (text !== undefined) {
    const found = text.trim();
    issues.add(node, `the text ${quote(found)} is not allowed here; only elements are. Remove it`, { found });
  }
}

function checkChildren(issues: Issues, node: XmlNode, children: Readonly<Record<string, ChildShape>>): void {
  const names = Object.keys(children);
  const misspelt = new Set<string>();
  for (const child of childElements(node)) {
    if (issues.full) return;
    const known = Object.hasOwn(children, child.name) ? children[child.name] : undefined;
    if (child.namespace !== '') {
      const message = `the element is in the namespace ${quote(child.namespace)}, but documents have none; remove the xmlns or the prefix (own data belongs into <metadata>)`;
      issues.add(child, message, { found: child.namespace });
    } else if (known === undefined) {
      const allowed = allowedNames(names.map((name) => `<${name}>`));
      const message = `it is not known in <${node.name}>${suggestion(child.name, names)}; allowed: ${allowed}. Remove or rename it`;
      issues.add(child, message, { found: child.name, allowed });
      misspelt.add(nearest(child.name, names) ?? '');
    } else {
      checkShape(issues, child, known.shape);
    }
  }
  for (const [name, { min = 0, max = 1 }] of Object.entries(children)) {
    checkCount(issues, node, name, misspelt.has(name) ? 0 : min, max);
  }
}

function checkCount(issues: Issues, node: XmlNode, name: string, min: number, max: number): void {
  const found = childElements(node, name);
  if (found.length < min) {
    const message = `<${name}> is missing in it; add ${min === 1 ? 'one' : `at least ${min}`}`;
    issues.add(node, message, { allowed: `<${name}>` });
  }
  const extra = found[max];
  if (extra === undefined) return;
  const first = max === 1 ? `; the first is on line ${found[0]!.line}. Keep one of them` : '';
  issues.add(extra, `there may be ${max === 1 ? 'only one' : `at most ${max}`} in <${node.name}>${first}`, {
    found: String(found.length),
    allowed: `at most ${max}`,
  });
}
