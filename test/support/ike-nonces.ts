/** The nonces that decide which of two crossing rekeyings loses (RFC 7296 §2.8.1): seen as they are sealed. */
import { expect } from 'vitest';
import { toHex } from '../../src/base/bytes.ts';
import type { CryptoProvider } from '../../src/crypto/types.ts';
import { ExchangeType, PayloadType } from '../../src/ike/wire/iana.ts';
import { Pair, type PairOptions } from './ike-pair.ts';
import { type Sealed, sealing } from './ike-tamper.ts';

type Side = 'a' | 'b';
type Role = `${Side} ${'asks' | 'answers'}`;

/** Of the last CREATE_CHILD_SA exchange of each side. */
export class Nonces {
  readonly #seen = new Map<Role, string>();

  provider(side: Side): CryptoProvider {
    return sealing((sealed) => {
      const nonce = nonceOf(sealed);
      if (nonce !== undefined) this.#seen.set(`${side} ${sealed.response ? 'answers' : 'asks'}`, toHex(nonce));
    });
  }

  /** Who has said the lowest of them, and how many there were: four, where both exchanges came to something. */
  order(): Order {
    const [lowest] = [...this.#seen].reduce((low, entry) => (entry[1] < low[1] ? entry : low));
    return { lowest, count: this.#seen.size };
  }
}

export interface Order {
  readonly lowest: Role;
  readonly count: number;
}

/** The side whose exchange stays when both came to something. */
export function winnerOf({ lowest }: Order): Side {
  return lowest === 'a asks' || lowest === 'b answers' ? 'b' : 'a';
}

function nonceOf({ exchange, content, skHeader }: Sealed): Uint8Array | undefined {
  if (exchange !== ExchangeType.CREATE_CHILD_SA) return undefined;
  let type = skHeader[0]!;
  for (let at = 0; type !== 0; ) {
    const length = content[at + 2]! * 256 + content[at + 3]!;
    if (type === PayloadType.NONCE) return content.slice(at + 4, at + length);
    type = content[at]!;
    at += length;
  }
  return undefined;
}

/** Runs a scenario with one seed after the other, until each of the nonces that it exchanges was the lowest once. */
export function everyOrder(options: PairOptions, scenario: (pair: Pair, nonces: Nonces) => Order): void {
  const seen = new Set<Role>();
  let count = 1;
  for (let seed = 1; seen.size < count; seed++) {
    expect(seed, `only ${[...seen]} had the lowest nonce`).toBeLessThan(80);
    const nonces = new Nonces();
    const [aOptions, bOptions] = [{ crypto: nonces.provider('a') }, { crypto: nonces.provider('b') }];
    const order = scenario(new Pair({ ...options, seed, aOptions, bOptions }), nonces);
    seen.add(order.lowest);
    count = order.count;
  }
}
