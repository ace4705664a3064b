/**
 * Seals records of state: encrypted and authenticated under a key that only root can read, and bound to the host, to its boot and
 * to the version of the format (`docs/state.md`).
 *
 * ```text
 *   | magic | version | header: length, host, boot, salt, length of the record | IV | record | ICV |
 *   '-------------------------- authenticated --------------------------------'    '- encrypted -'
 * ```
 *
 * Each record has a key of its own, prf+ (key, label | all before the IV) (RFC 7296 §2.13): the salt in the header is new each
 * time, so that AES-GCM never sees one (key, IV) twice (NIST SP 800-38D §8).
 */
import { invariant } from '../../base/assert.ts';
import { ByteReader, ByteWriter, concatBytes, DecodeError, equalBytes } from '../../base/bytes.ts';
import { bytes, type Codec, double, field, record, text } from '../../base/record/codec.ts';
import { secretBytes } from '../../base/secret-bytes.ts';
import { utf8 } from '../../base/text.ts';
import { encryptionByName, prfByName } from '../../crypto/algorithms.ts';
import type { CryptoProvider, PacketCipher, RandomSource } from '../../crypto/types.ts';
import { prfPlus } from '../../ike/keys/keys.ts';

/** Bytes of the key that records are sealed with. */
export const STATE_KEY_LENGTH = 32;
/** Of the format of the record. */
export const STATE_VERSION = 1;
const MAGIC = utf8('SECTUNST');
const LABEL = utf8('sectunnel state');
const SALT_LENGTH = 32;
const NO_ESN = -1;

/** Where a record may be opened: on the same host, before it boots again. */
export interface StateBinding {
  /** `/etc/machine-id`, or what the owner has in its place. */
  readonly host: string;
  /** `/proc/sys/kernel/random/boot_id` */
  readonly boot: string;
}

/** Why a record was not opened, and in words. */
export interface StateRefusal {
  readonly reason: 'not-a-record' | 'other-version' | 'torn' | 'other-host' | 'older-than-boot' | 'other-key';
  readonly detail: string;
}

interface Header extends StateBinding {
  readonly salt: Uint8Array;
  /** Bytes of the record. */
  readonly length: number;
}

const headerCodec: Codec<Header> = record<Header>({
  host: field(1, text),
  boot: field(2, text),
  salt: field(3, bytes),
  length: field(4, double),
});

export interface StateKey {
  readonly crypto: CryptoProvider;
  /** STATE_KEY_LENGTH bytes. */
  readonly key: Uint8Array;
}

/** The sealed form of a record. The record stays the caller's to erase. */
export function sealState(
  { crypto, key }: StateKey,
  binding: StateBinding,
  state: Uint8Array,
  random: RandomSource,
): Uint8Array {
  const { host, boot } = binding;
  const inner = new ByteWriter();
  headerCodec.write(inner, { host, boot, salt: random(SALT_LENGTH), length: state.length });
  const header = inner.finish();
  const opening = new ByteWriter();
  opening.bytes(MAGIC);
  opening.u16(STATE_VERSION);
  opening.u32(header.length);
  opening.bytes(header);
  const before = opening.finish();
  const cipher = cipherOf(crypto, key, before);
  const ivAt = before.length;
  const sealed = secretBytes(ivAt + cipher.ivLength + state.length + cipher.icvLength);
  sealed.set(before);
  sealed.set(state, ivAt + cipher.ivLength);
  cipher.seal(sealed, 0, ivAt, state.length, 0, 0, NO_ESN);
  cipher.wipe();
  return sealed;
}

/** The record in a sealed one, in memory that the caller erases; or why it was not opened. */
export function openState(
  { crypto, key }: StateKey,
  binding: StateBinding,
  sealed: Uint8Array,
): { readonly state: Uint8Array } | StateRefusal {
  const opening = readOpening(sealed);
  if ('reason' in opening) return opening;
  const { header, end } = opening;
  if (header.host !== binding.host) return { reason: 'other-host', detail: 'it was written on another host' };
  if (header.boot !== binding.boot) {
    return { reason: 'older-than-boot', detail: 'it was written before this host was started' };
  }
  const cipher = cipherOf(crypto, key, sealed.subarray(0, end));
  const from = end + cipher.ivLength;
  const wanted = from + header.length + cipher.icvLength;
  if (sealed.length !== wanted) {
    cipher.wipe();
    return { reason: 'torn', detail: `it has ${sealed.length} bytes of ${wanted}` };
  }
  const open = secretBytes(sealed.length);
  open.set(sealed);
  const isAuthentic = cipher.open(open, 0, end, header.length, NO_ESN);
  cipher.wipe();
  if (isAuthentic) return { state: open.subarray(from, from + header.length) };
  open.fill(0);
  return { reason: 'other-key', detail: 'it was sealed with another key, or changed since' };
}

/** The header, and where it ends. */
function readOpening(sealed: Uint8Array): { readonly header: Header; readonly end: number } | StateRefusal {
  const reader = new ByteReader(sealed);
  try {
    if (!equalBytes(reader.bytes(MAGIC.length), MAGIC)) {
      return { reason: 'not-a-record', detail: 'it is not a record of state' };
    }
    const version = reader.u16();
    if (version !== STATE_VERSION) {
      return { reason: 'other-version', detail: `it is of version ${version} of the format, not ${STATE_VERSION}` };
    }
    const inner = reader.sub(reader.u32());
    return { header: headerCodec.read(inner), end: reader.position };
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error;
    return { reason: 'torn', detail: `it ends too early, or is damaged: ${error.message}` };
  }
}

function cipherOf(crypto: CryptoProvider, key: Uint8Array, before: Uint8Array): PacketCipher {
  const [encryption, algorithm] = [encryptionByName('aes256gcm16'), prfByName('prfsha256')];
  invariant(encryption !== undefined && algorithm !== undefined, 'the algorithms of state records are missing');
  invariant(key.length === STATE_KEY_LENGTH, 'a key of state records of another length');
  const prf = crypto.prf(algorithm, key);
  const own = prfPlus(prf, concatBytes(LABEL, before), encryption.keyLength + encryption.saltLength);
  prf.wipe();
  const cipher = crypto.packetCipher(
    { encryption, integrity: undefined },
    { encryption: own, integrity: new Uint8Array(0) },
  );
  own.fill(0);
  return cipher;
}
