/**
 * How keys, IVs, sequence numbers and ICVs are laid out in ESP packets and SK payloads, for every cipher: written
 * once, above the bare primitives that a provider brings.
 *
 * AEADs: RFC 4106 (GCM), RFC 4309 (CCM), RFC 7634 (ChaCha20-Poly1305), RFC 5282 (SK payloads). Encrypt-then-MAC:
 * RFC 4303 §3.3.2.1 and §2.2.1 (extended sequence numbers), RFC 7296 §3.14.
 */
import { assertNever, invariant } from '../base/assert.ts';
import { writeU32 } from '../base/bytes.ts';
import { secretBytes, secretCopy } from '../base/secret-bytes.ts';
import type { Mac } from './macs.ts';
import type { CipherKeys, CipherSuite, EncryptionAlgorithm, IntegrityAlgorithm, PacketCipher } from './types.ts';

/** An AEAD bound to a key. Works in place; the ICV stands right behind the data. */
export interface Aead {
  seal(nonce: Uint8Array, aad: Uint8Array, buffer: Uint8Array, dataAt: number, dataLength: number): void;
  /** `false`, never an exception, when the ICV does not fit. */
  open(nonce: Uint8Array, aad: Uint8Array, buffer: Uint8Array, dataAt: number, dataLength: number): boolean;
  wipe(): void;
}

/** A cipher without integrity bound to a key. Works in place; the data stands right behind the IV. */
export interface BareCipher {
  /** Writes the IV that belongs to the counter, then encrypts. */
  encrypt(buffer: Uint8Array, ivAt: number, dataLength: number, counterHigh: number, counterLow: number): void;
  decrypt(buffer: Uint8Array, ivAt: number, dataLength: number): void;
  wipe(): void;
}

/** The integrity of packets beside a cipher without one, bound to a key. */
export interface PacketMac {
  /**
   * The MAC of a part of a buffer, followed by the high half of the sequence number unless that is -1. At least as
   * long as the ICV; overwritten by the next call.
   */
  icv(buffer: Uint8Array, start: number, end: number, esnHigh: number): Uint8Array;
  wipe(): void;
}

/** What a provider brings for packets. Each takes the key alone (salt or nonce apart) and copies it if it keeps it. */
export interface PacketPrimitives {
  aead(algorithm: EncryptionAlgorithm, key: Uint8Array): Aead;
  /** AES-CBC; the key's length tells which AES. */
  cbc(key: Uint8Array): BareCipher;
  ctr(key: Uint8Array): CtrStream;
}

/** AES-CTR bound to a key, given the first counter block. In place; encryption and decryption are the same. */
export interface CtrStream {
  crypt(counterBlock: Uint8Array, buffer: Uint8Array, dataAt: number, dataLength: number): void;
  wipe(): void;
}

/**
 * Joins a provider's primitives to the cipher of one direction of one SA.
 * @param mac bound to `keys.integrity`; `undefined` for an AEAD
 */
export function packetCipher(
  suite: CipherSuite,
  keys: CipherKeys,
  primitives: PacketPrimitives,
  mac: PacketMac | undefined,
): PacketCipher {
  const { encryption, integrity } = suite;
  const { keyLength, saltLength } = encryption;
  invariant(
    keys.encryption.length === keyLength + saltLength && keys.integrity.length === (integrity?.keyLength ?? 0),
    `keys of the wrong length for ${encryption.name}`,
  );
  invariant(encryption.aead === (integrity === undefined), `${encryption.name} with the wrong kind of integrity`);
  const key = keys.encryption.subarray(0, keyLength);
  const salt = secretCopy(keys.encryption.subarray(keyLength));
  if (integrity === undefined || mac === undefined)
    return new AeadPacketCipher(encryption, salt, primitives.aead(encryption, key));
  return new MacPacketCipher(encryption, integrity, bareCipher(encryption, key, salt, primitives), mac);
}

function bareCipher(
  algorithm: EncryptionAlgorithm,
  key: Uint8Array,
  nonce: Uint8Array,
  primitives: PacketPrimitives,
): BareCipher {
  const mode = bareMode(algorithm);
  switch (mode) {
    case 'cbc':
      return primitives.cbc(key);
    case 'ctr':
      return ctrCipher(primitives.ctr(key), nonce);
    case 'null':
      return nullCipher;
    default:
      return assertNever(mode, 'bareCipher');
  }
}

