/** The key exchange of a CREATE_CHILD_SA or IKE_AUTH request, as responder (RFC 7296 §1.3), and what comes of any. */
import { type DhGroup, type DhKeyPair, InvalidPublicValueError } from '../../crypto/types.ts';
import { groupData } from '../proposals/groups.ts';
import type { IkeSession } from '../session/session.ts';
import { NotifyType } from '../wire/iana.ts';
import { findPayload, type Payload } from '../wire/payload.ts';
import { type ChildAnswer, refusal } from './child-answer.ts';

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
  | { readonly ok: true; readonly shared: Uint8Array; readonly payloads: readonly Payload[] }
  | Extract<ChildAnswer, { ok: false }>;

/** Our half of a key exchange as responder, or INVALID_KE_PAYLOAD with the group that we chose (RFC 7296 §1.3). */
export function answerKeyExchange(
  session: IkeSession,
  group: DhGroup,
  payloads: readonly Payload[],
): KeyExchangeAnswer {
  const { env } = session;
  const ke = findPayload(payloads, 'ke');
  if (ke?.group !== group.id) {
    const detail = `group ${group.name} is required`;
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
