/**
 * A document as text, always in the full form, laid out as libvirt lays out its XML. Parsing the result gives an equal
 * document, and dumping that gives the same text.
 */
import { formatAddress, rangePrefixLength } from '../base/address.ts';
import type { EspProposal, IkeProposal } from '../crypto/proposal.ts';
import { formatProposal } from '../crypto/proposal-text.ts';
import { protocolName } from '../policy/protocols.ts';
import { isAnyPorts } from '../policy/selector.ts';
import type {
  AuthSettings,
  DeviceSettings,
  EndPoint,
  EspSettings,
  IkeSettings,
  PacketRange,
  PeerSettings,
  PolicySettings,
  SaSettings,
  SecretReference,
  SectunnelDocument,
  SecurityPolicy,
  UpperSpec,
} from './model.ts';
import { levelText, peerAddressText } from './text.ts';
import { element, layOut, type OutputElement } from './write.ts';

/**
 * Writes a document out in full: every default, in the order of the schema. What it writes parses to the same
 * document.
 */
export function dumpDocument(document: SectunnelDocument): string {
  return `${layOut(documentElement(document)).join('\n')}\n`;
}

/** The same before it is laid out. */
export function documentElement(document: SectunnelDocument): OutputElement {
  const { name, uuid, title, description, metadata, device, sa, sps } = document;
  return element('sectunnel', { type: document.type }, [
    element('name', {}, name),
    element('uuid', {}, uuid),
    ...(title === undefined ? [] : [element('title', {}, title)]),
    ...(description === undefined ? [] : [element('description', {}, description)]),
    ...(metadata.length === 0 ? [] : [element('metadata', {}, metadata)]),
    deviceElement(device),
    element('sa', { vrf: sa.vrf }, [
      peerElement('local', sa.local),
      peerElement('remote', sa.remote),
      ...sa.auths.map(authElement),
      ikeElement(sa.ike),
      espElement(sa.esp),
      ...redundancyElement(sa.redundancy),
    ]),
    ...sps.map(spElement),
  ]);
}

/** Whether two documents say the same, however each is laid out. */
export function sameDocument(one: SectunnelDocument, other: SectunnelDocument): boolean {
  return one === other || dumpDocument(one) === dumpDocument(other);
}

function deviceElement({ name, mtu, table, netns, vrf, routes, ipv6 }: DeviceSettings): OutputElement {
  return element('device', { name, mtu, table, netns, vrf, routes, ipv6 });
}

function peerElement(name: 'local' | 'remote', { address, port, id }: PeerSettings): OutputElement {
  const attributes = { address: peerAddressText(address), port };
  return element(name, attributes, id === undefined ? [] : [element('id', { type: id.type }, id.text)]);
}

function redundancyElement(redundancy: SaSettings['redundancy']): OutputElement[] {
  if (redundancy === undefined) return [];
  const { group, preference } = redundancy;
  return [element('redundancy', { group, preference })];
}

function secretElement(reference: SecretReference): OutputElement {
  return element('secret', reference.by === 'uuid' ? { uuid: reference.uuid } : { usage: reference.usage });
}

function authElement(auth: AuthSettings): OutputElement {
  const { type, side } = auth;
  if (auth.type === 'psk') return element('auth', { type, side }, [secretElement(auth.secret)]);
  const { source, pkipath, ca, cert, key, crl, ocsp, allow, commonName, sha1 } = auth.x509;
  const secret = key?.secret === undefined ? [] : [secretElement(key.secret)];
  return element('auth', { type, side }, [
    element('x509', { source, pkipath, commonname: commonName ? 'yes' : undefined, sha1: sha1 ? 'yes' : undefined }, [
      ...(ca === undefined ? [] : [element('ca', { file: ca })]),
      ...(cert === undefined ? [] : [element('cert', { file: cert })]),
      ...(key === undefined ? [] : [element('key', { file: key.file }, secret)]),
      ...(crl === undefined
        ? []
        : [element('crl', { file: crl.file, fetch: crl.fetch ? 'yes' : undefined, policy: crl.policy })]),
      ...(ocsp === undefined ? [] : [element('ocsp', { policy: ocsp.policy })]),
      ...allow.map((dn) => element('allow', { dn })),
    ]),
  ]);
}

