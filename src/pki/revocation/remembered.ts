/**
 * What was fetched, for as long as it holds; what could not be had, for a short while. Nothing is fetched twice at once, and
 * what cannot be renewed is used on for as long as it says that it holds.
 */

/** How long it is not tried again after it was in vain, milliseconds. */
const RETRY_AFTER = 30_000;
/** Fetched at the same time; there is one for each peer that is just authenticating, at most. */
const MAX_LOADING = 256;

export interface Loaded<T> {
  readonly value: T;
  /** Milliseconds since 1970: fetched anew after that, not used any more after that. */
  readonly freshUntil: number;
  readonly usableUntil: number;
  /** Of the memory that it takes. */
  readonly bytes: number;
}

type Entry<T> = { readonly since: number; readonly freshUntil: number } & (
  | { readonly loaded: Loaded<T> }
  | { readonly loaded: undefined; readonly error: unknown }
);

export class Remembered<T> {
  readonly #maxEntries: number;
  readonly #maxBytes: number;
  /** The last used last. BOUNDED: #maxEntries, #maxBytes in all. */
  readonly #entries = new Map<string, Entry<T>>();
  /** BOUNDED: MAX_LOADING. */
  readonly #loading = new Map<string, Promise<T>>();
  #bytes = 0;

  constructor(maxEntries: number, maxBytes: number) {
    this.#maxEntries = maxEntries;
    this.#maxBytes = maxBytes;
  }

  /** @param now milliseconds since 1970. The promise is rejected with what `load` was rejected with last. */
  get(key: string, now: number, load: () => Promise<Loaded<T>>): Promise<T> {
    const entry = this.#entries.get(key);
    // A clock that was set back makes nothing last longer.
    if (entry !== undefined && now >= entry.since && now < entry.freshUntil) {
      this.#entries.delete(key);
      this.#entries.set(key, entry);
      return entry.loaded === undefined ? Promise.reject(entry.error) : Promise.resolve(entry.loaded.value);
    }
    const loading = this.#loading.get(key);
    if (loading !== undefined) return loading;
    if (this.#loading.size >= MAX_LOADING) return Promise.reject(new Error('too much is being fetched already'));
    const begun = this.#load(key, now, load).finally(() => this.#loading.delete(key));
    this.#loading.set(key, begun);
    return begun;
  }

  async #load(key: string, now: number, load: () => Promise<Loaded<T>>): Promise<T> {
    try {
      const loaded = await load();
      this.#keep(key, { since: now, freshUntil: loaded.freshUntil, loaded });
      return loaded.value;
    } catch (error) {
      const { loaded } = this.#entries.get(key) ?? {};
      const times = { since: now, freshUntil: now + RETRY_AFTER };
      if (loaded === undefined || now >= loaded.usableUntil) {
        this.#keep(key, { ...times, loaded: undefined, error });
        throw error;
      }
      this.#keep(key, { ...times, loaded });
      return loaded.value;
    }
  }

  #keep(key: string, entry: Entry<T>): void {
    this.#drop(key);
    this.#entries.set(key, entry);
    this.#bytes += entry.loaded?.bytes ?? 0;
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= this.#maxEntries && this.#bytes <= this.#maxBytes) break;
      this.#drop(oldest);
    }
  }

  #drop(key: string): void {
    this.#bytes -= this.#entries.get(key)?.loaded?.bytes ?? 0;
    this.#entries.delete(key);
  }
}
