/** Key exchanges: our half as responder, and the next group after INVALID_KE_PAYLOAD as initiator (RFC 7296 §1.2, §1.3). */
import { type DhGroup, type DhKeyPair, InvalidPublicValueError } from '../../crypto/types.ts';
import type { IkeSession } from '../session/session.ts';
import { NotifyType } from '../wire/iana.ts';
import { findPayload, type Payload } from '../wire/payload.ts';
import type { NotifyPayload } from '../wire/payloads/notify.ts';
import { type ChildAnswer, refusal } from './child-answer.ts';

/** Groups that an initiator may still try. A forged or confused peer cannot make it go round in circles. */
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

/** `undefined` when the peer's public value is not valid. */
export function deriveShared(keyPair: DhKeyPair, publicValue: Uint8Array): Uint8Array | undefined {
  try {
    return keyPair.derive(publicValue);
  } catch (error) {
    if (error instanceof InvalidPublicValueError) return undefined;
    throw error;
  }
}

type KeyExchangeAnswer =
  | { readonly ok: true; readonly shared: Uint8Array | undefined; readonly payloads: readonly Payload[] }
  | Extract<ChildAnswer, { ok: false }>;

/** Our half of a key exchange as responder, or INVALID_KE_PAYLOAD with the group that we chose (RFC 7296 §1.3). */
export function answerKeyExchange(
  session: IkeSession,
  group: DhGroup | undefined,
  payloads: readonly Payload[],
): KeyExchangeAnswer {
  if (group === undefined) return { ok: true, shared: undefined, payloads: [] };
  const { env } = session;
  const ke = findPayload(payloads, 'ke');
  if (ke?.group !== group.id) {
    const detail = `group ${group.name} is wanted`;
    return refusal(NotifyType.INVALID_KE_PAYLOAD, 'INVALID_KE_PAYLOAD', detail, groupData(group));
  }
  const keyPair = env.crypto.dhKeyPair(group, env.random);
  const shared = deriveShared(keyPair, ke.data);
  keyPair.wipe();
  if (shared === undefined) {
    env.count('invalid-key-exchange');
    return refusal(
      NotifyType.INVALID_SYNTAX,
      'INVALID_SYNTAX',
      `the peer's public value for ${group.name} is not valid`,
    );
  }
  return { ok: true, shared, payloads: [{ type: 'ke', group: group.id, data: keyPair.publicValue }] };
}
