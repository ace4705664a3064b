/**
 * Stateless cookies (RFC 7296 §2.6): a responder under load spends memory and a key exchange only on initiators that
 * receive at the address they send from. A cookie is a version byte and a MAC over nonce, address and SPI:
 * nothing is kept per initiator.
 */
import { addressToBytes, type SocketAddress } from '../../base/address.ts';
import { concatBytes, equalBytes } from '../../base/bytes.ts';
import { prfByName } from '../../crypto/algorithms.ts';
import type { CryptoProvider, PrfAlgorithm } from '../../crypto/types.ts';
import { prfOnce } from '../keys/keys.ts';
import { ikeSpiBytes } from '../wire/message.ts';

/** What a cookie is bound to. */
export interface CookieSubject {
  /** Ni of the request. */
  readonly nonce: Uint8Array;
  readonly remote: SocketAddress;
  readonly initiatorSpi: bigint;
}

/** Bytes of a secret that `rotate` wants. */
export const COOKIE_SECRET_LENGTH = 32;

const macAlgorithm: PrfAlgorithm = prfByName('prfsha256')!;

/** Makes and checks cookies with a secret that changes; cookies of the secret before still hold. */
export class CookieJar {
  readonly #crypto: CryptoProvider;
  #version = 0;
  #secret: Uint8Array;
  #previous: Uint8Array | undefined;

  /** @param secret `COOKIE_SECRET_LENGTH` random bytes, owned by the jar from now on */
  constructor(crypto: CryptoProvider, secret: Uint8Array) {
    this.#crypto = crypto;
    this.#secret = secret;
  }

  /** Begins to use a new secret. Called now and then, and twice in a row invalidates all cookies. */
  rotate(secret: Uint8Array): void {
    this.#previous?.fill(0);
    this.#previous = this.#secret;
    this.#secret = secret;
    this.#version = (this.#version + 1) & 0xff;
  }

  make(subject: CookieSubject): Uint8Array {
    return this.#cookie(this.#version, this.#secret, subject);
  }

  verify(subject: CookieSubject, cookie: Uint8Array): boolean {
    const version = cookie[0];
    if (version === this.#version) return equalBytes(this.#cookie(version, this.#secret, subject), cookie);
    if (this.#previous !== undefined && version === ((this.#version - 1) & 0xff)) {
      return equalBytes(this.#cookie(version, this.#previous, subject), cookie);
    }
    return false;
  }

  wipe(): void {
    this.#secret.fill(0);
    this.#previous?.fill(0);
  }

  #cookie(version: number, secret: Uint8Array, { nonce, remote, initiatorSpi }: CookieSubject): Uint8Array {
    const port = Uint8Array.of(remote.port >>> 8, remote.port);
    const parts = [nonce, addressToBytes(remote.address), port, ikeSpiBytes(initiatorSpi)];
    const mac = prfOnce(this.#crypto, macAlgorithm, secret, ...parts);
    return concatBytes(Uint8Array.of(version), mac);
  }
}
