/** Comparison of paths. */
import { sameSocketAddress } from '../base/address.ts';
import type { Path } from './events.ts';

export function samePath(a: Path, b: Path): boolean {
  return sameSocketAddress(a.remote, b.remote) && sameSocketAddress(a.local, b.local);
}
