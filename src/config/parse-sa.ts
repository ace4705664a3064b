/**
 * The `<sa>` of a document: the two ends, how they authenticate, IKE and ESP. The seed has no `<sa>`: its short
 * `<secret>` and the end points of its rules say the same.
 */

import { formatAddress, parseAddress } from '../base/address.ts';
import { identityFromText } from '../base/identity.ts';
import { IKE_PORT, NAT_PORT } from '../base/ports.ts';
import { parseIkeProposal } from '../crypto/proposal-text.ts';
import {
  DEFAULT_DPD_INTERVAL,
  DEFAULT_FRAGMENT_SIZE,
  DEFAULT_IKE_PROPOSALS,
  DEFAULT_NAT_KEEPALIVE,
  DEFAULT_PREFERENCE,
  defaultDpdAction,
  defaultStart,
  defaultTraversal,
  encapsulationFor,
  FRAGMENT_SIZES,
  IKE_LIFETIME,
} from './defaults.ts';
import { quote } from './errors.ts';
import {
  AUTH_SIDES,
  AUTH_TYPES,
  DPD_ACTIONS,
  ID_TYPES,
  NAT_ENCAPSULATIONS,
  NAT_TRAVERSALS,
  REVOCATION_POLICIES,
  START_VALUES,
  X509_SOURCES,
} from './grammar.ts';
import type { Issues } from './issues.ts';
import type {
  AuthSettings,
  EndPoint,
  IdentityKind,
  IdentityText,
  IkeSettings,
  PeerAddress,
  PeerSettings,
  RedundancySettings,
  RevocationPolicy,
  SaSettings,
  X509Settings,
} from './model.ts';
import { readEsp } from './parse-esp.ts';
import type { RuleElement } from './parse-sp.ts';
import { readLifetime, readProposals } from './parse-suite.ts';
import { peerAddressText } from './text.ts';
import {
  attributeOf,
  MAX_U32,
  notAnAddress,
  readChoice,
  readInteger,
  readInterfaceName,
  readNotEmpty,
  readPath,
  readPeerAddress,
  readPort,
  readSecretReference,
  readSimpleName,
} from './values.ts';
import { childElements, textContent, type XmlNode } from './xml.ts';

export function readSa(issues: Issues, root: XmlNode, rules: readonly RuleElement[]): SaSettings {
  const sa = childElements(root, 'sa')[0];
  const auths = readAuths(issues, root, sa);
  if (rules.length > 0) checkAuths(issues, sa ?? root, auths);
  const ownPorts = rules.some(({ settings: { src, dst } }) => src.port !== undefined || dst.port !== undefined);
  const local = readPeer(issues, root, sa, 'local', { rules, ownPorts, auths });
  const remote = readPeer(issues, root, sa, 'remote', { rules, ownPorts, auths });
  checkEnds(issues, sa ?? root, local, remote);
  return {
    vrf: sa && readInterfaceName(issues, sa, 'vrf'),
    local,
    remote,
    auths,
    ike: readIke(issues, root, sa && childElements(sa, 'ike')[0], local, remote),
    esp: readEsp(issues, root, sa && childElements(sa, 'esp')[0]),
    redundancy: readRedundancy(issues, sa && childElements(sa, 'redundancy')[0]),
  };
}

function readRedundancy(issues: Issues, node: XmlNode | undefined): RedundancySettings | undefined {
  const group = node && readSimpleName(issues, node, 'group');
  if (node === undefined || group === undefined) return undefined;
  return {
    group,
    preference: readInteger(issues, node, 'preference', { min: 0, max: 255 }) ?? DEFAULT_PREFERENCE,
    line: node.line,
  };
}

/** What else of a document has a say in its ends. */
interface Surroundings {
  readonly rules: readonly RuleElement[];
  /** Whether an end has a port other than 500. */
  readonly ownPorts: boolean;
  readonly auths: readonly AuthSettings[];
}

