/**
 * The table of algorithms: every fact about each one stands here and nowhere else.
 *
 * Transform ids are IANA's "Internet Key Exchange Version 2 (IKEv2) Parameters". Names are those that strongSwan's
 * users write. Sizes: AES-CBC RFC 3602, AES-CTR RFC 3686 and 5930, AES-CCM RFC 4309 and 5282, AES-GCM RFC 4106 and
 * 5282, ChaCha20-Poly1305 RFC 7634, NULL RFC 2410; HMAC-SHA1 RFC 2404, HMAC-SHA2 RFC 4868, AES-XCBC RFC 3566 and
 * 4434, AES-CMAC RFC 4494 and 4615; MODP RFC 3526, ECP RFC 5903, Brainpool RFC 6954, Curve25519 and 448 RFC 8031.
 * What is weak follows RFC 8221 and RFC 8247.
 */
import type { EspProposal, IkeProposal } from './proposal.ts';
import type { DhGroup, EncryptionAlgorithm, IntegrityAlgorithm, PrfAlgorithm } from './types.ts';

const aesKeyBits = [128, 192, 256] as const;

/** CTR, CCM and GCM ciphers are stream-like: any length goes. */
const streamShape = { ivLength: 8, blockSize: 1, espOnly: false, weak: false } as const;

function aesCbc(keyBits: number): EncryptionAlgorithm {
  return {
    kind: 'encryption',
    id: 12,
    name: `aes${keyBits}`,
    aliases: [`aes${keyBits}cbc`, `aes${keyBits}-cbc`, ...(keyBits === 128 ? ['aes'] : [])],
    aead: false,
    keyBits,
    keyLength: keyBits / 8,
    saltLength: 0,
    ivLength: 16,
    icvLength: 0,
    blockSize: 16,
    espOnly: false,
    weak: false,
  };
}

function aesCtr(keyBits: number): EncryptionAlgorithm {
  return {
    kind: 'encryption',
    id: 13,
    name: `aes${keyBits}ctr`,
    aliases: [`aes${keyBits}-ctr`, ...(keyBits === 128 ? ['aesctr'] : [])],
    aead: false,
    keyBits,
    keyLength: keyBits / 8,
    saltLength: 4,
    icvLength: 0,
    ...streamShape,
  };
}

/** `id8` is the id of the variant with an ICV of 8 bytes; those with 12 and 16 follow it. */
function aesAead(mode: 'ccm' | 'gcm', id8: number, saltLength: number, keyBits: number): EncryptionAlgorithm[] {
  return [16, 12, 8].map((icvLength) => ({
    kind: 'encryption',
    id: id8 + (icvLength - 8) / 4,
    name: `aes${keyBits}${mode}${icvLength}`,
    aliases: [`aes${keyBits}${mode}${icvLength * 8}`, ...(icvLength === 16 ? [`aes${keyBits}${mode}`] : [])],
    aead: true,
    keyBits,
    keyLength: keyBits / 8,
    saltLength,
    icvLength,
    ...streamShape,
  }));
}

const chacha20Poly1305: EncryptionAlgorithm = {
  kind: 'encryption',
  id: 28,
  name: 'chacha20poly1305',
  aliases: ['chacha20-poly1305', 'chachapoly'],
  aead: true,
  keyBits: undefined,
  keyLength: 32,
  saltLength: 4,
  icvLength: 16,
  ...streamShape,
};

const nullEncryption: EncryptionAlgorithm = {
  kind: 'encryption',
  id: 11,
  name: 'null',
  aliases: [],
  aead: false,
  keyBits: undefined,
  keyLength: 0,
  saltLength: 0,
  ivLength: 0,
  icvLength: 0,
  blockSize: 1,
  espOnly: true,
  weak: true,
};

export const encryptionAlgorithms: readonly EncryptionAlgorithm[] = [
  ...aesKeyBits.flatMap((bits) => aesAead('gcm', 18, 4, bits)),
  chacha20Poly1305,
  ...aesKeyBits.flatMap((bits) => aesAead('ccm', 14, 3, bits)),
  ...aesKeyBits.map(aesCbc),
  ...aesKeyBits.map(aesCtr),
  nullEncryption,
];

function integrity(
  id: number,
  name: string,
  aliases: readonly string[],
  { weak = false, ...lengths }: { readonly keyLength: number; readonly icvLength: number; readonly weak?: boolean },
): IntegrityAlgorithm {
  return { kind: 'integrity', id, name, aliases, ...lengths, weak };
}

export const integrityAlgorithms: readonly IntegrityAlgorithm[] = [
  integrity(12, 'sha256', ['sha2_256', 'sha256_128'], { keyLength: 32, icvLength: 16 }),
  integrity(13, 'sha384', ['sha2_384', 'sha384_192'], { keyLength: 48, icvLength: 24 }),
  integrity(14, 'sha512', ['sha2_512', 'sha512_256'], { keyLength: 64, icvLength: 32 }),
  integrity(5, 'aesxcbc', ['aesxcbc96'], { keyLength: 16, icvLength: 12 }),
  integrity(8, 'aescmac', ['aescmac96'], { keyLength: 16, icvLength: 12 }),
  integrity(2, 'sha1', ['sha', 'sha1_96'], { keyLength: 20, icvLength: 12, weak: true }),
];

function hmacPrf(id: number, hash: string, aliases: readonly string[], length: number, weak = false): PrfAlgorithm {
  return {
    kind: 'prf',
    id,
    name: `prf${hash}`,
    aliases: [hash, ...aliases],
    outputLength: length,
    keyLength: length,
    fixedKey: false,
    weak,
  };
}

