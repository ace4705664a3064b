/** Groups of a key exchange: the next one to try after INVALID_KE_PAYLOAD (RFC 7296 §1.2, §1.3). */
import type { DhGroup } from '../../crypto/types.ts';
import type { NotifyPayload } from '../wire/payloads/notify.ts';

/** Groups that an initiator may still try. Each is tried once, so that forged or confused answers cannot go on for ever. */
export class GroupChoice {
  readonly #tried = new Set<number>();

  /** The group that the peer asks for in place of `used`, if it was offered and was not tried yet. */
  next(
    { data }: NotifyPayload,
    used: DhGroup,
    offered: readonly { readonly dh: readonly DhGroup[] }[],
  ): DhGroup | undefined {
    this.#tried.add(used.id);
    if (data.length !== 2) return undefined;
    const id = (data[0]! << 8) | data[1]!;
    if (this.#tried.has(id)) return undefined;
    return offered.flatMap(({ dh }) => dh).find((group) => group.id === id);
  }
}

/** The data of INVALID_KE_PAYLOAD: the group that is wanted. */
export function groupData({ id }: DhGroup): Uint8Array {
  return Uint8Array.of(id >>> 8, id);
}
