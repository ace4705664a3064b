/**
 * IKE SAs whose initiators have not proved who they are (RFC 7296 §2.6, §2.21.4): known by who asked, and counted by
 * where from. A set-up that failed keeps its place until it is forgotten, so that failing over and over gains nothing.
 */
import type { IpAddress } from '../base/address.ts';
import type { EndpointLimits } from './config.ts';
import type { Path } from './events.ts';
import type { IkeSession } from './session.ts';

/** One address may have such a part of all places. */
const SHARE = 1 / 8;
/** IPv6 addresses of one network are one host's for the asking. */
const IPV6_HOST_BITS = 64n;

export class HalfOpenTable {
  /** BOUNDED: `maxHalfOpen`. */
  readonly #byAsker = new Map<string, IkeSession>();
  /** BOUNDED: one entry for each address in the table above. */
  readonly #bySource = new Map<string, number>();
  readonly #max: number;
  readonly #maxOfSource: number;

  constructor({ maxHalfOpen, cookieThreshold }: EndpointLimits) {
    this.#max = maxHalfOpen;
    // Above the threshold addresses are proved by cookies; below it a forger must not use up what is the owner's.
    this.#maxOfSource = Math.max(2 * cookieThreshold, Math.ceil(maxHalfOpen * SHARE));
  }

  get size(): number {
    return this.#byAsker.size;
  }

  hasRoom({ remote }: Path): boolean {
    return this.size < this.#max && (this.#bySource.get(sourceKey(remote.address)) ?? 0) < this.#maxOfSource;
  }

  find(spiInitiator: bigint, from: Path): IkeSession | undefined {
    return this.#byAsker.get(askerKey(spiInitiator, from));
  }

  add(session: IkeSession): void {
    this.#byAsker.set(askerKey(session.spiInitiator, session.askedFrom), session);
    const source = sourceKey(session.askedFrom.remote.address);
    this.#bySource.set(source, (this.#bySource.get(source) ?? 0) + 1);
  }

  /** Does nothing when the session is not there. */
  drop(session: IkeSession): void {
    if (this.size === 0) return;
    const key = askerKey(session.spiInitiator, session.askedFrom);
    if (this.#byAsker.get(key) !== session) return;
    this.#byAsker.delete(key);
    const source = sourceKey(session.askedFrom.remote.address);
    const left = (this.#bySource.get(source) ?? 0) - 1;
    if (left > 0) this.#bySource.set(source, left);
    else this.#bySource.delete(source);
  }
}

function askerKey(spiInitiator: bigint, { remote }: Path): string {
  return `${spiInitiator} ${remote.address.value} ${remote.port}`;
}

function sourceKey({ family, value }: IpAddress): string {
  return `${family} ${family === 4 ? value : value >> IPV6_HOST_BITS}`;
}