/** One end: what `<sa>` says of it, and what the rules say. */
function readPeer(
  issues: Issues,
  root: XmlNode,
  sa: XmlNode | undefined,
  side: 'local' | 'remote',
  { rules, ownPorts, auths }: Surroundings,
): PeerSettings {
  const node = sa && childElements(sa, side)[0];
  const said = readPeerAddress(issues, node) ?? { kind: 'any' };
  let address: Said<PeerAddress> = { value: said, text: peerAddressText(said), line: node?.line };
  const ownPort = node && readPort(issues, node);
  let port: Said<number | undefined> = { value: ownPort, text: String(ownPort), line: node?.line };
  for (const rule of rules) {
    const end: EndPoint = side === 'local' ? rule.settings.src : rule.settings.dst;
    const endNode = childElements(rule.node, side === 'local' ? 'src' : 'dst')[0];
    if (endNode === undefined) continue;
    const { line } = endNode;
    if (end.address.kind !== 'any') {
      const text = peerAddressText(end.address);
      if (address.value.kind === 'any') address = { value: end.address, text, line };
      else if (address.text !== text) reportConflict(issues, endNode, 'address', text, address);
    }
    if (end.port !== undefined) {
      if (port.value === undefined) port = { value: end.port, text: String(end.port), line };
      else if (port.value !== end.port) reportConflict(issues, endNode, 'port', String(end.port), port);
    }
  }
  const idNode = node && childElements(node, 'id')[0];
  const psk = auths.some(({ type, side: covered }) => type === 'psk' && (covered === 'both' || covered === side));
  return {
    address: address.value,
    port: port.value ?? (ownPorts ? NAT_PORT : IKE_PORT),
    id: idNode === undefined ? (psk ? identityOf(address.value) : undefined) : readIdentity(issues, idNode),
    line: (node ?? sa ?? root).line,
  };
}

/** A value, how it is written, and where it was first said. */
interface Said<T> {
  readonly value: T;
  readonly text: string;
  readonly line: number | undefined;
}

/** All rules of a document run over one IKE SA, so they have one pair of end points. */
function reportConflict(issues: Issues, node: XmlNode, attribute: string, found: string, said: Said<unknown>): void {
  const why = `line ${said.line} says ${quote(said.text)} for the same end, and one document has one pair of end points. Make them equal, or leave one out`;
  issues.badValue(node, attribute, found, said.text, why);
}

/** Where no identity is given the address stands for it; with certificates it is the subject instead. */
function identityOf(address: PeerAddress): IdentityText | undefined {
  switch (address.kind) {
    case 'any':
      return undefined;
    case 'ip':
      return { type: 'address', text: formatAddress(address.address) };
    case 'fqdn':
      return { type: 'fqdn', text: address.name };
  }
}

function readIdentity(issues: Issues, node: XmlNode): IdentityText | undefined {
  const type = readChoice(node, 'type', ID_TYPES);
  const found = textContent(node).trim();
  if (type === undefined) return undefined;
  const problem = identityProblem(type, found);
  if (problem === undefined) {
    const address = type === 'address' ? parseAddress(found) : undefined;
    return { type, text: address === undefined ? found : formatAddress(address) };
  }
  issues.add(node, `${quote(found)} is not an identity of type '${type}': ${problem}`, { found, allowed: problem });
  return undefined;
}

const ID_EXAMPLES: Readonly<Record<IdentityKind, string>> = {
  address: '192.0.2.1 or 2001:db8::1',
  fqdn: 'gw1.example.org',
  email: 'admin@example.org',
  dn: 'O=Example, CN=gw1',
  keyid: 'gw1',
};

/** What a peer is told is made of the text by the same function, so what is taken here cannot fail later. */
function identityProblem(type: IdentityKind, text: string): string | undefined {
  if (text === '') return 'it is empty; write the identity between the tags';
  if (text.length > 1024) return 'it is longer than 1024 characters';
  if (type === 'address' && parseAddress(text) === undefined) {
    return `${notAnAddress(text)}; write an address, or another type`;
  }
  try {
    identityFromText(type, text);
    return undefined;
  } catch (error) {
    if (error instanceof RangeError) return `${error.message}; an example is ${ID_EXAMPLES[type]}`;
    throw error;
  }
}

function readAuths(issues: Issues, root: XmlNode, sa: XmlNode | undefined): AuthSettings[] {
  const short = childElements(root, 'secret')[0];
  const secret = short && readSecretReference(issues, short);
  const auths: AuthSettings[] =
    short === undefined || secret === undefined ? [] : [{ type: 'psk', side: 'both', secret, line: short.line }];
  for (const node of sa === undefined ? [] : childElements(sa, 'auth')) {
    const auth = readAuth(issues, node);
    if (auth === undefined) continue;
    const clash = auths.find(({ side }) => side === auth.side || side === 'both' || auth.side === 'both');
    if (clash === undefined) auths.push(auth);
    else {
      const message = `side='${auth.side}': line ${clash.line} says already how '${clash.side}' authenticates; remove one`;
      issues.add(node, message, { attribute: 'side', found: auth.side });
    }
  }
  return auths;
}

