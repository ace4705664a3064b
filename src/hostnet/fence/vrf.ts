/**
 * The fence in VRFs. Each is a domain of its own, which may have the addresses of another one, so its packets are shown to the parts of
 * its own tunnels only: maps have the VRF's name before the addresses.
 *
 * The kernel takes the VRF for the link that a packet of its links came by (iif), and keeps the link itself beside it (sdif), which
 * only chains for what is delivered or forwarded can see. The host's own packets pass the hook behind routing twice: first out of the
 * VRF, then out of the link, as if they had come by the VRF. The first time they get `OWN_MARK`, which tells them from forwarded
 * ones; the second time it is taken off.
 *
 * ```text
 *   vrfinput     what is delivered
 *   vrfforward   what is forwarded, as it left and as it arrived
 *   vrfoutput    the host's own, by the link that they leave by
 *   vrfhost      of these, whatever their source
 * ```
 */
import type { IpFamily } from '../../base/address.ts';
import { DEVICE_GROUP } from '../routes/routes.ts';
import { dispatchJumps, mapOf, type Unmapped } from './dispatch.ts';
import type { FencePart } from './fence.ts';
import { add, quoted, TABLE, word } from './nft-words.ts';
import { linkScope } from './tunnel.ts';

/** No bit that Kubernetes or libvirt uses; none of those that the tunnels' rules ask for. */
const OWN_MARK = 0x0080_0000;
const FAMILIES: readonly IpFamily[] = [4, 6];

/** Devices that belong into a VRF: outside of it they carry nothing. */
const DEVICES = 'vrfdevices';
/** As the chains of `host-dispatch.ts`. */
export const VRF_HOST = 'vrfhost';
export const VRF_SHARED = 'vrfshared';
const CHAINS = ['vrfinput', 'vrfforward', 'vrfoutput'] as const;

/** The device of a tunnel in a VRF. */
export function vrfDevice(part: FencePart | undefined): string | undefined {
  return part?.kind === 'tunnel' && part.vrf !== undefined ? part.device : undefined;
}

/** Of base chains: what leads packets of VRFs away from the tunnels of the default domain. */
export const VRF_RULES: Readonly<
  Record<'input' | 'forward' | 'output' | 'fragments' | 'translated', readonly string[]>
> = {
  input: ['meta iifkind "vrf" goto vrfinput', `iifname @${DEVICES} drop`],
  forward: ['meta iifkind "vrf" goto vrfforward', `iifname @${DEVICES} drop`],
  output: [
    `iif 0 meta oifkind "vrf" meta mark set meta mark or ${OWN_MARK} accept`,
    'meta iifkind "vrf" goto vrfoutput',
  ],
  // They came by a link of the VRF before.
  fragments: ['meta iifkind "vrf" accept'],
  translated: ['meta iifkind "vrf" accept', 'meta oifkind "vrf" accept'],
};

export function vrfFoundation(): string[] {
  return [
    ...[...CHAINS, VRF_HOST, VRF_SHARED].flatMap((chain) => [
      `add chain ${TABLE} ${chain}`,
      `flush chain ${TABLE} ${chain}`,
    ]),
    `add set ${TABLE} ${DEVICES} { type ifname; }`,
    `flush set ${TABLE} ${DEVICES}`,
    ...(['vrfout', 'vrfin', 'vrfown', VRF_HOST] as const).flatMap((map) =>
      FAMILIES.flatMap((family) => [
        `add map ${TABLE} ${map}${family} { ${mapOf(family, { ofVrf: true })} }`,
        `flush map ${TABLE} ${map}${family}`,
      ]),
    ),
  ];
}

/** @param unmappable tunnels in VRFs that are in no map */
export function vrfRules(unmappable: readonly Unmapped[]): string[] {
  const out = [...lookUps('vrfout', 'out'), ...unmappable.flatMap((part) => dispatchJumps('vrfout', part))];
  const into = [...lookUps('vrfin', 'in'), ...unmappable.flatMap((part) => dispatchJumps('vrfin', part))];
  const rules = {
    vrfinput: into,
    vrfforward: [...out, ...into],
    vrfoutput: [
      `meta mark and ${OWN_MARK} == 0 accept`,
      `meta mark set meta mark and ${~OWN_MARK >>> 0}`,
      // Its policy decides.
      `oifgroup ${DEVICE_GROUP} accept`,
      ...linkScope(FAMILIES).map((rule) => rule.replace(/return$/, 'accept')),
      ...lookUps('vrfown', 'out'),
      ...unmappable.flatMap((part) => dispatchJumps('vrfown', part)),
      `jump ${VRF_HOST}`,
    ],
  };
  return CHAINS.flatMap((chain) => rules[chain].map((rule) => add(chain, rule)));
}

function lookUps(map: string, direction: 'out' | 'in'): string[] {
  const [first, second] = direction === 'out' ? ['saddr', 'daddr'] : ['daddr', 'saddr'];
  return FAMILIES.map((family) => {
    const name = word(family);
    return `iifname . ${name} ${first} . ${name} ${second} vmap @${map}${family}`;
  });
}

/** @param devices of all tunnels in VRFs */
export function devicesInVrfs(devices: readonly string[]): string[] {
  const names = [...new Set(devices)].map(quoted).join(', ');
  return [`flush set ${TABLE} ${DEVICES}`, ...(names === '' ? [] : [`add element ${TABLE} ${DEVICES} { ${names} }`])];
}
