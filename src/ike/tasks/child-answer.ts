/** How an offer of a CHILD SA is answered or refused, and what its peer may have of inner addresses (RFC 7296 §2.9, §3.10.1). */
import type { SelectorPair } from '../../policy/selector.ts';
import type { ChildConfig } from '../config.ts';
import type { Failure } from '../failure.ts';
import type { AgreedChild } from '../session/agreed-child.ts';
import type { Claim } from '../session/registry.ts';
import type { IkeSession } from '../session/session.ts';
import { NotifyType } from '../wire/iana.ts';
import type { Payload } from '../wire/payload.ts';
import { type NotifyPayload, notifyPayload } from '../wire/payloads/notify.ts';

export type ChildAnswer =
  | { readonly ok: true; readonly child: AgreedChild; readonly payloads: readonly Payload[] }
  | {
      readonly ok: false;
      readonly notify: NotifyPayload;
      readonly failure: Failure;
      /** The child that comes closest to what was offered; `undefined` when none does. */
      readonly config?: ChildConfig | undefined;
    };

/** Refuses what belongs to other peers: for now, while an owner is being probed. */
export function refuseClaim({ conflict, undecided }: Claim, config: ChildConfig): ChildAnswer {
  const answer = undecided
    ? refusal(NotifyType.TEMPORARY_FAILURE, 'TEMPORARY_FAILURE', `${conflict}; the owner is being probed`)
    : refusal(NotifyType.TS_UNACCEPTABLE, 'TS_UNACCEPTABLE', conflict);
  return { ...answer, config };
}

export function refusal(
  notify: number,
  reason: Failure['reason'],
  detail: string,
  data?: Uint8Array,
): Extract<ChildAnswer, { ok: false }> {
  return { ok: false, notify: notifyPayload(notify, data), failure: { reason, detail } };
}

/** The other owners of what the peer chose, where any identity is taken; overlaps of named peers are configured. */
export function conflictOf(session: IkeSession, now: number, { name }: ChildConfig, selectors: SelectorPair): string {
  if (session.connectionConfig?.remote.id !== undefined) return '';
  return session.registry.claim(session, now, name, selectors).conflict;
}
