/**
 * A `<sectunnel>` document from its text: shape, meaning, schema, in this order, so that the first thing a person reads
 * is the most precise one. A document that is refused is refused with everything that is wrong with it.
 */
import { randomUUID } from 'node:crypto';
import { basename } from 'node:path';
import { invariant } from '../base/assert.ts';
import { MIN_MTU } from '../base/mtu.ts';
import { MAX_COMPILED_PAIRS } from '../policy/database.ts';
import { MAX_SELECTORS } from '../policy/selector.ts';
import { DEFAULT_IPV6, DEFAULT_ROUTES, defaultDeviceName } from './defaults.ts';
import { DocumentError, quote } from './errors.ts';
import { IPV6_VALUES, ROUTE_VALUES, SECTUNNEL_SHAPE } from './grammar.ts';
import { Issues } from './issues.ts';
import { readMetadata } from './metadata.ts';
import type { DeviceSettings, SectunnelDocument, SecurityPolicy } from './model.ts';
import { readSa } from './parse-sa.ts';
import { readPolicies } from './parse-sp.ts';
import { checkSchema } from './schema.ts';
import { hasIpv6, sidesOf } from './selectors.ts';
import { checkShape } from './shape.ts';
import {
  attributeOf,
  isTunnelName,
  MAX_U32,
  parseUuid,
  readChoice,
  readInteger,
  readInterfaceName,
  readSimpleName,
  TUNNEL_NAME_WANTED,
  UUID_WANTED,
} from './values.ts';
import { childElements, textContent, withXml, type XmlNode } from './xml.ts';

/** As many as the engine lets an IKE SA have. */
const MAX_CHILDREN = 256;
/** BOUNDED: a quarter of what the policy database compiles. */
const MAX_PAIRS = MAX_COMPILED_PAIRS / 4;

/** What `parseDocument` is told beside the text. */
export interface ParseOptions {
  /** What to call the document in messages, such as its file name. A document without a name takes it from there. */
  readonly source?: string | undefined;
  /**
   * A UUID for a document that has none (a random one of version 4 where left out). It is told the name of the
   * document, if it has one, so that a tunnel can keep its UUID when it is defined anew.
   */
  readonly newUuid?: (name: string | undefined) => string;
}

/** @throws DocumentError, and nothing else, whatever the text is */
export function parseDocument(xml: string | Uint8Array, options: ParseOptions = {}): SectunnelDocument {
  const { source } = options;
  return withXml(xml, source, (root, tree) => {
    const issues = new Issues();
    if (root.name !== 'sectunnel' || root.namespace !== '') {
      const found =
        root.namespace === '' ? `<${root.name}>` : `<${root.name}> in the namespace ${quote(root.namespace)}`;
      issues.add(root, `a <sectunnel> in no namespace is required, this is ${found}`, {
        found,
        allowed: '<sectunnel>',
      });
      issues.throwIfAny(source);
    }
    checkShape(issues, root, SECTUNNEL_SHAPE);
    const document = issues.full ? undefined : readDocument(issues, root, options);
    issues.throwIfAny(source);
    const mismatch = checkSchema(tree);
    if (mismatch !== undefined) throw new DocumentError([mismatch], source);
    invariant(document !== undefined, 'a document without issues was not read');
    return document;
  });
}

function readDocument(issues: Issues, root: XmlNode, options: ParseOptions): SectunnelDocument {
  const { sps, rules } = readPolicies(issues, root);
  const sa = readSa(issues, root, rules);
  const { name, uuid } = readNames(issues, root, options);
  checkSize(issues, root, sps);
  return {
    type: 'ipsec',
    name,
    uuid,
    title: readTitle(issues, root),
    description: textOf(root, 'description'),
    metadata: readMetadata(issues, childElements(root, 'metadata')[0]),
    device: readDevice(issues, childElements(root, 'device')[0], name, uuid, sps),
    sa,
    sps,
  };
}

/** Selectors are counted before the work of compiling them is begun. */
function checkSize(issues: Issues, root: XmlNode, sps: readonly SecurityPolicy[]): void {
  let pairs = 0;
  for (const sp of sps) {
    const { src, dst } = sidesOf(sp);
    pairs += src.length * dst.length;
    const most = Math.max(src.length, dst.length);
    const what = `the <sp> on line ${sp.line} has ${most} selectors on one side`;
    limit(issues, root, most, MAX_SELECTORS, `${what}, and IKEv2 can negotiate ${MAX_SELECTORS}; split it`);
  }
  const rules = sps.filter(({ policies }) => policies.some(({ action }) => action === 'ipsec')).length;
  const tooManyRules = `${rules} policies have action='ipsec', and an IKE SA has at most ${MAX_CHILDREN} CHILD SAs`;
  limit(issues, root, rules, MAX_CHILDREN, `${tooManyRules}; give an <sp> more ranges, or split the document`);
  const tooManyPairs = `the ranges of all policies make ${pairs} pairs of source and destination, more than ${MAX_PAIRS}`;
  limit(issues, root, pairs, MAX_PAIRS, `${tooManyPairs}; join ranges that touch, or split the document`);
}

