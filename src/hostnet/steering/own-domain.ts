/** What a tunnel's rules and routes follow in its routing domain: the addresses of this host there, and the main table. */
import { type Domain, findDomain, wantVrf } from '../routes/domain.ts';
import type { HostNetwork, Link, Prefix } from '../routes/routes.ts';
import { OwnAddresses } from './sources.ts';

export interface OwnDomain extends Domain {
  readonly own: OwnAddresses;
}

/**
 * @param guests networks of routed bridges
 * @returns `undefined` when there is no such VRF
 */
export function ownDomain(
  network: HostNetwork,
  vrf: string | undefined,
  guests: readonly Prefix[],
): OwnDomain | undefined {
  const domain = findDomain(network, vrf);
  return domain && { ...domain, own: new OwnAddresses(domain.addresses, guests) };
}

/** The same. @throws SectunnelError when there is no such VRF */
export function wantDomain(network: HostNetwork, vrf: string | undefined, guests: readonly Prefix[]): OwnDomain {
  if (vrf !== undefined) wantVrf(network, vrf);
  return ownDomain(network, vrf, guests)!;
}

/**
 * Puts the device back into its VRF. While there is none the device is down: what comes out of it would be in the default domain.
 *
 * @param found takes what was put right, in words
 * @returns what is wrong, in words
 */
export function keepInDomain(
  network: HostNetwork,
  link: Link | undefined,
  { vrf, domain }: { readonly vrf: string | undefined; readonly domain: Domain | undefined },
  found: (what: string) => void,
): string[] {
  if (link === undefined || vrf === undefined) return [];
  if (domain === undefined) {
    if (link.up) network.setLink(link.index, { up: false });
    return [
      `there is no VRF ${vrf} any more, so the device ${link.name} is down: ip link add ${vrf} type vrf table NUMBER && ip link set ${vrf} up`,
    ];
  }
  if (link.master === domain.linkIndex) return [];
  network.setLink(link.index, { master: domain.linkIndex! });
  network.setLink(link.index, { up: true });
  found(`${link.name}: it was not in the VRF ${vrf}`);
  return [];
}
