/** Error notifies (RFC 7296 §3.10.1) and our own reasons as one kind of thing. */
import type { FailureReason } from './events.ts';
import { isErrorNotify, NotifyType, notifyName } from './wire/iana.ts';
import type { Payload } from './wire/payload.ts';
import type { NotifyPayload } from './wire/payloads/notify.ts';

/** Why an attempt ended, and for a person what was found and wanted. */
export interface Failure {
  readonly reason: FailureReason;
  readonly detail: string;
  /** The next attempt goes another way, so that there is nothing to wait for. */
  readonly again?: boolean;
}

const REASONS: ReadonlyMap<number, FailureReason> = new Map<number, FailureReason>(
  (
    [
      'NO_PROPOSAL_CHOSEN',
      'INVALID_KE_PAYLOAD',
      'AUTHENTICATION_FAILED',
      'TS_UNACCEPTABLE',
      'SINGLE_PAIR_REQUIRED',
      'NO_ADDITIONAL_SAS',
      'INTERNAL_ADDRESS_FAILURE',
      'FAILED_CP_REQUIRED',
      'INVALID_SYNTAX',
      'INVALID_MAJOR_VERSION',
      'INVALID_SELECTORS',
      'UNSUPPORTED_CRITICAL_PAYLOAD',
      'TEMPORARY_FAILURE',
      'CHILD_SA_NOT_FOUND',
    ] as const
  ).map((name) => [NotifyType[name], name]),
);

/** The reason that an error notify gives. */
export function reasonOf(notify: number): FailureReason {
  return REASONS.get(notify) ?? 'other-error-notify';
}

/** The first error notify of a message. */
export function findError(payloads: readonly Payload[]): NotifyPayload | undefined {
  return payloads.find(
    (payload): payload is NotifyPayload => payload.type === 'notify' && isErrorNotify(payload.notify),
  );
}

/** What was refused: the IKE SA itself, one that is refused for its CHILD SA, or what we proved ourselves with. */
export type Refused = 'ike-sa' | 'child' | 'psk' | 'signature';

const NOT_OURS = 'or it requires another authentication method, such as EAP';

/** What a refusal may mean: the peer says no more than its name (RFC 7296 §3.10.1). */
const MEANINGS: Partial<Record<FailureReason, string | Partial<Record<Refused, string>>>> = {
  NO_PROPOSAL_CHOSEN: {
    'ike-sa': 'it supports none of these proposals, or it has no connection for these addresses',
    child: 'it accepts our IKE proposals, but none of these ESP proposals, or not this mode',
  },
  INVALID_KE_PAYLOAD: 'it accepts the ciphers, but none of the key exchange groups',
  AUTHENTICATION_FAILED: {
    psk: `the keys differ, or the peer expects another identity of us, ${NOT_OURS}`,
    signature: `it does not trust our certificate, or it expects another identity of us, ${NOT_OURS}`,
  },
  INTERNAL_ADDRESS_FAILURE: 'it assigns virtual addresses and has none left; we did not ask for one',
  FAILED_CP_REQUIRED:
    'it requires us to request a virtual address (RFC 7296 §3.15), which is not supported: let it accept the ranges of this document',
  TS_UNACCEPTABLE: 'it protects none of this traffic: its ranges, protocols or ports differ',
  SINGLE_PAIR_REQUIRED: 'it accepts one pair of addresses in each CHILD SA',
  NO_ADDITIONAL_SAS: 'it accepts no more CHILD SAs on this IKE SA',
};

/** A failure that the peer notified. */
export function failureFrom(notify: NotifyPayload, said: string, refused: Refused): Failure {
  const reason = reasonOf(notify.notify);
  const known = MEANINGS[reason];
  const meaning = typeof known === 'object' ? known[refused] : known;
  const detail = `the peer answered ${notifyName(notify.notify)}: ${said}`;
  return { reason, detail: meaning === undefined ? detail : `${detail}\nwhich may mean: ${meaning}` };
}

/** The peer did what RFC 7296 does not allow. */
export function misbehaved(detail: string): Failure {
  return { reason: 'peer-misbehaved', detail };
}