const CHACHA20_POLY1305 = 28;
/** CCM alone has a salt of three bytes (RFC 4309 §4). */
const CCM_SALT_LENGTH = 3;

/** Which construction an AEAD of the table is. */
export function aeadMode({ id, saltLength }: EncryptionAlgorithm): 'gcm' | 'ccm' | 'chacha20poly1305' {
  if (id === CHACHA20_POLY1305) return 'chacha20poly1305';
  return saltLength === CCM_SALT_LENGTH ? 'ccm' : 'gcm';
}

/** Which construction a cipher without integrity is. */
export function bareMode({ keyLength, blockSize }: EncryptionAlgorithm): 'cbc' | 'ctr' | 'null' {
  if (keyLength === 0) return 'null';
  return blockSize > 1 ? 'cbc' : 'ctr';
}

const nullCipher: BareCipher = { encrypt: () => undefined, decrypt: () => undefined, wipe: () => undefined };

/** RFC 3686 §4: nonce from the key material, IV from the packet, a block counter that starts with 1. */
function ctrCipher(stream: CtrStream, nonce: Uint8Array): BareCipher {
  const block = secretBytes(16);
  block.set(nonce);
  const crypt = (buffer: Uint8Array, ivAt: number, dataLength: number): void => {
    copyBytes(buffer, ivAt, block, 4, 8);
    writeU32(block, 12, 1);
    stream.crypt(block, buffer, ivAt + 8, dataLength);
  };
  return {
    encrypt(buffer, ivAt, dataLength, counterHigh, counterLow) {
      writeU32(buffer, ivAt, counterHigh);
      writeU32(buffer, ivAt + 4, counterLow);
      crypt(buffer, ivAt, dataLength);
    },
    decrypt: crypt,
    wipe() {
      block.fill(0);
      nonce.fill(0);
      stream.wipe();
    },
  };
}

/** SPI, high half and low half of the sequence number (RFC 4106 §5). */
const ESP_HEADER_LENGTH = 8;

class AeadPacketCipher implements PacketCipher {
  readonly ivLength: number;
  readonly icvLength: number;
  readonly blockSize: number;
  readonly #aead: Aead;
  /** Salt, then the packet's IV. */
  readonly #nonce: Uint8Array;
  readonly #saltLength: number;
  readonly #espAad = new Uint8Array(ESP_HEADER_LENGTH);
  readonly #esnAad = new Uint8Array(ESP_HEADER_LENGTH + 4);
  #wiped = false;

  constructor(algorithm: EncryptionAlgorithm, salt: Uint8Array, aead: Aead) {
    this.ivLength = algorithm.ivLength;
    this.icvLength = algorithm.icvLength;
    this.blockSize = algorithm.blockSize;
    this.#aead = aead;
    this.#saltLength = salt.length;
    this.#nonce = secretBytes(salt.length + algorithm.ivLength);
    this.#nonce.set(salt);
    salt.fill(0);
  }

