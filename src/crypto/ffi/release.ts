/** Native memory is given back when its owner is wiped, or, where somebody forgot that, when the owner is collected. */

const registry = new FinalizationRegistry<() => void>((release) => release());

/** Calls `release` once at most: by the returned function, or when `owner` is gone. `release` must not refer to `owner`. */
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
