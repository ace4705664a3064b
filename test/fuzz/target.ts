/** What a fuzz target is, and how it says that something is wrong. */

export interface Target {
  readonly name: string;
  /** How inputs are changed: as bytes, as a list of frames (`frames.ts`), as text, or as DER behind one byte. */
  readonly shape: 'bytes' | 'frames' | 'text' | 'der';
  /** Longest input in bytes. */
  readonly maxLength: number;
  /** Words that are put into inputs. */
  readonly tokens: readonly Uint8Array[];
  /** Valid inputs, from the builders of the tests: the same in each process. */
  seeds(): readonly Uint8Array[];
  /** Throws when something that must hold does not: whatever it throws is a finding. */
  run(input: Uint8Array): void | Promise<void>;
}

/** Something that must hold does not. */
export class Broken extends Error {
  override readonly name = 'Broken';
}

/** @throws Broken */
export function holds(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Broken(what);
}

/**
 * What `read` returns; `undefined` when it refuses with an error of the declared kind. Any other error is a finding.
 * @param isDeclared whether the interface says that it throws such an error
 */
export function unlessRefused<T>(read: () => T, isDeclared: (error: unknown) => boolean): T | undefined {
  try {
    return read();
  } catch (error) {
    if (!isDeclared(error)) throw error;
    return undefined;
  }
}
