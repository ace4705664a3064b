/**
 * Networks as the proposal of 2011 spells them, rewritten into what libvirt keeps. libvirt drops both spellings without
 * a word (and refuses them with `--validate`):
 *
 * ```text
 *   <forward mode='route' tunnel='sec-net'/>    all traffic of the network goes through the tunnel     exclusive
 *   <sectunnel name='sec-net'/>                 what the tunnel's policy selects does                  selective
 * ```
 *
 * The first one becomes `<forward mode='route' dev='DEVICE'/>`, which has libvirt's own rules say the same as ours, and
 * both become an element in `<metadata>`. All else stays as it is, comments too.
 */
import { XmlElement } from 'libxml2-wasm';
import { invariant } from '../base/assert.ts';
import { quote } from '../config/errors.ts';
import { Issues } from '../config/issues.ts';
import { attributeOf } from '../config/values.ts';
import { childElements, withXml, type XmlNode } from '../config/xml.ts';
import { TUNNEL_NAMESPACE } from './namespace.ts';
import {
  type LibvirtNetwork,
  type NetworkPin,
  networkOf,
  pinElement,
  pinProblem,
  readElement,
  readNetwork,
  readTunnelName,
} from './network.ts';

export interface ImportedNetwork {
  readonly name: string;
  readonly pin: NetworkPin;
  readonly xml: string;
  /** What was changed and why, a sentence each. Empty when the document was already what libvirt keeps. */
  readonly changes: readonly string[];
}

/**
 * @param deviceOf the device of a tunnel. Throws for a tunnel that there is not
 * @throws DocumentError for a network that names no tunnel, or more than one, or cannot be held by one
 */
export function importNetwork(
  text: string | Uint8Array,
  source: string | undefined,
  deviceOf: (tunnel: string) => string,
): ImportedNetwork {
  return withXml(text, source, (root, document) => {
    const issues = new Issues();
    const network = networkOf(issues, root, source);
    const before = readElement(issues, network);
    const named = readSpellings(issues, network, before.pin);
    issues.throwIfAny(source);
    invariant(named !== undefined, 'a network without issues names no tunnel');
    const pin = before.forward.mode === 'none' ? ({ ...named, mode: 'exclusive' } as const) : named;
    const device = deviceOf(pin.tunnel);
    const changes: string[] = [];
    const target = document.root.name === 'network' ? document.root : child(document.root, 'network');
    invariant(target !== undefined, 'the network is gone');
    rewrite(target, { before, named, pin, device, changes });
    const xml = `${target.toString({ noDeclaration: true })}\n`;
    const problem = pinProblem(readNetwork(xml), device);
    if (problem !== undefined) issues.add(childElements(network, 'forward')[0] ?? network, problem);
    issues.throwIfAny(source);
    return { name: before.name, pin, xml, changes };
  });
}

/** The tunnel that a network names, in whichever way; in several ways only if they agree. */
function readSpellings(issues: Issues, network: XmlNode, kept: NetworkPin | undefined): NetworkPin | undefined {
  const found: { readonly node: XmlNode; readonly pin: NetworkPin }[] = [];
  const take = (node: XmlNode, attribute: string, mode: NetworkPin['mode']): void => {
    const tunnel = readTunnelName(issues, node, attribute);
    if (tunnel !== undefined) found.push({ node, pin: { tunnel, mode } });
    else if (attributeOf(node, attribute) === undefined)
      issues.add(node, `it has no ${attribute}='…'; name the tunnel`);
  };
  for (const node of childElements(network, 'forward')) {
    if (attributeOf(node, 'tunnel') !== undefined) take(node, 'tunnel', 'exclusive');
  }
  for (const node of childElements(network, 'sectunnel')) if (node.namespace === '') take(node, 'name', 'selective');
  const own = pinElement(network);
  if (own !== undefined && kept !== undefined) found.push({ node: own, pin: kept });
  const [first, ...others] = found;
  if (first === undefined) {
    issues.add(
      network,
      `it names no tunnel; write <forward mode='route' tunnel='…'/> to send all its traffic through one, or <sectunnel name='…'/> to send what the tunnel's policy selects`,
    );
    return undefined;
  }
  for (const { node, pin } of others) {
    if (pin.tunnel === first.pin.tunnel && pin.mode === first.pin.mode) continue;
    issues.add(
      node,
      `it says ${pin.mode} use of the tunnel ${quote(pin.tunnel)}, and line ${first.node.line} says ${first.pin.mode} use of ${quote(first.pin.tunnel)}; leave one of them`,
    );
  }
  return first.pin;
}

