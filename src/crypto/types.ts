/**
 * What the rest of the program knows of cryptography: descriptors of algorithms (plain data, one table in
 * `algorithms.ts`) and the interface that a provider of them implements.
 */

/** IKEv2 transform type 1 (RFC 7296 §3.3.2, RFC 5282, RFC 7634). */
export interface EncryptionAlgorithm {
  readonly kind: 'encryption';
  /** IANA transform id. */
  readonly id: number;
  /** `aes256gcm16`, `aes128`, `chacha20poly1305`, `null` … */
  readonly name: string;
  /** Other spellings that are accepted (`aes256gcm128`, `aes256-cbc` …). */
  readonly aliases: readonly string[];
  /** Carries its own integrity; no integrity algorithm is negotiated beside it. */
  readonly aead: boolean;
  /** Value of the Key Length attribute in bits; `undefined` where the attribute must not be sent. */
  readonly keyBits: number | undefined;
  /** Cipher key in bytes, salt not included. */
  readonly keyLength: number;
  /** Salt (AEAD) or nonce (CTR) bytes taken from the key material behind the key (RFC 4106 §4, RFC 3686 §4). */
  readonly saltLength: number;
  /** Explicit IV in the packet, bytes. */
  readonly ivLength: number;
  /** ICV of an AEAD, bytes; 0 otherwise. */
  readonly icvLength: number;
  /** Plaintext is padded to a multiple of this (16 for CBC, else 1; ESP aligns to 4 besides). */
  readonly blockSize: number;
  /** Only for ESP, and only when a document writes it out. */
  readonly espOnly: boolean;
  /** Must not be a default; used only where a document names it. */
  readonly weak: boolean;
}

/** IKEv2 transform type 3. */
export interface IntegrityAlgorithm {
  readonly kind: 'integrity';
  readonly id: number;
  readonly name: string;
  readonly aliases: readonly string[];
  readonly keyLength: number;
  readonly icvLength: number;
  readonly weak: boolean;
}

/** IKEv2 transform type 2. */
export interface PrfAlgorithm {
  readonly kind: 'prf';
  readonly id: number;
  readonly name: string;
  readonly aliases: readonly string[];
  /** Output in bytes. */
  readonly outputLength: number;
  /** Preferred key size in bytes (RFC 7296 §2.13), the length of SK_d, SK_pi and SK_pr. */
  readonly keyLength: number;
  /** AES-XCBC and AES-CMAC: SKEYSEED takes only the first 64 bits of each nonce (RFC 7296 §2.14). */
  readonly fixedKey: boolean;
  readonly weak: boolean;
}

/** IKEv2 transform type 4. */
export interface DhGroup {
  readonly kind: 'dh';
  readonly id: number;
  readonly name: string;
  readonly aliases: readonly string[];
  /** Length of the key exchange data in bytes. */
  readonly publicLength: number;
  readonly weak: boolean;
}

/** Any algorithm that a provider can be asked about. */
export type Algorithm = EncryptionAlgorithm | IntegrityAlgorithm | PrfAlgorithm | DhGroup;

/** Fills and returns `length` unpredictable bytes; tests hand in a seeded one. */
export type RandomSource = (length: number) => Uint8Array;

/** A pseudorandom function bound to one key, of which it holds a copy. */
export interface Prf {
  readonly outputLength: number;
  /** prf(key, part1 | part2 | …) as a new array. */
  compute(...parts: readonly Uint8Array[]): Uint8Array;
  /** Forgets the key; the object must not be used afterwards. */
  wipe(): void;
}

/** An ephemeral Diffie-Hellman key. */
export interface DhKeyPair {
  readonly group: DhGroup;
  /** As it stands in a KE payload. */
  readonly publicValue: Uint8Array;
  /**
   * The shared secret as RFC 7296 §2.14 / RFC 5903 §7 / RFC 8031 use it (x coordinate for curves, padded for MODP).
   * @throws InvalidPublicValueError when the peer's value has the wrong length, is off the curve, of small order,
   * 0, 1 or p-1 (RFC 6989), or the result is all zero.
   */
  derive(peerPublic: Uint8Array): Uint8Array;
  /** Forgets the private key; the object must not be used afterwards. */
  wipe(): void;
}

