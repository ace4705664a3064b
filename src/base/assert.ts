/** Errors that mean a bug of our own, never a peer's or a user's mistake. */

/** Ends an exhaustive `switch`: a compile error when a member was forgotten, a thrown bug report when a cast lied. */
export function assertNever(value: never, where: string): never {
  throw new Error(`bug: ${where}: unexpected ${nameOf(value)}`);
}

/** Never the value itself when it is an object: it may hold keys. */
function nameOf(value: unknown): string {
  if (typeof value !== 'object' || value === null) return String(value);
  const { type, kind, name } = value as { type?: unknown; kind?: unknown; name?: unknown };
  return String(type ?? kind ?? name ?? 'object');
}

/** Throws when an internal invariant does not hold. */
export function invariant(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(`bug: ${what}`);
}

const OF_THE_LANGUAGE = [TypeError, RangeError, ReferenceError, SyntaxError];

/** Whether what was thrown means a bug: what the language throws, or what says so. All else of ours is a sentence for people. */
export function isBug(error: unknown): boolean {
  if (!(error instanceof Error) || error.message.startsWith('bug: ')) return true;
  return OF_THE_LANGUAGE.some((kind) => error instanceof kind);
}
