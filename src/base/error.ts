/** The errors that a person can act on, with a code that a program can act on. */

/** What kind of refusal a {@link SectunnelError} is. New kinds may be added; none changes its meaning. */
export type ErrorCode =
  /** The request itself is malformed: an unknown verb, a missing parameter. */
  | 'bad-request'
  /** The document or secret was refused. */
  | 'bad-document'
  /** A certificate, a revocation list or a proposal that is not well formed, or must not be worked with. */
  | 'malformed'
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

/**
 * A refusal; `message` says, for a person, what was found, what was wanted and what to change.
 *
 * @example
 * ```ts
 * try {
 *   await host.add(tunnel, device);
 * } catch (error) {
 *   if (!(error instanceof SectunnelError) || error.code !== 'system') throw error;
 *   console.error(error.message); // UDP 0.0.0.0:500: … Another program has the port …
 * }
 * ```
 */
export class SectunnelError extends Error {
  override readonly name: string = 'SectunnelError';
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
  }
}
