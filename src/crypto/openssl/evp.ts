/**
 * The EVP functions of the OpenSSL that runs inside this Node process, called directly: one context lives as long as
 * its key, where node:crypto makes one for each packet.
 *
 * EVP_EncryptInit(3), EVP_MAC(3), EVP_PKEY_derive(3), OSSL_PARAM(3) of OpenSSL 3. Contexts are addresses; functions that can fail return 1
 * when they did not.
 */
import { type NativeLibrary, openLibrary } from '../../sys/ffi.ts';
import { alignedMemory, type NativeMemory } from '../../sys/native-memory.ts';
import { ProviderUnavailableError } from '../provider.ts';

export interface Evp {
  /** 0 when this OpenSSL has no such cipher. What is fetched is kept for the life of the process. */
  fetchCipher(name: string): number;
  newContext(): number;
  /** Overwrites the key schedule too. */
  freeContext(context: number): void;
  setPadding(context: number, padding: number): number;
  /** Arguments that are 0 stay as they were. */
  encryptInit(context: number, cipher: number, key: number, iv: number, parameters: number): number;
  decryptInit(context: number, cipher: number, key: number, iv: number, parameters: number): number;
  /** With `out` 0 the input is associated data. */
  encryptUpdate(context: number, out: number, outLength: number, input: number, length: number): number;
  decryptUpdate(context: number, out: number, outLength: number, input: number, length: number): number;
  encryptFinal(context: number, out: number, outLength: number): number;
  decryptFinal(context: number, out: number, outLength: number): number;
  control(context: number, type: number, argument: number, pointer: number): number;
  /** HMAC; 0 when it is missing. */
  readonly hmac: number;
  newMacContext(mac: number): number;
  freeMacContext(context: number): void;
  /** With `key` 0 the context starts again with the key that it has. */
  macInit(context: number, key: number, keyLength: number, parameters: number): number;
  macUpdate(context: number, data: number, length: number): number;
  macFinal(context: number, out: number, outLength: number, outSize: number): number;
  /** A key of `type` (a NID) from its raw bytes; 0 when that fails. */
  newPrivateKey(type: number, engine: number, key: number, keyLength: number): number;
  newPublicKey(type: number, engine: number, key: number, keyLength: number): number;
  /** `outLength` is the address of a size_t: the room there is, then what was written. */
  getPublicKey(key: number, out: number, outLength: number): number;
  /** Overwrites a private key. */
  freeKey(key: number): void;
  newKeyContext(key: number, engine: number): number;
  freeKeyContext(context: number): void;
  deriveInit(context: number): number;
  setPeer(context: number, peer: number): number;
  derive(context: number, out: number, outLength: number): number;
  /** OpenSSL queues its errors for each thread; node:crypto must not find ours. */
  clearErrors(): void;
}

let bound: Evp | undefined;

/**
 * @throws NativeUnavailableError when nothing can be called here, or a function is missing
 * @throws ProviderUnavailableError when this process has no OpenSSL 3, or not the one that Node uses
 */
export function evp(): Evp {
  bound ??= bindEvp();
  return bound;
}

/** OPENSSL_VERSION_NUMBER is 0xMNN00PP0L: major, minor, patch. */
export function opensslVersionText(versionNumber: number): string {
  const major = Math.floor(versionNumber / 0x1000_0000);
  return `${major}.${Math.floor(versionNumber / 0x10_0000) & 0xff}.${(versionNumber >>> 4) & 0xff}`;
}

/** `nodeVersion` is that of process.versions, with a suffix such as `+quic` in some builds. */
function checkVersion(library: NativeLibrary, nodeVersion: string | undefined): void {
  const versionNumber = library.func<() => number>('unsigned long OpenSSL_version_num()');
  const found = opensslVersionText(versionNumber());
  if (!found.startsWith('3.')) throw new ProviderUnavailableError(`OpenSSL 3 is required, this process has ${found}`);
  if (nodeVersion === undefined || !new RegExp(`^${found.replaceAll('.', '\\.')}(?![0-9.])`).test(nodeVersion)) {
    throw new ProviderUnavailableError(
      `the OpenSSL that can be called is ${found}, Node's own is ${nodeVersion ?? 'unknown'}: they must be the same`,
    );
  }
}