function limit(issues: Issues, root: XmlNode, found: number, most: number, message: string): void {
  if (found > most) issues.add(root, message, { found: String(found), allowed: `at most ${most}` });
}

function textOf(root: XmlNode, name: string): string | undefined {
  const node = childElements(root, name)[0];
  const text = node && textContent(node);
  return text === undefined || text.trim() === '' ? undefined : text;
}

function readTitle(issues: Issues, root: XmlNode): string | undefined {
  const title = textOf(root, 'title')?.trim();
  const node = childElements(root, 'title')[0];
  if (node === undefined || title === undefined || !/[\n\r]/.test(title)) return title;
  issues.add(node, 'a title is one line; move what is longer into <description>', { found: title });
  return undefined;
}

function readNames(
  issues: Issues,
  root: XmlNode,
  { source, newUuid = () => randomUUID() }: ParseOptions,
): { name: string; uuid: string } {
  const nameNode = childElements(root, 'name')[0];
  const uuidNode = childElements(root, 'uuid')[0];
  const name = nameNode === undefined ? nameFromSource(source) : textContent(nameNode).trim();
  if (nameNode !== undefined && !isTunnelName(name ?? '')) {
    const found = name ?? '';
    issues.add(nameNode, `${quote(found)} cannot be a name: ${TUNNEL_NAME_WANTED} is required`, {
      found,
      allowed: TUNNEL_NAME_WANTED,
    });
  }
  const found = uuidNode === undefined ? undefined : textContent(uuidNode).trim();
  const given = found === undefined ? undefined : parseUuid(found);
  if (uuidNode !== undefined && found !== undefined && given === undefined) {
    issues.add(uuidNode, `${quote(found)} is no UUID: ${UUID_WANTED} is required; leave <uuid> out to have one made`, {
      found,
      allowed: UUID_WANTED,
    });
  }
  const uuid = given ?? newUuid(name);
  return { name: name ?? `tunnel-${uuid.slice(0, 8)}`, uuid };
}

/** The file's own name, where it can be that of a tunnel. */
function nameFromSource(source: string | undefined): string | undefined {
  const name = source === undefined ? undefined : basename(source).replace(/\.xml$/i, '');
  return name !== undefined && isTunnelName(name) ? name : undefined;
}

function readDevice(
  issues: Issues,
  node: XmlNode | undefined,
  name: string,
  uuid: string,
  sps: readonly SecurityPolicy[],
): DeviceSettings {
  const mtu = node && readInteger(issues, node, 'mtu', { min: MIN_MTU[4], max: 65_535 });
  if (node !== undefined && mtu !== undefined && mtu < MIN_MTU[6] && hasIpv6(sps)) {
    const why = `IPv6 needs an MTU of at least ${MIN_MTU[6]} (RFC 8200 section 5), and a policy has IPv6 ranges`;
    issues.badValue(node, 'mtu', String(mtu), `a whole number from ${MIN_MTU[6]} to 65535`, why);
  }
  const routes = (node && readChoice(node, 'routes', ROUTE_VALUES)) ?? DEFAULT_ROUTES;
  const ipv6 = (node && readChoice(node, 'ipv6', IPV6_VALUES)) ?? DEFAULT_IPV6;
  if (node !== undefined && ipv6 === 'block' && routes === 'none') {
    const why = "with routes='none' the tunnel has no fence, which is what blocks; leave one of the two out";
    issues.badValue(node, 'ipv6', ipv6, "'pass'", why);
  }
  return {
    name: (node && readDeviceName(issues, node)) ?? defaultDeviceName(name, uuid),
    mtu,
    table: node && readInteger(issues, node, 'table', { min: 1, max: MAX_U32 }),
    netns: node && readSimpleName(issues, node, 'netns'),
    vrf: node && readInterfaceName(issues, node, 'vrf'),
    routes,
    ipv6,
  };
}

function readDeviceName(issues: Issues, node: XmlNode): string | undefined {
  const found = attributeOf(node, 'name');
  if (found !== '.' && found !== '..') return readInterfaceName(issues, node, 'name');
  issues.badValue(node, 'name', found, 'a name', 'no interface can be called so; choose another name');
  return undefined;
}
