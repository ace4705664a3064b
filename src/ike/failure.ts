/** Error notifies (RFC 7296 §3.10.1) and our own reasons as one kind of thing. */
import type { FailureReason } from './events.ts';
import { isErrorNotify, NotifyType, notifyName } from './iana.ts';
import type { Payload } from './payload.ts';
import type { NotifyPayload } from './payloads/notify.ts';

/** Why an attempt ended, and for a person what was found and wanted. */
export interface Failure {
  readonly reason: FailureReason;
  readonly detail: string;
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

/** A failure that the peer told of. */
export function failureFrom(notify: NotifyPayload, said: string): Failure {
  return { reason: reasonOf(notify.notify), detail: `the peer answered ${notifyName(notify.notify)}: ${said}` };
}

/** The peer did what RFC 7296 does not allow. */
export function misbehaved(detail: string): Failure {
  return { reason: 'peer-misbehaved', detail };
}
