/**
 * libvirt's own rules around a network: which chains they are in, by its two back ends, and whether they stand. It writes
 * them when a network starts and when its daemon starts, and does not look after them: what takes them (`nft flush ruleset`)
 * takes them until its daemon is restarted. Pure.
 *
 * The names are those that libvirt 9 to 12 write (https://libvirt.org/firewall.html): `libvirt_network` with nftables,
 * `LIBVIRT_…` with iptables.
 */
import { addressToBytes, type IpFamily } from '../base/address.ts';
import { toHex } from '../base/bytes.ts';
import { utf8 } from '../base/text.ts';
import type { LibvirtNetwork } from './network.ts';

/** Chains of one family; `base` leads to the others. */
interface BackEnd {
  readonly forward: { readonly table: string; readonly base: string; readonly chains: readonly string[] };
  readonly nat: { readonly table: string; readonly base: string | undefined; readonly chain: string };
}

const BACK_ENDS: readonly BackEnd[] = [
  {
    forward: { table: 'libvirt_network', base: 'forward', chains: ['guest_input', 'guest_output'] },
    nat: { table: 'libvirt_network', base: undefined, chain: 'guest_nat' },
  },
  {
    forward: { table: 'filter', base: 'FORWARD', chains: ['LIBVIRT_FWI', 'LIBVIRT_FWO'] },
    nat: { table: 'nat', base: 'POSTROUTING', chain: 'LIBVIRT_PRT' },
  },
];

/** A chain of the packet filter. */
interface Chain {
  readonly family: IpFamily;
  readonly table: string;
  readonly chain: string;
}

/** What of a rule is looked at. */
export interface FirewallRule extends Chain {
  /** What it compares parts of packets with, hexadecimal. */
  readonly constants: readonly string[];
  readonly jump: string | undefined;
}

/** All chains that `isRuled` looks at. */
export const LIBVIRT_CHAINS: readonly Chain[] = ([4, 6] as const).flatMap((family) =>
  BACK_ENDS.flatMap(({ forward, nat }) => [
    ...[forward.base, ...forward.chains].map((chain) => ({ family, table: forward.table, chain })),
    ...[nat.base, nat.chain].flatMap((chain) => (chain === undefined ? [] : [{ family, table: nat.table, chain }])),
  ]),
);

/** Whether libvirt writes rules for such a network at all: none with `open`, and a bridge of others is others' matter. */
export function wantsRules({ forward: { mode } }: LibvirtNetwork): boolean {
  return mode === 'nat' || mode === 'route';
}

/**
 * Whether libvirt's rules for a network stand, by any of its back ends.
 * @param index of the bridge, by which the newer back end names it
 */
export function isRuled(network: LibvirtNetwork, index: number | undefined, rules: readonly FirewallRule[]): boolean {
  const families = [...new Set(network.prefixes.map(({ address }) => address.family))];
  return BACK_ENDS.some((backEnd) => families.every((family) => stands(backEnd, family, network, index, rules)));
}

function stands(
  { forward, nat }: BackEnd,
  family: IpFamily,
  network: LibvirtNetwork,
  index: number | undefined,
  rules: readonly FirewallRule[],
): boolean {
  const of = (table: string, chain: string): FirewallRule[] =>
    rules.filter((rule) => rule.family === family && rule.table === table && rule.chain === chain);
  const leads = (table: string, base: string, chain: string): boolean =>
    of(table, base).some(({ jump }) => jump === chain);
  const names = bridgeNames(network.bridge ?? '', index);
  const forwards = forward.chains.every(
    (chain) =>
      leads(forward.table, forward.base, chain) &&
      of(forward.table, chain).some(({ constants }) => constants.some((value) => names.has(value))),
  );
  if (!forwards || network.forward.mode !== 'nat' || family !== 4) return forwards;
  const addresses = network.prefixes.flatMap(({ address }) =>
    address.family === 4 ? [toHex(addressToBytes(address))] : [],
  );
  return (
    (nat.base === undefined || leads(nat.table, nat.base, nat.chain)) &&
    // Of whole bytes of a prefix only those are compared.
    of(nat.table, nat.chain).some(({ constants }) =>
      constants.some((value) => value !== '' && addresses.some((address) => address.startsWith(value))),
    )
  );
}

/** Length of the name of an interface in the kernel, its end included. */
const IFNAMSIZ = 16;

/** How rules name a bridge: by its index, or its name with its end or filled up. */
function bridgeNames(bridge: string, index: number | undefined): ReadonlySet<string> {
  const name = toHex(utf8(`${bridge}\0`));
  const names = [name, name.padEnd(2 * IFNAMSIZ, '0')];
  if (index !== undefined) names.push(toHex(new Uint8Array(Uint32Array.of(index).buffer)));
  return new Set(names);
}
