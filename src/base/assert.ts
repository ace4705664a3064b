/** Errors that mean a bug of our own, never a peer's or a user's mistake. */

/** Ends an exhaustive `switch`: a compile error when a member was forgotten, a thrown bug report when a cast lied. */
export function assertNever(value: never, where: string): never {
  throw new Error(`bug: ${where}: unexpected ${JSON.stringify(value)}`);
}

/** Throws when an internal invariant does not hold. */
export function invariant(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(`bug: ${what}`);
}
