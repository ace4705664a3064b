/** Resolves host names as other programs of this host do. */

import { lookup } from 'node:dns/promises';
import { type IpAddress, type IpFamily, parseAddress } from '../base/address.ts';
import { SectunnelError } from '../base/error.ts';

/** By `getaddrinfo`: /etc/hosts, then name servers. A `Resolver` for `planTunnel`. @throws Error when there is no such address */
export async function systemResolver(name: string, family: IpFamily | undefined): Promise<IpAddress> {
  const { address } = await lookup(name, { family: family ?? 0 });
  const parsed = parseAddress(address);
  if (parsed === undefined)
    throw new SectunnelError('system', `${address} holds on one link only and cannot be the end of a tunnel`);
  return parsed;
}
