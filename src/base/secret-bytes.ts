/**
 * Memory for keys. It can be erased: a key that lies in it is nowhere else once it was overwritten with `fill(0)`.
 *
 * V8 keeps the bytes of a small typed array (at most 64 bytes) in its own heap, where the garbage collector copies them
 * and leaves the old copy until something else is written there: such an array cannot be erased. The memory of an
 * ArrayBuffer lies outside that heap and never moves; only views of it do. So every key is made by one of these functions,
 * and never becomes a string.
 */

/** `length` zeros. */
export function secretBytes(length: number): Uint8Array {
  return new Uint8Array(new ArrayBuffer(length));
}

/** A copy of its own, which has to be erased as well. */
export function secretCopy(bytes: Uint8Array): Uint8Array {
  const copy = secretBytes(bytes.length);
  copy.set(bytes);
  return copy;
}

/** The same bytes in memory that can be erased; `bytes` is erased now. */
export function moveSecret(bytes: Uint8Array): Uint8Array {
  const copy = secretCopy(bytes);
  bytes.fill(0);
  return copy;
}

/** The parts behind one another. */
export function secretConcat(...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.length;
  const all = secretBytes(length);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