function readAuth(issues: Issues, node: XmlNode): AuthSettings | undefined {
  const type = readChoice(node, 'type', AUTH_TYPES);
  const side = readChoice(node, 'side', AUTH_SIDES) ?? 'both';
  if (type === undefined) return undefined;
  const wanted = type === 'psk' ? 'secret' : 'x509';
  const wrong = childElements(node, type === 'psk' ? 'x509' : 'secret')[0];
  if (wrong !== undefined) {
    issues.add(wrong, `it does not belong to type='${type}' (line ${node.line}); remove it`, {
      allowed: `<${wanted}>`,
    });
  }
  const child = childElements(node, wanted)[0];
  if (child === undefined) {
    issues.add(node, `type='${type}' needs a <${wanted}>; add it`, { allowed: `<${wanted}>` });
    return undefined;
  }
  if (type === 'x509') return { type, side, x509: readX509(issues, child, side), line: node.line };
  const secret = readSecretReference(issues, child);
  return secret === undefined ? undefined : { type, side, secret, line: node.line };
}

/** What a side needs: the peer's authorities to judge it by, our certificate and key to show. */
const NEEDED_FILES = { local: ['cert', 'key'], remote: ['ca'], both: ['ca', 'cert', 'key'] } as const;

function readX509(issues: Issues, node: XmlNode, side: AuthSettings['side']): X509Settings {
  const source = readChoice(node, 'source', X509_SOURCES) ?? 'server';
  const [ca, cert, key, crl, ocsp] = ['ca', 'cert', 'key', 'crl', 'ocsp'].map((name) => childElements(node, name)[0]);
  if (source === 'file') {
    for (const name of NEEDED_FILES[side]) {
      if ({ ca, cert, key }[name] !== undefined) continue;
      const message = `source='file' needs <${name} file='…'/> for side='${side}'; add it`;
      issues.add(node, message, { attribute: 'source', allowed: `<${name}>` });
    }
  }
  const keyFile = key && readPath(issues, key, 'file');
  const keySecret = key && childElements(key, 'secret')[0];
  const passphrase = keySecret && readSecretReference(issues, keySecret);
  return {
    source,
    pkipath: readPath(issues, node, 'pkipath'),
    ca: ca && readPath(issues, ca, 'file'),
    cert: cert && readPath(issues, cert, 'file'),
    key: keyFile === undefined ? undefined : { file: keyFile, secret: passphrase },
    crl: crl && readCrl(issues, crl),
    ocsp: ocsp && { policy: readPolicy(ocsp) },
    allow: childElements(node, 'allow').flatMap((allow) => readNotEmpty(issues, allow, 'dn') ?? []),
    commonName: attributeOf(node, 'commonname') === 'yes',
    sha1: attributeOf(node, 'sha1') === 'yes',
  };
}

function readCrl(issues: Issues, node: XmlNode): X509Settings['crl'] {
  const file = readPath(issues, node, 'file');
  const fetch = attributeOf(node, 'fetch') === 'yes';
  if (attributeOf(node, 'file') === undefined && !fetch) {
    issues.add(node, "it does not say which lists; add file='…', or fetch='yes' for those that certificates name", {
      allowed: "file='…' or fetch='yes'",
    });
  }
  return { file, fetch, policy: readPolicy(node) };
}

function readPolicy(node: XmlNode): RevocationPolicy {
  return readChoice(node, 'policy', REVOCATION_POLICIES) ?? 'ifpresent';
}

function checkAuths(issues: Issues, node: XmlNode, auths: readonly AuthSettings[]): void {
  if (issues.any) return;
  const missing = (['local', 'remote'] as const).filter(
    (side) => !auths.some((auth) => auth.side === 'both' || auth.side === side),
  );
  if (missing.length === 0) return;
  const side = missing.length === 2 ? 'the two ends authenticate' : `the ${missing[0]} end authenticates`;
  const allowed = "<auth type='psk'><secret uuid='…'/></auth>";
  const message = `nothing says how ${side}; add ${allowed} to <sa>, or <secret uuid='…'/> to <sectunnel>`;
  issues.add(node, message, { allowed });
}