function bindEvp(): Evp {
  const library = openLibrary(null);
  checkVersion(library, process.versions.openssl);
  const bind = <Call>(prototype: string): Call => library.func<Call>(prototype);
  const fetchCipher = bind<(library: number, name: string, properties: number) => number>(
    'uintptr_t EVP_CIPHER_fetch(uintptr_t library, const char *name, uintptr_t properties)',
  );
  const fetchMac = bind<typeof fetchCipher>(
    'uintptr_t EVP_MAC_fetch(uintptr_t library, const char *name, uintptr_t properties)',
  );
  const init = 'uintptr_t context, uintptr_t cipher, uintptr_t key, uintptr_t iv, uintptr_t parameters';
  const update = 'uintptr_t context, uintptr_t out, uintptr_t outLength, uintptr_t input, int length';
  const raw = 'int type, uintptr_t engine, uintptr_t key, size_t keyLength';
  const final = 'uintptr_t context, uintptr_t out, uintptr_t outLength';
  return {
    fetchCipher: (name) => fetchCipher(0, name, 0),
    newContext: bind('uintptr_t EVP_CIPHER_CTX_new()'),
    freeContext: bind('void EVP_CIPHER_CTX_free(uintptr_t context)'),
    setPadding: bind('int EVP_CIPHER_CTX_set_padding(uintptr_t context, int padding)'),
    encryptInit: bind(`int EVP_EncryptInit_ex2(${init})`),
    decryptInit: bind(`int EVP_DecryptInit_ex2(${init})`),
    encryptUpdate: bind(`int EVP_EncryptUpdate(${update})`),
    decryptUpdate: bind(`int EVP_DecryptUpdate(${update})`),
    encryptFinal: bind(`int EVP_EncryptFinal_ex(${final})`),
    decryptFinal: bind(`int EVP_DecryptFinal_ex(${final})`),
    control: bind('int EVP_CIPHER_CTX_ctrl(uintptr_t context, int type, int argument, uintptr_t pointer)'),
    hmac: fetchMac(0, 'HMAC', 0),
    newMacContext: bind('uintptr_t EVP_MAC_CTX_new(uintptr_t mac)'),
    freeMacContext: bind('void EVP_MAC_CTX_free(uintptr_t context)'),
    macInit: bind('int EVP_MAC_init(uintptr_t context, uintptr_t key, size_t keyLength, uintptr_t parameters)'),
    macUpdate: bind('int EVP_MAC_update(uintptr_t context, uintptr_t data, size_t length)'),
    macFinal: bind('int EVP_MAC_final(uintptr_t context, uintptr_t out, uintptr_t outLength, size_t outSize)'),
    newPrivateKey: bind(`uintptr_t EVP_PKEY_new_raw_private_key(${raw})`),
    newPublicKey: bind(`uintptr_t EVP_PKEY_new_raw_public_key(${raw})`),
    getPublicKey: bind('int EVP_PKEY_get_raw_public_key(uintptr_t key, uintptr_t out, uintptr_t outLength)'),
    freeKey: bind('void EVP_PKEY_free(uintptr_t key)'),
    newKeyContext: bind('uintptr_t EVP_PKEY_CTX_new(uintptr_t key, uintptr_t engine)'),
    freeKeyContext: bind('void EVP_PKEY_CTX_free(uintptr_t context)'),
    deriveInit: bind('int EVP_PKEY_derive_init(uintptr_t context)'),
    setPeer: bind('int EVP_PKEY_derive_set_peer(uintptr_t context, uintptr_t peer)'),
    derive: bind('int EVP_PKEY_derive(uintptr_t context, uintptr_t out, uintptr_t outLength)'),
    clearErrors: bind('void ERR_clear_error()'),
  };
}

/** A call failed that fails only when memory is short or this code is wrong. */
export function opensslFailure(what: string): Error {
  evp().clearErrors();
  return new Error(`OpenSSL refused to ${what}`);
}

/** OSSL_PARAM: key, type, data, size, returned size; the array ends with an entry of zeros. */
const PARAM_SIZE = 40;
const PARAM_TYPE = { utf8String: 4, octetString: 5 } as const;

/** An OSSL_PARAM array with one entry, in memory of its own that must be kept as long as its address is used. */
export function parameter(name: string, type: keyof typeof PARAM_TYPE, data: number, size: number): NativeMemory {
  const nameAt = 2 * PARAM_SIZE;
  const memory = alignedMemory(nameAt + name.length + 1);
  memory.bytes.set(Buffer.from(name, 'latin1'), nameAt);
  const view = new DataView(memory.bytes.buffer, memory.bytes.byteOffset);
  view.setBigUint64(0, BigInt(memory.address + nameAt), true);
  view.setUint32(8, PARAM_TYPE[type], true);
  view.setBigUint64(16, BigInt(data), true);
  view.setBigUint64(24, BigInt(size), true);
  return memory;
}