  seal(
    buffer: Uint8Array,
    start: number,
    ivAt: number,
    dataLength: number,
    counterHigh: number,
    counterLow: number,
    esnHigh: number,
  ): void {
    requireUse(this, this.#wiped, buffer, start, ivAt, dataLength);
    writeU32(buffer, ivAt, counterHigh);
    writeU32(buffer, ivAt + 4, counterLow);
    copyBytes(buffer, ivAt, this.#nonce, this.#saltLength, this.ivLength);
    this.#aead.seal(this.#nonce, this.#aad(buffer, start, ivAt, esnHigh), buffer, ivAt + this.ivLength, dataLength);
  }

  open(buffer: Uint8Array, start: number, ivAt: number, dataLength: number, esnHigh: number): boolean {
    if (this.#wiped || !fits(this, buffer, start, ivAt, dataLength)) return false;
    copyBytes(buffer, ivAt, this.#nonce, this.#saltLength, this.ivLength);
    const aad = this.#aad(buffer, start, ivAt, esnHigh);
    return this.#aead.open(this.#nonce, aad, buffer, ivAt + this.ivLength, dataLength);
  }

  wipe(): void {
    this.#wiped = true;
    this.#nonce.fill(0);
    this.#aead.wipe();
  }

  #aad(buffer: Uint8Array, start: number, ivAt: number, esnHigh: number): Uint8Array {
    if (esnHigh >= 0) {
      invariant(ivAt - start === ESP_HEADER_LENGTH, 'an extended sequence number outside ESP');
      copyBytes(buffer, start, this.#esnAad, 0, 4);
      writeU32(this.#esnAad, 4, esnHigh);
      copyBytes(buffer, start + 4, this.#esnAad, 8, 4);
      return this.#esnAad;
    }
    // A new view costs more than eight bytes do.
    if (ivAt - start !== ESP_HEADER_LENGTH) return buffer.subarray(start, ivAt);
    copyBytes(buffer, start, this.#espAad, 0, ESP_HEADER_LENGTH);
    return this.#espAad;
  }
}

/** From a MAC of any message to one of packets. */
export function packetMac(mac: Mac): PacketMac {
  const esn = new Uint8Array(4);
  return {
    icv(buffer, start, end, esnHigh) {
      const covered = buffer.subarray(start, end);
      if (esnHigh < 0) return mac.compute(covered);
      writeU32(esn, 0, esnHigh);
      return mac.compute(covered, esn);
    },
    wipe: () => mac.wipe(),
  };
}

class MacPacketCipher implements PacketCipher {
  readonly ivLength: number;
  readonly icvLength: number;
  readonly blockSize: number;
  readonly #cipher: BareCipher;
  readonly #mac: PacketMac;
  #wiped = false;

  constructor(encryption: EncryptionAlgorithm, integrity: IntegrityAlgorithm, cipher: BareCipher, mac: PacketMac) {
    this.ivLength = encryption.ivLength;
    this.icvLength = integrity.icvLength;
    this.blockSize = encryption.blockSize;
    this.#cipher = cipher;
    this.#mac = mac;
  }

  seal(
    buffer: Uint8Array,
    start: number,
    ivAt: number,
    dataLength: number,
    counterHigh: number,
    counterLow: number,
    esnHigh: number,
  ): void {
    requireUse(this, this.#wiped, buffer, start, ivAt, dataLength);
    this.#cipher.encrypt(buffer, ivAt, dataLength, counterHigh, counterLow);
    const end = ivAt + this.ivLength + dataLength;
    copyBytes(this.#mac.icv(buffer, start, end, esnHigh), 0, buffer, end, this.icvLength);
  }

  open(buffer: Uint8Array, start: number, ivAt: number, dataLength: number, esnHigh: number): boolean {
    if (this.#wiped || !fits(this, buffer, start, ivAt, dataLength)) return false;
    const end = ivAt + this.ivLength + dataLength;
    if (!equalAt(buffer, end, this.#mac.icv(buffer, start, end, esnHigh), this.icvLength)) return false;
    this.#cipher.decrypt(buffer, ivAt, dataLength);
    return true;
  }

  wipe(): void {
    this.#wiped = true;
    this.#cipher.wipe();
    this.#mac.wipe();
  }
}

type Shape = Pick<PacketCipher, 'ivLength' | 'icvLength' | 'blockSize'>;

/** Whether the packet lies in the buffer and the data are whole blocks: a peer decides both. */
function fits(shape: Shape, buffer: Uint8Array, start: number, ivAt: number, dataLength: number): boolean {
  return (
    start >= 0 &&
    ivAt >= start &&
    dataLength >= 0 &&
    dataLength % shape.blockSize === 0 &&
    ivAt + shape.ivLength + dataLength + shape.icvLength <= buffer.length
  );
}

/** A wiped key is all zeros, with which nothing may leave. */
function requireUse(
  shape: Shape,
  wiped: boolean,
  buffer: Uint8Array,
  start: number,
  ivAt: number,
  dataLength: number,
): void {
  invariant(!wiped, 'a packet cipher was used after its keys were wiped');
  invariant(fits(shape, buffer, start, ivAt, dataLength), 'no room for the packet, or data that are not whole blocks');
}

/** For a few bytes a loop is quicker than the two views that `set` wants. */
export function copyBytes(from: Uint8Array, fromAt: number, to: Uint8Array, toAt: number, length: number): void {
  for (let i = 0; i < length; i++) to[toAt + i] = from[fromAt + i]!;
}

/** Compares `length` bytes of the buffer with the first ones of `expected`, in constant time. */
export function equalAt(buffer: Uint8Array, at: number, expected: Uint8Array, length: number): boolean {
  let difference = 0;
  for (let i = 0; i < length; i++) difference |= buffer[at + i]! ^ expected[i]!;
  return difference === 0;
}
