/** Places for half-open SAs, counted by the source of each and by the networks around it; and which one gives way. */
import type { IpAddress } from '../../base/address.ts';
import type { IkeSession } from '../session/session.ts';

/** What a source is counted by, and how many places all that share it may have. */
export interface Level {
  readonly key: string;
  readonly most: number;
}

export class Places {
  readonly #capacity: number;
  readonly #levelsOf: (address: IpAddress) => readonly Level[];
  /** With the keys of each, from the widest network to the source itself; the oldest first. BOUNDED: the capacity. */
  readonly #entries = new Map<IkeSession, readonly string[]>();
  /** BOUNDED: one for each key of an entry. */
  readonly #counts = new Map<string, number>();
  /** Places of the most crowded of the widest networks; `undefined` when it has to be looked for. */
  #mostCrowded: number | undefined;

  /** @param levelsOf from the widest network of an address to what counts as one source */
  constructor(capacity: number, levelsOf: (address: IpAddress) => readonly Level[]) {
    this.#capacity = capacity;
    this.#levelsOf = levelsOf;
  }

  get size(): number {
    return this.#entries.size;
  }

  get isFull(): boolean {
    return this.size >= this.#capacity;
  }

  ofSource(address: IpAddress): number {
    return this.#count(this.#levelsOf(address).at(-1)!.key);
  }

  /** The widest network of an address, or its source, that has all places that it may have. */
  spentShare(address: IpAddress): string | undefined {
    return this.#levelsOf(address).find(({ key, most }) => this.#count(key) >= most)?.key;
  }

  /** Whether the network of an address would still have fewer places than the most crowded one with one more. */
  isLessCrowded(address: IpAddress): boolean {
    this.#mostCrowded ??= Math.max(0, ...[...this.#entries.values()].map(([widest]) => this.#count(widest!)));
    return this.#count(this.#levelsOf(address)[0]!.key) + 1 < this.#mostCrowded;
  }

  add(session: IkeSession): void {
    const keys = this.#levelsOf(session.askedFrom.remote.address).map(({ key }) => key);
    this.#entries.set(session, keys);
    for (const key of keys) this.#counts.set(key, this.#count(key) + 1);
    this.#mostCrowded = undefined;
  }

  drop(session: IkeSession): void {
    const keys = this.#entries.get(session);
    if (keys === undefined) return;
    this.#entries.delete(session);
    for (const key of keys) {
      const left = this.#count(key) - 1;
      if (left > 0) this.#counts.set(key, left);
      else this.#counts.delete(key);
    }
    this.#mostCrowded = undefined;
  }

  /**
   * The SA that gives way: of the most crowded network, in it of the most crowded part, one that failed already, or else
   * a random one of the older half. Called for a table that is not empty.
   * @param within only SAs that are counted by this key
   * @param draw a random number below its argument
   */
  pick(within: string | undefined, draw: (below: number) => number): IkeSession {
    let rest = [...this.#entries];
    if (within !== undefined) rest = rest.filter(([, keys]) => keys.includes(within));
    const levels = Math.max(...rest.map(([, keys]) => keys.length));
    for (let level = 0; level < levels; level++) {
      const countOf = ([, keys]: (typeof rest)[number]): number => this.#count(keys[level] ?? keys.at(-1)!);
      const most = Math.max(...rest.map(countOf));
      rest = rest.filter((entry) => countOf(entry) === most);
    }
    const failed = rest.filter(([{ state }]) => state.name === 'closed');
    const choice = failed.length > 0 ? failed : rest.slice(0, Math.ceil(rest.length / 2));
    return choice[draw(choice.length)]![0];
  }

  #count(key: string): number {
    return this.#counts.get(key) ?? 0;
  }
}
