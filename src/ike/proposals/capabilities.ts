/** Capabilities that a peer asks for and this implementation lacks: reported, so that the cause is not sought elsewhere. */
import { ConfigAttribute, ConfigType, NotifyType } from '../wire/iana.ts';
import type { Payload } from '../wire/payload.ts';

/** What it is, and what to do. */
const CAPABILITIES = {
  ppk:
    'a post-quantum pre-shared key (PPK, RFC 8784), which is not supported: a peer that requires one refuses us; ' +
    'let it do without',
  address:
    'a virtual address (configuration payload, RFC 7296 §2.19), which is not supported: give it an address of its own that ' +
    'the policy protects, and let it ask for none',
  compression: 'compression (IPComp, RFC 7296 §2.22), which is not supported: packets are sent uncompressed',
  wrapped: 'wrapped ESP (WESP, RFC 5840), which is not supported: plain ESP is used',
  aggregation: 'aggregation of packets (AGGFRAG, RFC 9347), which is not supported: plain ESP is used',
} as const;

/** Of a peer that leaves AUTH out of IKE_AUTH (RFC 7296 §2.16). */
export const WANTS_EAP: string =
  'the peer wants to authenticate with EAP (it sent no AUTH payload), which is not supported: ' +
  'let it use a pre-shared key or a certificate';

const BY_NOTIFY: ReadonlyMap<number, keyof typeof CAPABILITIES> = new Map([
  [NotifyType.USE_PPK, 'ppk'],
  [NotifyType.USE_PPK_INT, 'ppk'],
  [NotifyType.IPCOMP_SUPPORTED, 'compression'],
  [NotifyType.USE_WESP_MODE, 'wrapped'],
  [NotifyType.USE_AGGFRAG, 'aggregation'],
]);

const ADDRESSES: readonly number[] = [ConfigAttribute.INTERNAL_IP4_ADDRESS, ConfigAttribute.INTERNAL_IP6_ADDRESS];

/** Notifies that `capabilitiesAsked` knows. */
export const CAPABILITY_NOTIFIES: readonly number[] = [...BY_NOTIFY.keys()];

/** Each once, in words. */
export function capabilitiesAsked(payloads: readonly Payload[]): string[] {
  const found = payloads.flatMap((payload): (keyof typeof CAPABILITIES)[] => {
    if (payload.type === 'notify') {
      const capability = BY_NOTIFY.get(payload.notify);
      return capability === undefined ? [] : [capability];
    }
    if (payload.type !== 'cp' || payload.configType !== ConfigType.REQUEST) return [];
    return payload.attributes.some(({ type }) => ADDRESSES.includes(type)) ? ['address'] : [];
  });
  return [...new Set(found)].map((capability) => CAPABILITIES[capability]);
}
