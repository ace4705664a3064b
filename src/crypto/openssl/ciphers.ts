/**
 * Packet ciphers on EVP contexts that live as long as their key: AES-GCM, ChaCha20-Poly1305, AES-CBC, AES-CTR.
 *
 * Each direction has its own context, keyed once; a packet brings only a new IV.
 */
import { writeU32 } from '../../base/bytes.ts';
import { addressMemo, addressOf, alignedMemory } from '../../sys/native-memory.ts';
import { releaseOnce } from '../../sys/release.ts';
import { type Aead, aeadMode, type BareCipher, bareMode, type CtrStream, copyBytes } from '../packet.ts';
import type { EncryptionAlgorithm } from '../types.ts';
import { type Evp, evp, opensslFailure, parameter } from './evp.ts';

const BLOCK = 16;
/** EVP_CTRL_AEAD_GET_TAG. */
const GET_TAG = 0x10;

/** What OpenSSL calls the cipher; `undefined` for what this provider leaves to others. */
export function evpName(algorithm: EncryptionAlgorithm): string | undefined {
  const mode = algorithm.aead ? aeadMode(algorithm) : bareMode(algorithm);
  switch (mode) {
    case 'gcm':
    case 'cbc':
    case 'ctr':
      return `AES-${algorithm.keyLength * 8}-${mode.toUpperCase()}`;
    case 'chacha20poly1305':
      return 'ChaCha20-Poly1305';
    default:
      return undefined;
  }
}

// BOUNDED: by the ciphers that the table of algorithms has.
const fetched = new Map<string, number>();

/** 0 when this OpenSSL has no such cipher. */
export function fetchCipher(name: string): number {
  let cipher = fetched.get(name);
  if (cipher === undefined) {
    cipher = evp().fetchCipher(name);
    if (cipher === 0) evp().clearErrors();
    fetched.set(name, cipher);
  }
  return cipher;
}

interface Contexts {
  readonly encrypt: number;
  readonly decrypt: number;
  free(): void;
}

/** A context for each direction, both keyed. */
function keyedContexts(name: string, key: Uint8Array): Contexts {
  const { newContext, freeContext, encryptInit, decryptInit } = evp();
  const cipher = fetchCipher(name);
  const encrypt = newContext();
  const decrypt = newContext();
  const free = (): void => {
    // NULL may be freed.
    freeContext(encrypt);
    freeContext(decrypt);
  };
  // A copy outside V8's heap, which leaves no copies behind when it moves things.
  const memory = alignedMemory(key.length);
  memory.bytes.set(key);
  const keyed =
    cipher !== 0 &&
    encrypt !== 0 &&
    decrypt !== 0 &&
    encryptInit(encrypt, cipher, memory.address, 0, 0) === 1 &&
    decryptInit(decrypt, cipher, memory.address, 0, 0) === 1;
  memory.bytes.fill(0);
  if (!keyed) {
    free();
    throw opensslFailure(`key ${name}`);
  }
  return { encrypt, decrypt, free };
}

/** Fields of an AEAD's memory: the received ICV, what Final may write, an int for lengths. */
const ICV_AT = 0;
const FINAL_AT = 16;
const OUT_LENGTH_AT = 32;
const AEAD_MEMORY = 48;