function ikeElement({ version, start, proposals, lifetime, dpd, fragmentSize, nat }: IkeSettings): OutputElement {
  const { soft, hard, jitter } = lifetime;
  return element('ike', { version, start }, [
    ...proposals.map(ikeProposalElement),
    element('lifetime', { soft, hard, jitter }),
    element('dpd', { interval: dpd.interval, action: dpd.action }),
    element('fragmentation', { size: fragmentSize === 0 ? 'off' : fragmentSize }),
    element('nat', {
      traversal: nat.traversal,
      encapsulation: nat.traversal === 'auto' ? nat.encapsulation : undefined,
      port: nat.port,
      keepalive: nat.keepalive,
    }),
  ]);
}

function ikeProposalElement({ encryption, integrity, prf, dh }: IkeProposal): OutputElement {
  return element('proposal', {
    encryption: names(encryption),
    integrity: names(integrity),
    prf: names(prf)?.replace(/\bprf/g, ''),
    dh: names(dh),
  });
}

function espElement({ proposals, lifetime, replayWindow, dscp, tfc }: EspSettings): OutputElement {
  const { soft, hard, jitter, bytes, packets } = lifetime;
  return element('esp', {}, [
    ...proposals.map(espProposalElement),
    element('lifetime', { soft, hard, jitter, bytes, packets }),
    element('replay', { window: replayWindow }),
    element('outer', { dscp: dscp ?? 'copy' }),
    element('tfc', { padding: tfc.padding, size: tfc.size, dummies: tfc.dummies }),
  ]);
}

/** `esn` says which one alone is acceptable; left out both are. That 'no' is preferred only the single-string form says. */
function espProposalElement(proposal: EspProposal): OutputElement {
  const { encryption, integrity, dh, esn } = proposal;
  if (esn.length > 1 && esn[0] === false) return element('proposal', { encryption: formatProposal(proposal) });
  return element('proposal', {
    encryption: names(encryption),
    integrity: names(integrity),
    dh: names(dh),
    esn: esn.length > 1 ? undefined : esn[0] === true ? 'yes' : 'no',
  });
}

function names(algorithms: readonly { readonly name: string }[]): string | undefined {
  return algorithms.length === 0 ? undefined : algorithms.map(({ name }) => name).join('-');
}

function spElement({ name, priority, srcRanges, dstRanges, upperspec, policies }: SecurityPolicy): OutputElement {
  return element('sp', { name, priority }, [
    ...srcRanges.map((range) => rangeElement('src_range', range)),
    ...dstRanges.map((range) => rangeElement('dst_range', range)),
    upperspecElement(upperspec),
    ...policies.map(policyElement),
  ]);
}

function rangeElement(name: 'src_range' | 'dst_range', { range, ports, pfp }: PacketRange): OutputElement {
  const prefixlen = rangePrefixLength(range);
  return element(name, {
    address: formatAddress(range.start),
    prefixlen,
    end: prefixlen === undefined ? formatAddress(range.end) : undefined,
    port: isAnyPorts(ports)
      ? undefined
      : ports.startPort === ports.endPort
        ? ports.startPort
        : `${ports.startPort}-${ports.endPort}`,
    pfp: pfp ? 'yes' : undefined,
  });
}

function upperspecElement({ protocol, icmpType, icmpCode, pfp }: UpperSpec): OutputElement {
  return element('upperspec', {
    protocol: protocolName(protocol),
    type: icmpType,
    code: icmpCode,
    pfp: pfp ? 'yes' : undefined,
  });
}

function policyElement(policy: PolicySettings): OutputElement {
  const { direction, action } = policy;
  if (policy.action !== 'ipsec') return element('policy', { direction, action });
  const { protocol, mode, level, src, dst } = policy.rule;
  return element('policy', { direction, action }, [
    element('rule', { protocol, mode, level: levelText(level) }, [endElement('src', src), endElement('dst', dst)]),
  ]);
}

function endElement(name: 'src' | 'dst', { address, port }: EndPoint): OutputElement {
  return element(name, { address: peerAddressText(address), port });
}
