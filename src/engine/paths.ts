/** The paths of ESP packets. */
import { NO_PORT } from '../base/address.ts';
import type { Path } from '../ike/events.ts';
import { samePath } from '../ike/path.ts';

/** The path of ESP between the end points of an IKE SA: the same one in UDP, one without ports as IP protocol 50. */
export function espPath({ path: ike, encapsulated }: { readonly path: Path; readonly encapsulated: boolean }): Path {
  if (encapsulated) return ike;
  const { local, remote } = ike;
  return { local: { ...local, port: NO_PORT }, remote: { ...remote, port: NO_PORT } };
}

/**
 * Whether a packet that came by another path than its SA's shows that the peer moved. Only a NAT moves a peer without
 * notice, and only UDP passes a NAT (RFC 7296 §2.23); other moves IKE announces.
 */
export function hasMoved(known: Path, seen: Path): boolean {
  return known.remote.port !== NO_PORT && seen.remote.port !== NO_PORT && !samePath(known, seen);
}

/** Whether a packet came directly over IP although its SA's packets go in UDP: it is taken all the same (RFC 7296 §2.23). */
export function isBare(known: Path, seen: Path): boolean {
  return known.remote.port !== NO_PORT && seen.remote.port === NO_PORT;
}
