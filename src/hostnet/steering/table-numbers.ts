/** The numbers of routing tables: each owner asks for one, and gets the next that no other has. Pure. */
import { SectunnelError } from '../../base/error.ts';
import { utf8 } from '../../base/text.ts';
import type { TableWish } from './plan.ts';

/** Tables of a tunnel's own, and tables that tunnels share. Each kind has 65,536 numbers. */
const OWN_TABLES = 0x5354_0000;
const SHARED_TABLES = 0x5353_0000;
const MASK = 0xffff;

export class TableNumbers {
  /** BOUNDED: by the tunnels. */
  readonly #numbers = new Map<string, number>();
  readonly #owners = new Map<number, string>();
  readonly #isTaken: (table: number) => boolean;

  /** @param isTaken whether a document names the number */
  constructor(isTaken: (table: number) => boolean) {
    this.#isTaken = isTaken;
  }

  /**
   * The number of a tunnel's own table: what its document says, or else one that follows from its name. So what a daemon
   * before this one left is found again.
   * @throws SectunnelError when all are taken
   */
  own({ tunnel, table }: TableWish): number {
    return table ?? this.#take(`tunnel ${tunnel}`, OWN_TABLES);
  }

  /** @param key what the tunnels of the table have in common. @throws SectunnelError as `own` */
  shared(key: string): number {
    return this.#take(`shared ${key}`, SHARED_TABLES);
  }

  freeOwn(tunnel: string): void {
    this.#free(`tunnel ${tunnel}`);
  }

  freeShared(key: string): void {
    this.#free(`shared ${key}`);
  }

  /** Whether a number is one of those that tunnels share a table by. */
  isShared(table: number): boolean {
    return (table & ~MASK) >>> 0 === SHARED_TABLES;
  }

  #take(owner: string, first: number): number {
    const known = this.#numbers.get(owner);
    if (known !== undefined) return known;
    const wish = hash16(owner.slice(owner.indexOf(' ') + 1));
    for (let step = 0; step <= MASK; step++) {
      const number = first + ((wish + step) & MASK);
      if (this.#owners.has(number) || this.#isTaken(number)) continue;
      this.#numbers.set(owner, number);
      this.#owners.set(number, owner);
      return number;
    }
    throw new SectunnelError(
      'system',
      `all ${MASK + 1} numbers of routing tables from ${first} on are taken: give the tunnel one of another range, <device table='…'>`,
    );
  }

  #free(owner: string): void {
    const number = this.#numbers.get(owner);
    if (number === undefined) return;
    this.#numbers.delete(owner);
    this.#owners.delete(number);
  }
}

/** FNV-1a, folded. */
function hash16(text: string): number {
  let hash = 0x811c_9dc5;
  for (const byte of utf8(text)) hash = Math.imul(hash ^ byte, 0x0100_0193);
  return (hash ^ (hash >>> 16)) & MASK;
}
