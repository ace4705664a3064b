/** The errors that a person can act on, with a code that a program can act on. */
export type ErrorCode =
  /** The request itself is malformed: an unknown verb, a missing parameter. */
  | 'bad-request'
  /** The document or secret was refused. */
  | 'bad-document'
  /** No tunnel or secret of that name. */
  | 'not-found'
  /** The object is not in a state for this (already active, not active, name taken …). */
  | 'invalid-state'
  /** Understood, but not something that this version does. */
  | 'unsupported'
  /** The system refused: a device, an address, a file. */
  | 'system'
  /** The control socket has no room for the connection, or waited too long for it; to be tried again. */
  | 'busy'
  /** A bug. */
  | 'internal';

/** A refusal that is reported to whoever asked; `message` says what was found, what was wanted and what to change. */
export class SectunnelError extends Error {
  override readonly name = 'SectunnelError';
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
  }
}
