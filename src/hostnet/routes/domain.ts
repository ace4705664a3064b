/**
 * Routing domains: the default one, and those of VRFs. Each has its links, the addresses on them and its own main table; two may
 * have equal addresses. Packets belong to the domain of the link that they come in by, or of the socket that sends them.
 */
import { SectunnelError } from '../../base/error.ts';
import { type HostNetwork, type InterfaceAddress, MAIN_TABLE, type Vrf } from './routes.ts';

export interface Domain {
  /** Name of the VRF; `undefined` for the default domain. */
  readonly vrf: string | undefined;
  /** Of the VRF itself, where there is one. */
  readonly linkIndex: number | undefined;
  /** The table of what is connected, and of all that no rule routes. */
  readonly mainTable: number;
  readonly addresses: readonly InterfaceAddress[];
}

/** @returns `undefined` when there is no such VRF */
export function findDomain(
  network: Pick<HostNetwork, 'vrfs' | 'addresses'>,
  vrf: string | undefined,
): Domain | undefined {
  const vrfs = network.vrfs();
  const own = vrfs.find(({ name }) => name === vrf);
  if (vrf !== undefined && own === undefined) return undefined;
  const holds = (linkIndex: number): boolean =>
    own === undefined ? !vrfs.some((one) => isOf(one, linkIndex)) : isOf(own, linkIndex);
  return {
    vrf,
    linkIndex: own?.index,
    mainTable: own?.table ?? MAIN_TABLE,
    addresses: network.addresses().filter(({ linkIndex }) => holds(linkIndex)),
  };
}

function isOf({ index, links }: Vrf, linkIndex: number): boolean {
  return linkIndex === index || links.has(linkIndex);
}

/** @throws SectunnelError saying what is there in the place of the VRF, and what to do */
export function wantVrf(network: Pick<HostNetwork, 'vrfs' | 'link'>, vrf: string): Vrf {
  const found = network.vrfs().find(({ name }) => name === vrf);
  if (found !== undefined) return found;
  const isThere = network.link(vrf) !== undefined;
  throw new SectunnelError(
    'system',
    isThere
      ? `the link ${vrf} is no VRF: name one in <device vrf='…'/> (ip link show type vrf)`
      : `there is no VRF ${vrf} here: ip link add ${vrf} type vrf table NUMBER && ip link set ${vrf} up (Linux 5.9 or later, with CONFIG_NET_VRF)`,
  );
}