function aesPrf(id: number, mode: 'aesxcbc' | 'aescmac'): PrfAlgorithm {
  return {
    kind: 'prf',
    id,
    name: `prf${mode}`,
    aliases: [mode],
    outputLength: 16,
    keyLength: 16,
    fixedKey: true,
    weak: false,
  };
}

export const prfAlgorithms: readonly PrfAlgorithm[] = [
  hmacPrf(5, 'sha256', ['sha2_256'], 32),
  hmacPrf(6, 'sha384', ['sha2_384'], 48),
  hmacPrf(7, 'sha512', ['sha2_512'], 64),
  aesPrf(4, 'aesxcbc'),
  aesPrf(8, 'aescmac'),
  hmacPrf(2, 'sha1', ['sha'], 20, true),
];

function group(id: number, name: string, aliases: readonly string[], publicLength: number, weak = false): DhGroup {
  return { kind: 'dh', id, name, aliases, publicLength, weak };
}

export const dhGroups: readonly DhGroup[] = [
  group(31, 'x25519', ['curve25519'], 32),
  group(32, 'x448', ['curve448'], 56),
  group(19, 'ecp256', [], 64),
  group(20, 'ecp384', [], 96),
  group(21, 'ecp521', [], 132),
  group(28, 'ecp256bp', ['brainpoolp256r1'], 64),
  group(29, 'ecp384bp', ['brainpoolp384r1'], 96),
  group(30, 'ecp512bp', ['brainpoolp512r1'], 128),
  group(14, 'modp2048', [], 256, true),
  group(15, 'modp3072', [], 384),
  group(16, 'modp4096', [], 512),
  group(17, 'modp6144', [], 768),
  group(18, 'modp8192', [], 1024),
];

interface Named {
  readonly name: string;
  readonly aliases: readonly string[];
}

function nameIndex<T extends Named>(table: readonly T[]): ReadonlyMap<string, T> {
  // BOUNDED: by the table.
  return new Map(table.flatMap((entry) => [entry.name, ...entry.aliases].map((name) => [name, entry] as const)));
}

const encryptionNames = nameIndex(encryptionAlgorithms);
const integrityNames = nameIndex(integrityAlgorithms);
const prfNames = nameIndex(prfAlgorithms);
const dhNames = nameIndex(dhGroups);

/** By name or alias, in any case; `undefined` when there is none. The same holds for the other kinds. */
export function encryptionByName(name: string): EncryptionAlgorithm | undefined {
  return encryptionNames.get(name.toLowerCase());
}

export function integrityByName(name: string): IntegrityAlgorithm | undefined {
  return integrityNames.get(name.toLowerCase());
}

/** The prefix `prf` may be left out: `sha384` is `prfsha384`. */
export function prfByName(name: string): PrfAlgorithm | undefined {
  return prfNames.get(name.toLowerCase());
}

export function dhGroupByName(name: string): DhGroup | undefined {
  return dhNames.get(name.toLowerCase());
}

/**
 * By transform id and Key Length attribute, as they stand in a proposal. An AES transform without the attribute, or
 * another cipher with one, is malformed (RFC 7296 §3.3.5) and finds nothing.
 */
export function encryptionById(id: number, keyBits: number | undefined): EncryptionAlgorithm | undefined {
  return encryptionAlgorithms.find((entry) => entry.id === id && entry.keyBits === keyBits);
}

export function integrityById(id: number): IntegrityAlgorithm | undefined {
  return integrityAlgorithms.find((entry) => entry.id === id);
}

export function prfById(id: number): PrfAlgorithm | undefined {
  return prfAlgorithms.find((entry) => entry.id === id);
}

export function dhGroupById(id: number): DhGroup | undefined {
  return dhGroups.find((entry) => entry.id === id);
}

function pick<T>(find: (name: string) => T | undefined, ...names: readonly string[]): T[] {
  return names.map((name) => {
    const entry = find(name);
    if (entry === undefined) throw new Error(`bug: no algorithm is called ${name}`);
    return entry;
  });
}

/** The PRFs that are offered where a document does not say which. */
export const defaultPrfs: readonly PrfAlgorithm[] = pick(prfByName, 'prfsha256', 'prfsha384', 'prfsha512');

const defaultAeads = pick(encryptionByName, 'aes256gcm16', 'aes128gcm16', 'chacha20poly1305');
const defaultCbc = pick(encryptionByName, 'aes256', 'aes128');
const defaultMacs = pick(integrityByName, 'sha256', 'sha384', 'sha512');
// The first is the one whose value is guessed into IKE_SA_INIT; the slow ones stand last.
const defaultGroups = pick(dhGroupByName, ...['x25519', 'ecp256', 'ecp384', 'ecp521', 'x448', 'modp3072', 'modp4096']);

/** What is offered and accepted for an IKE SA when a document names nothing. AEADs need a proposal of their own. */
export const defaultIkeProposals: readonly IkeProposal[] = [
  { encryption: defaultAeads, integrity: [], prf: defaultPrfs, dh: defaultGroups },
  { encryption: defaultCbc, integrity: defaultMacs, prf: defaultPrfs, dh: defaultGroups },
];

/**
 * The same for a CHILD SA: with a key exchange of its own, or without one where the peer wants none. Peers have the one or
 * the other by default, and IKE_AUTH does not show which (RFC 7296 §1.2). Extended sequence numbers where the peer has them.
 */
export const defaultEspProposals: readonly EspProposal[] = [defaultGroups, []].flatMap((dh) => [
  { encryption: defaultAeads, integrity: [], dh, esn: [true, false] },
  { encryption: defaultCbc, integrity: defaultMacs, dh, esn: [true, false] },
]);
