/**
 * The hosts of an SA in transport mode: its selectors have one address on each side, those of the ends themselves
 * (RFC 4301 §4.1, RFC 7296 §2.23.1).
 */
import { type IpAddress, sameAddress } from '../base/address.ts';
import { makeSelector, type SelectorPair, type TrafficSelector } from './selector.ts';

/** The two hosts that transport mode is between. */
export interface HostPair {
  readonly local: IpAddress;
  readonly remote: IpAddress;
}

/** Who talks to whom in transport mode. */
export interface TransportHosts extends HostPair {
  /**
   * The same addresses as the peer sees them, which differ where a NAT translates: the peer's checksums are over these
   * (RFC 3948 §3.1.2).
   */
  readonly asPeerHasThem: HostPair;
}

/** The address that all selectors of a side have; `undefined` when there is no such. */
export function hostOf(selectors: readonly TrafficSelector[]): IpAddress | undefined {
  const host = selectors[0]?.range.start;
  if (host === undefined) return undefined;
  const same = ({ range }: TrafficSelector): boolean => sameAddress(range.start, host) && sameAddress(range.end, host);
  return selectors.every(same) ? host : undefined;
}

/** The hosts of both sides; `undefined` when a side is not one host. */
export function hostsOf({ local, remote }: SelectorPair): HostPair | undefined {
  const ours = hostOf(local);
  const theirs = hostOf(remote);
  return ours === undefined || theirs === undefined ? undefined : { local: ours, remote: theirs };
}

/** The same selectors with another host, where they are of one host of its family; others are left alone. */
export function withHost(selectors: readonly TrafficSelector[], host: IpAddress): readonly TrafficSelector[] {
  if (hostOf(selectors)?.family !== host.family) return selectors;
  return selectors.map((selector) => makeSelector({ start: host, end: host }, selector.protocol, selector));
}