export function opensslAead(algorithm: EncryptionAlgorithm, key: Uint8Array): Aead {
  const { encryptInit, decryptInit, encryptUpdate, decryptUpdate, encryptFinal, decryptFinal, control } = evp();
  const { clearErrors } = evp();
  const { icvLength } = algorithm;
  const { encrypt, decrypt, free } = keyedContexts(evpName(algorithm) ?? algorithm.name, key);
  const { bytes, address } = alignedMemory(AEAD_MEMORY);
  const finalOut = address + FINAL_AT;
  const outLength = address + OUT_LENGTH_AT;
  // The ICV comes with the IV, which saves a call.
  const expected = parameter('tag', 'octetString', address + ICV_AT, icvLength);
  const expectedAddress = expected.address;
  const nonceAddress = addressMemo();
  const aadAddress = addressMemo();
  const aead: Aead = {
    seal(nonce, aad, buffer, dataAt, dataLength) {
      const data = addressOf(buffer) + dataAt;
      const sealed =
        encryptInit(encrypt, 0, 0, nonceAddress(nonce), 0) === 1 &&
        (aad.length === 0 || encryptUpdate(encrypt, 0, outLength, aadAddress(aad), aad.length) === 1) &&
        (dataLength === 0 || encryptUpdate(encrypt, data, outLength, data, dataLength) === 1) &&
        encryptFinal(encrypt, finalOut, outLength) === 1 &&
        control(encrypt, GET_TAG, icvLength, data + dataLength) === 1;
      if (!sealed) throw opensslFailure('seal a packet');
    },
    open(nonce, aad, buffer, dataAt, dataLength) {
      const data = addressOf(buffer) + dataAt;
      copyBytes(buffer, dataAt + dataLength, bytes, ICV_AT, icvLength);
      const genuine =
        decryptInit(decrypt, 0, 0, nonceAddress(nonce), expectedAddress) === 1 &&
        (aad.length === 0 || decryptUpdate(decrypt, 0, outLength, aadAddress(aad), aad.length) === 1) &&
        (dataLength === 0 || decryptUpdate(decrypt, data, outLength, data, dataLength) === 1) &&
        decryptFinal(decrypt, finalOut, outLength) === 1;
      if (genuine) return true;
      // Update has written the plaintext before Final could refuse it.
      buffer.fill(0, dataAt, dataAt + dataLength);
      clearErrors();
      return false;
    },
    wipe() {
      bytes.fill(0);
      expected.bytes.fill(0);
      release();
    },
  };
  const release = releaseOnce(aead, free);
  return aead;
}

/**
 * The IV of the counter is its encryption, which is what CBC makes of a first block that is the counter, with an IV
 * of zeros; the data are chained to it in the same call.
 */
export function opensslCbc(key: Uint8Array): BareCipher {
  const { encryptInit, decryptInit, encryptUpdate, decryptUpdate } = evp();
  const { encrypt, decrypt, free } = unpadded(keyedContexts(`AES-${key.length * 8}-CBC`, key));
  const { bytes, address: zeros } = alignedMemory(2 * BLOCK);
  const outLength = zeros + BLOCK;
  const cipher: BareCipher = {
    encrypt(buffer, ivAt, dataLength, counterHigh, counterLow) {
      writeU32(buffer, ivAt, 0);
      writeU32(buffer, ivAt + 4, 0);
      writeU32(buffer, ivAt + 8, counterHigh);
      writeU32(buffer, ivAt + 12, counterLow);
      const iv = addressOf(buffer) + ivAt;
      const done =
        encryptInit(encrypt, 0, 0, zeros, 0) === 1 &&
        encryptUpdate(encrypt, iv, outLength, iv, BLOCK + dataLength) === 1;
      if (!done) throw opensslFailure('encrypt a packet');
    },
    decrypt(buffer, ivAt, dataLength) {
      const iv = addressOf(buffer) + ivAt;
      const data = iv + BLOCK;
      const done =
        decryptInit(decrypt, 0, 0, iv, 0) === 1 &&
        (dataLength === 0 || decryptUpdate(decrypt, data, outLength, data, dataLength) === 1);
      if (!done) throw opensslFailure('decrypt a packet');
    },
    wipe() {
      bytes.fill(0);
      release();
    },
  };
  const release = releaseOnce(cipher, free);
  return cipher;
}

function unpadded(contexts: Contexts): Contexts {
  const { setPadding }: Evp = evp();
  if (setPadding(contexts.encrypt, 0) !== 1 || setPadding(contexts.decrypt, 0) !== 1) {
    contexts.free();
    throw opensslFailure('work without padding');
  }
  return contexts;
}

export function opensslCtr(key: Uint8Array): CtrStream {
  const { encryptInit, encryptUpdate } = evp();
  const { encrypt, free } = keyedContexts(`AES-${key.length * 8}-CTR`, key);
  const { bytes, address: outLength } = alignedMemory(BLOCK);
  const blockAddress = addressMemo();
  const stream: CtrStream = {
    crypt(counterBlock, buffer, dataAt, dataLength) {
      const data = addressOf(buffer) + dataAt;
      const done =
        encryptInit(encrypt, 0, 0, blockAddress(counterBlock), 0) === 1 &&
        (dataLength === 0 || encryptUpdate(encrypt, data, outLength, data, dataLength) === 1);
      if (!done) throw opensslFailure('encrypt a packet');
    },
    wipe() {
      bytes.fill(0);
      release();
    },
  };
  const release = releaseOnce(stream, free);
  return stream;
}