function checkEnds(issues: Issues, node: XmlNode, local: PeerSettings, remote: PeerSettings): void {
  const [a, b] = [local.address, remote.address];
  if (a.kind !== 'ip' || b.kind !== 'ip' || a.address.family === b.address.family) return;
  const message = `the local end ${peerAddressText(a)} is IPv${a.address.family} and the remote end ${peerAddressText(b)} is IPv${b.address.family}; write addresses of one family`;
  issues.add(node, message, { found: `${peerAddressText(a)} and ${peerAddressText(b)}` });
}

function readIke(
  issues: Issues,
  root: XmlNode,
  node: XmlNode | undefined,
  local: PeerSettings,
  remote: PeerSettings,
): IkeSettings {
  const known = remote.address.kind !== 'any';
  const start = (node && readChoice(node, 'start', START_VALUES)) ?? defaultStart({ remoteKnown: known });
  if (node !== undefined && start !== 'respond' && !known) {
    const why = `the remote end has no address (line ${remote.line}), so the tunnel cannot initiate; give <remote address='…'>, or write start='respond'`;
    issues.badValue(node, 'start', start, 'respond', why);
  }
  const proposals = node === undefined ? [] : readProposals(issues, node, parseIkeProposal);
  const dpd = node && childElements(node, 'dpd')[0];
  return {
    version: 2,
    start,
    proposals: proposals.length > 0 ? proposals : DEFAULT_IKE_PROPOSALS,
    lifetime: readLifetime(issues, node, IKE_LIFETIME),
    dpd: {
      interval: (dpd && readInteger(issues, dpd, 'interval', { min: 0, max: MAX_U32 })) ?? DEFAULT_DPD_INTERVAL,
      action: (dpd && readChoice(dpd, 'action', DPD_ACTIONS)) ?? defaultDpdAction(start),
    },
    fragmentSize: readFragmentSize(issues, node),
    nat: readNat(issues, node && childElements(node, 'nat')[0], local, remote),
    line: (node ?? root).line,
  };
}

function readFragmentSize(issues: Issues, ike: XmlNode | undefined): number {
  const node = ike && childElements(ike, 'fragmentation')[0];
  if (node === undefined) return DEFAULT_FRAGMENT_SIZE;
  if (attributeOf(node, 'size') === 'off') return 0;
  const { min, max } = FRAGMENT_SIZES;
  return readInteger(issues, node, 'size', { min, max, orElse: " or 'off'" }) ?? DEFAULT_FRAGMENT_SIZE;
}

function readNat(
  issues: Issues,
  node: XmlNode | undefined,
  local: PeerSettings,
  remote: PeerSettings,
): IkeSettings['nat'] {
  const ownPort = local.port !== IKE_PORT || remote.port !== IKE_PORT;
  const said = node && readChoice(node, 'traversal', NAT_TRAVERSALS);
  if (node !== undefined && ownPort && said === 'off') {
    const why = `the ports ${local.port} and ${remote.port} are for ESP in UDP, which this forbids; leave traversal out, or the ports`;
    issues.badValue(node, 'traversal', said, 'auto or force', why);
  }
  const traversal = ownPort || said === undefined ? defaultTraversal({ ownPort }) : said;
  const wanted = node && readChoice(node, 'encapsulation', NAT_ENCAPSULATIONS);
  const encapsulation = encapsulationFor(traversal, wanted);
  if (node !== undefined && wanted !== undefined && wanted !== encapsulation) {
    const why = ownPort
      ? `the ports ${local.port} and ${remote.port} are for ESP in UDP, always; leave encapsulation out, or the ports`
      : `with traversal='${traversal}' it is ${encapsulation}; leave encapsulation out, or have traversal='auto'`;
    issues.badValue(node, 'encapsulation', wanted, encapsulation, why);
  }
  return {
    traversal,
    encapsulation,
    port: (node && readPort(issues, node)) ?? NAT_PORT,
    keepalive: (node && readInteger(issues, node, 'keepalive', { min: 0, max: MAX_U32 })) ?? DEFAULT_NAT_KEEPALIVE,
  };
}