interface Rewriting {
  readonly before: LibvirtNetwork;
  /** As the document says it, and as it is kept. */
  readonly named: NetworkPin;
  readonly pin: NetworkPin;
  readonly device: string;
  readonly changes: string[];
}

function rewrite(network: XmlElement, rewriting: Rewriting): void {
  const { before, named, pin, device, changes } = rewriting;
  for (const element of children(network)) {
    if (element.name !== 'sectunnel' || element.namespaceUri !== '') continue;
    removeLine(element);
    changes.push(`<sectunnel> was replaced by an element in <metadata>, as libvirt keeps no other`);
  }
  writePin(network, rewriting);
  const forward = child(network, 'forward');
  const tunnel = forward?.attr('tunnel') ?? undefined;
  if (tunnel !== undefined) {
    tunnel.remove();
    changes.push(
      `tunnel='${pin.tunnel}' of <forward> was replaced by an element in <metadata>, as libvirt keeps no other`,
    );
  }
  if (pin.mode !== 'exclusive') return;
  if (forward === undefined) {
    insertAfter(network, 'bridge', 'forward').setAttr('mode', 'route');
    if (named.mode === 'selective') {
      changes.push('without a <forward> nothing leaves the network but by the tunnel: it is held exclusively');
    }
  }
  writeForwardDevice(network, rewriting);
  if (before.dns) {
    const names = child(network, 'dns');
    const lost = names !== undefined && children(names).length > 0 ? ', and what was in <dns> with it' : '';
    if (names !== undefined) removeLine(names);
    insertAfter(network, 'forward', 'dns').setAttr('enable', 'no');
    changes.push(
      `DNS on the host was switched off (<dns enable='no'/>)${lost}: it would ask on for the guests outside of the tunnel; give them a server that is reached through ${device}`,
    );
  }
}

function writeForwardDevice(network: XmlElement, { before, pin, device, changes }: Rewriting): void {
  const forward = child(network, 'forward');
  const { mode, device: set } = before.forward;
  if (forward === undefined || set !== undefined || (mode !== 'route' && mode !== 'none')) return;
  forward.setAttr('dev', device);
  changes.push(
    `<forward> got dev='${device}', the device of ${pin.tunnel}: so libvirt's own rules forward to it alone`,
  );
}

function writePin(network: XmlElement, { before, pin }: Rewriting): void {
  if (before.pin !== undefined) return;
  const metadata =
    child(network, 'metadata') ??
    insertAfter(network, child(network, 'uuid') === undefined ? 'name' : 'uuid', 'metadata');
  const last = children(metadata).at(-1);
  const tunnel = last === undefined ? metadata.addElement('tunnel') : last.appendElement('tunnel');
  tunnel.addNsDeclaration(TUNNEL_NAMESPACE, 'sectunnel');
  tunnel.prefix = 'sectunnel';
  tunnel.setAttr('name', pin.tunnel);
  tunnel.setAttr('mode', pin.mode);
  const indent = indentOf(metadata);
  tunnel.prependText(`${indent}  `);
  if (last === undefined) tunnel.appendText(indent);
}

function children(element: XmlElement): XmlElement[] {
  const found: XmlElement[] = [];
  for (let node = element.firstChild; node !== null; node = node.next) if (node instanceof XmlElement) found.push(node);
  return found;
}

function child(element: XmlElement, name: string): XmlElement | undefined {
  return children(element).find((other) => other.name === name && other.namespaceUri === '');
}

/** A new element behind the one of that name, or at the end, on a line of its own. */
function insertAfter(network: XmlElement, name: string, fresh: string): XmlElement {
  const before = child(network, name) ?? children(network).at(-1);
  invariant(before !== undefined, 'a network without elements');
  const element = before.appendElement(fresh);
  element.prependText(indentOf(before));
  return element;
}

/** The line break and the blanks before an element, `\n  `; two blanks where it does not stand on a line of its own. */
function indentOf(element: XmlElement): string {
  const text = element.prev?.content ?? '';
  return /\n[ \t]*$/.exec(text)?.[0] ?? '\n  ';
}

/** With the blanks before it. */
function removeLine(element: XmlElement): void {
  const before = element.prev;
  if (before !== null && !(before instanceof XmlElement) && /^\s*$/.test(before.content)) before.remove();
  element.remove();
}
