/**
 * What a tunnel does for a network of libvirt that it holds, and when it cannot. Pure: `networks.ts` puts it into practice.
 */
import type { SectunnelDocument } from '../../config/model.ts';
import type { FencePart } from '../../hostnet/fence/fence.ts';
import type { RoutingPlan } from '../../hostnet/steering/plan.ts';
import { tunnelFence } from '../../hostnet/steering/tunnel-fence.ts';
import { type LibvirtNetwork, type NetworkPin, pinProblem } from '../../libvirt/network.ts';
import { devicePlan } from '../../plan/device.ts';

/** What of a tunnel concerns the networks that it holds, whether it runs or not. */
export interface HoldingTunnel {
  readonly document: SectunnelDocument;
  readonly device: string;
  /** What leads into it; `undefined` when that is left to others, or happens in another network namespace or a VRF. */
  readonly routing: RoutingPlan | undefined;
}

export function holdingTunnel(document: SectunnelDocument): HoldingTunnel {
  const { address } = document.sa.remote;
  const { name, routing, netns, vrf } = devicePlan(document, 0, address.kind === 'ip' ? address.address : undefined);
  return { document, device: name, routing: (netns ?? vrf) === undefined ? routing : undefined };
}

/** A network that names a tunnel. */
export type BridgedNetwork = LibvirtNetwork & { readonly bridge: string; readonly pin: NetworkPin };

/** `undefined` for a network that no tunnel holds. */
export function bridged({ pin, bridge, ...network }: LibvirtNetwork): BridgedNetwork | undefined {
  return pin === undefined || bridge === undefined ? undefined : { ...network, pin, bridge };
}

/** Parts of a network in the fence. */
export const FENCE_KEYS = ['network', 'network-policy', 'network-addresses'] as const;
export type FenceKey = (typeof FENCE_KEYS)[number];

/**
 * Of a tunnel that is not known, no policy says what may pass: nothing does.
 * @param unruled libvirt's own rules for the network are gone; without them nothing else passes either
 */
export function fenceParts(
  { bridge, pin, forward }: BridgedNetwork,
  tunnel: HoldingTunnel | undefined,
  { unruled }: { readonly unruled: boolean },
): Partial<Record<FenceKey, FencePart>> {
  const { device, routing } = tunnel ?? {};
  const devices = device === undefined ? [] : [device];
  if (pin.mode === 'exclusive' || device === undefined || routing === undefined) {
    return { network: { kind: 'bridge', bridge, devices, closed: true, dns: false } };
  }
  return {
    network: { kind: 'bridge', bridge, devices, closed: unruled, dns: true },
    'network-policy': tunnelFence(routing, device, { isOfGuests: () => true }),
    ...(forward.mode === 'nat' ? { 'network-addresses': { kind: 'untranslated', bridge, device } } : {}),
  };
}

/** Why a tunnel cannot hold a network, or would let its packets out in the clear; `undefined` when it can. */
export function unfit(network: BridgedNetwork, { document, device, routing }: HoldingTunnel): string | undefined {
  const problem = pinProblem(network, device);
  if (problem !== undefined) return problem;
  if (routing === undefined) {
    const { netns, vrf } = document.device;
    const place = vrf === undefined ? "routes='none'" : `vrf='${vrf}'`;
    const what = netns === undefined ? place : `netns='${netns}'`;
    return `packets cannot be routed into tunnel '${document.name}', whose <device> says ${what}; leave that out`;
  }
  if (network.pin.mode !== 'exclusive') return undefined;
  const rules = document.sps.flatMap(({ policies }) =>
    policies.flatMap((policy) => (policy.action === 'ipsec' ? [policy.rule] : [])),
  );
  const lax = rules.find(({ level }) => level.kind === 'use');
  return (
    lax &&
    `tunnel '${document.name}' has level='use' on line ${lax.line}, which sends packets in the clear while there is no SA; write level='require'`
  );
}