export class InvalidPublicValueError extends Error {
  override readonly name = 'InvalidPublicValueError';
}

/**
 * Encryption and integrity bound to one direction's keys, for ESP packets and SK payloads alike. In place:
 *
 * ```text
 *   start            ivAt        ivAt + ivLength                     + dataLength
 *   | associated data | IV        | plaintext / ciphertext            | ICV        |
 * ```
 *
 * The associated data of ESP is SPI and sequence number (RFC 4106 §5, RFC 4303 §2.8), that of an SK payload all
 * from the IKE header to the generic header of SK (RFC 5282 §5.1); with encrypt-then-MAC the integrity covers
 * everything before the ICV. With ESN the high half of the sequence number is authenticated too, although it does
 * not stand in the packet: after the SPI for an AEAD (RFC 4106 §5), behind everything for a MAC (RFC 4303 §2.2.1).
 */
export interface PacketCipher {
  readonly ivLength: number;
  readonly icvLength: number;
  /** `dataLength` must be a multiple of this. */
  readonly blockSize: number;
  /**
   * Writes the IV (made from the 64-bit counter, which must never repeat for a key), encrypts, writes the ICV.
   * AEAD and CTR put the counter itself on the wire; CBC the encrypted counter, which an attacker cannot predict
   * (NIST SP 800-38A appendix C).
   * @param counterLow 32 bits, signed or not: a signed integer is never put on the heap
   * @param esnHigh high half of an extended sequence number, or -1 without ESN
   */
  seal(
    buffer: Uint8Array,
    start: number,
    ivAt: number,
    dataLength: number,
    counterHigh: number,
    counterLow: number,
    esnHigh: number,
  ): void;
  /**
   * Verifies the ICV in constant time, then decrypts. `false` (never an exception) when it does not fit: the data
   * may then be scrambled and must not be used.
   */
  open(buffer: Uint8Array, start: number, ivAt: number, dataLength: number, esnHigh: number): boolean;
  /** Forgets the keys; the object must not be used afterwards. */
  wipe(): void;
}

/** What one SA uses: an AEAD alone, or a cipher with an integrity algorithm. */
export interface CipherSuite {
  readonly encryption: EncryptionAlgorithm;
  /** `undefined` exactly when `encryption.aead`. */
  readonly integrity: IntegrityAlgorithm | undefined;
}

/** Keys of one direction. `encryption` is key and salt together, as it comes out of prf+ (RFC 4106 §4, RFC 3686 §4). */
export interface CipherKeys {
  readonly encryption: Uint8Array;
  /** Empty for an AEAD. */
  readonly integrity: Uint8Array;
}

/**
 * What a program needs of cryptography: PRFs, packet ciphers, key exchanges. One is `nobleProvider`;
 * `combineProviders` joins several.
 */
export interface CryptoProvider {
  readonly name: string;
  /** Whether this provider has the algorithm on this host. */
  supports(algorithm: Algorithm): boolean;
  /** @throws RangeError when the provider does not support the algorithm (ask `supports` first). */
  prf(algorithm: PrfAlgorithm, key: Uint8Array): Prf;
  /** @throws RangeError when the provider does not support a part of the suite (ask `supports` first). */
  packetCipher(suite: CipherSuite, keys: CipherKeys): PacketCipher;
  /** A fresh key pair; the private key is drawn from `random` alone, so that a seeded source repeats it. */
  dhKeyPair(group: DhGroup, random: RandomSource): DhKeyPair;
  /** SHA-1, for NAT detection only (RFC 7296 §2.23). */
  sha1(...parts: readonly Uint8Array[]): Uint8Array;
}
