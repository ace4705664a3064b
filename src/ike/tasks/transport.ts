/**
 * Transport mode in the negotiation of a CHILD SA: selectors are of the two ends themselves, and where a NAT stands
 * between them each side has to say them as it sees them (RFC 7296 §1.3.1, §2.23.1).
 */
import { formatAddress, type IpAddress, sameAddress } from '../../base/address.ts';
import { formatSelectors, type SelectorPair } from '../../policy/selector.ts';
import { hostsOf, type TransportHosts, withHost } from '../../policy/transport.ts';
import type { ChildConfig } from '../config.ts';
import type { IkeSession } from '../session/session.ts';

/** What a CHILD SA carries. */
export interface AgreedTraffic {
  readonly selectors: SelectorPair;
  /** In transport mode. */
  readonly transport: TransportHosts | undefined;
}

/** RFC 7296 §2.23.1: selectors as the peer told them, with the addresses that a NAT changed as they are here. */
export function asSeenHere({ nat, path }: IkeSession, { local, remote }: SelectorPair): SelectorPair {
  return {
    local: nat.localBehindNat ? withHost(local, path.local.address) : local,
    remote: nat.remoteBehindNat ? withHost(remote, path.remote.address) : remote,
  };
}

/**
 * Checks what was agreed on against the mode.
 * @param told the selectors as the peer told them
 * @returns a text when it cannot be in transport mode
 */
export function agreeTraffic(
  session: IkeSession,
  { mode, name }: ChildConfig,
  selectors: SelectorPair,
  told: SelectorPair,
): AgreedTraffic | string {
  if (mode === 'tunnel') return { selectors, transport: undefined };
  const hosts = hostsOf(selectors);
  const { local, remote } = session.path;
  if (hosts === undefined || !isEnd(hosts.local, local.address) || !isEnd(hosts.remote, remote.address)) {
    const ends = `${formatAddress(local.address)} and ${formatAddress(remote.address)}`;
    const agreed = `local ${formatSelectors(selectors.local)}, remote ${formatSelectors(selectors.remote)}`;
    return `child ${name} is in transport mode, so its selectors must be the two end points, ${ends}, not ${agreed}`;
  }
  return { selectors, transport: { ...hosts, asPeerHasThem: hostsOf(told) ?? hosts } };
}

/** Where sockets cannot tell the local address, any is taken for it. */
function isEnd(host: IpAddress, end: IpAddress): boolean {
  return sameAddress(host, end) || (end.value === 0n && end.family === host.family);
}
