/**
 * Every default of a document, in one place. `dump` writes them out, so that a definition keeps its meaning when
 * a default changes later. Only the MTU has none: it is that of the path when a tunnel
 * starts.
 */
import { utf8 } from '../base/text.ts';
import { defaultEspProposals, defaultIkeProposals } from '../crypto/algorithms.ts';
import type { EspProposal, IkeProposal } from '../crypto/proposal.ts';
import type { DeviceSettings, IkeSettings, LifetimeSettings, NatSettings, TfcSettings } from './model.ts';

export const DEFAULT_ROUTES: DeviceSettings['routes'] = 'auto';
export const DEFAULT_IPV6: DeviceSettings['ipv6'] = 'pass';
export const DEFAULT_IKE_PROPOSALS: readonly IkeProposal[] = defaultIkeProposals;
export const DEFAULT_ESP_PROPOSALS: readonly EspProposal[] = defaultEspProposals;
export const DEFAULT_REPLAY_WINDOW = 1024;

/** RFC 4301 §5.1.2.1: copied, so that the network between treats packets as it would without the tunnel. */
export const DEFAULT_DSCP: number | undefined = undefined;
export const DEFAULT_TFC: TfcSettings = { padding: 'none', size: undefined, dummies: 0 };

/** Seconds, and which part of `hard` lies between `soft` and `hard`; `jitter` is as long. */
export interface LifetimeDefault {
  readonly hard: number;
  readonly marginParts: number;
}

/** Four hours, rekeyed ten to twenty minutes before. */
export const IKE_LIFETIME: LifetimeDefault = { hard: 14_400, marginParts: 24 };
/** One hour, rekeyed five to ten minutes before. */
export const ESP_LIFETIME: LifetimeDefault = { hard: 3_600, marginParts: 12 };

/** Completes a lifetime in the proportions of the default, whichever of the three are given. */
export function completeLifetime(given: Partial<LifetimeSettings>, base: LifetimeDefault): LifetimeSettings {
  const parts = base.marginParts;
  const hard =
    given.hard ??
    (given.soft === undefined ? base.hard : given.soft + Math.max(1, Math.floor(given.soft / (parts - 1))));
  const margin = Math.max(1, Math.floor(hard / parts));
  const soft = given.soft ?? Math.max(1, hard - margin);
  return { soft, hard, jitter: given.jitter ?? Math.max(0, Math.min(margin, soft - 1)) };
}

/** As with setkey's policies a packet triggers the negotiation of its SA; without the peer's address the peer initiates. */
export function defaultStart({ remoteKnown }: { readonly remoteKnown: boolean }): IkeSettings['start'] {
  return remoteKnown ? 'trap' : 'respond';
}

export const DEFAULT_DPD_INTERVAL = 30;

/** A dead peer is treated as the tunnel was started. */
export function defaultDpdAction(start: IkeSettings['start']): IkeSettings['dpd']['action'] {
  const actions = { initiate: 'restart', trap: 'trap', respond: 'clear' } as const;
  return actions[start];
}

/** RFC 7383 §2.5.1: what every path with IPv6 takes. */
export const DEFAULT_FRAGMENT_SIZE = 1280;
/** What every IPv4 host accepts, and the largest IP packet. */
export const FRAGMENT_SIZES = { min: 576, max: 65_535 } as const;

export const DEFAULT_NAT_KEEPALIVE = 20;

/** With a port other than 500 everything is encapsulated; otherwise NAT detection decides. */
export function defaultTraversal({ ownPort }: { readonly ownPort: boolean }): NatSettings['traversal'] {
  return ownPort ? 'force' : 'auto';
}

/** IP protocol 50 needs a privilege, and not every firewall lets it pass: the document must ask for it. */
const DEFAULT_ENCAPSULATION: NatSettings['encapsulation'] = 'always';

export function encapsulationFor(
  traversal: NatSettings['traversal'],
  said: 'always' | 'needed' | undefined,
): NatSettings['encapsulation'] {
  const only = { auto: said ?? DEFAULT_ENCAPSULATION, force: 'always', off: 'never' } as const;
  return only[traversal];
}

/** Bytes of the name of an interface. */
const MAX_INTERFACE_NAME = 15;
/** A device that is called after a UUID. */
const AFTER_UUID = /^stun-[0-9A-V]{10}$/;

/**
 * `stun-NAME`; or `stun-` and ten digits that follow from the UUID where that is no name of an interface, or looks like one of
 * these. Two tunnels can still get the same one: a device has one tunnel, unless the documents say otherwise.
 */
export function defaultDeviceName(name: string, uuid: string): string {
  const wish = `stun-${name}`;
  // To firewalls a `+` stands for any end of a name.
  const fits = wish.length <= MAX_INTERFACE_NAME && !wish.includes('+') && !AFTER_UUID.test(wish);
  return fits ? wish : `stun-${tenDigits(uuid)}`;
}

/**
 * Of all digits of a UUID (FNV-1a, folded to 50 bits): those that are made one after another (UUIDv7), or numbered by hand, begin
 * with the same ones.
 */
function tenDigits(uuid: string): string {
  let hash = 0xcbf2_9ce4_8422_2325n;
  for (const byte of utf8(uuid)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x0100_0000_01b3n);
  return BigInt.asUintN(50, hash ^ (hash >> 50n))
    .toString(32)
    .toUpperCase()
    .padStart(10, '0');
}

export const DEFAULT_PRIORITY = 0;

/** Of the tunnels of a redundancy group, of which the highest is preferred. */
export const DEFAULT_PREFERENCE = 100;
