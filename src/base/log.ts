/**
 * The log interface that every layer may be handed. Shaped so that a pino logger satisfies it as it is.
 *
 * Fields carry facts (names, addresses, counts); never keys, secrets or whole packets.
 */
export interface Logger {
  trace(fields: object, message: string): void;
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** A logger that keeps nothing: the default of the library. */
export const silentLogger: Logger = {
  trace: () => undefined,
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};
