/**
 * Documents in transport mode: what they must say. There the ends protect
 * what they send each other, so the addresses inside are those outside (RFC 4301 §4.1).
 */
import { formatAddress, type IpAddress, sameAddress } from '../base/address.ts';
import type { SectunnelDocument } from '../config/model.ts';
import { type ChildPlan, toChildren } from '../config/selectors.ts';
import { hostsOf } from '../policy/transport.ts';

/**
 * The largest packets of a device: all that an IP packet can carry beside ESP. What is larger than the path is fragmented
 * outside; fragments that are made before could not be protected (RFC 4303 §3.3.4). TCP is told the path's size.
 */
export const TRANSPORT_MTU = 0xff00;

export function isTransport(document: SectunnelDocument): boolean {
  return toChildren(document).some(({ mode }) => mode === 'transport');
}

/** The addresses of the two ends, as far as they are known. */
export interface KnownEnds {
  readonly local: IpAddress | undefined;
  readonly remote: IpAddress | undefined;
}

/** Why a document cannot be carried out; `undefined` when it can, or is not in transport mode. */
export function transportRefusal(document: SectunnelDocument, ends: KnownEnds): string | undefined {
  const children = toChildren(document);
  const transport = children.filter(({ mode }) => mode === 'transport');
  const other = children.find(({ mode }) => mode !== 'transport');
  if (transport.length > 0 && other !== undefined) {
    return `<rule mode='transport'> on line ${transport[0]!.line} beside <rule mode='${other.mode}'> on line ${other.line}; give each mode a document of its own`;
  }
  for (const child of transport) {
    const why = refusalOf(child, transport[0]!, ends);
    if (why !== undefined) return `<rule mode='transport'> on line ${child.line}: ${why}`;
  }
  return undefined;
}

function refusalOf(child: ChildPlan, first: ChildPlan, ends: KnownEnds): string | undefined {
  const hosts = hostsOf(child.selectors);
  const wanted = hostsOf(first.selectors);
  if (hosts === undefined) {
    return "its ranges are more than one address; each side must be the address of the end itself; or write mode='tunnel'";
  }
  const sides = [
    ['source', hosts.local, ends.local ?? wanted?.local],
    ['destination', hosts.remote, ends.remote ?? wanted?.remote],
  ] as const;
  for (const [side, host, end] of sides) {
    if (end === undefined || sameAddress(host, end)) continue;
    return `its ${side} is ${formatAddress(host)}; it must be the end itself, ${formatAddress(end)}; or write mode='tunnel'`;
  }
  return undefined;
}
