/** Gives native memory back when its owner is wiped, or, if nothing wiped the owner, when it is garbage-collected. */

const registry = new FinalizationRegistry<() => void>((release) => release());

/**
 * Calls `release` at most once: when the returned function is called, or after `owner` was collected. `release` must not
 * refer to `owner`.
 */
export function releaseOnce(owner: object, release: () => void): () => void {
  const token = {};
  registry.register(owner, release, token);
  let released = false;
  return () => {
    if (released) return;
    released = true;
    registry.unregister(token);
    release();
  };
}
