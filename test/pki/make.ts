/**
 * Certificates and revocation lists as tests want them, right or wrong: DER put together by hand and signed by Node.
 */
import { createPublicKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { derElement } from '../../src/base/asn1/der.ts';
import { dnFromText } from '../../src/base/asn1/dn-text.ts';
import { fromHex } from '../../src/base/bytes.ts';
import { utf8 } from '../../src/base/text.ts';

export const DAY: number = 24 * 3_600_000;
/** When the tests take place. */
export const NOW: number = Date.UTC(2026, 5, 1);

const SEQUENCE = 0x30;
export const ECDSA_SHA256: Uint8Array = fromHex('300a06082a8648ce3d040302');

export function ecKey(namedCurve = 'P-256'): KeyObject {
  return generateKeyPairSync('ec', { namedCurve }).privateKey;
}

export interface Recipe {
  readonly subject: string;
  /** Default: itself. */
  readonly issuer?: Made | undefined;
  readonly key?: KeyObject;
  /** Signs instead of the issuer's key. */
  readonly signingKey?: KeyObject;
  readonly serial?: Uint8Array;
  readonly notBefore?: number;
  readonly notAfter?: number;
  /** Default: none, so no authority. */
  readonly ca?: boolean;
  readonly pathLength?: number;
  /** One or two bytes as they stand in the extension. */
  readonly keyUsage?: readonly number[];
  readonly eku?: readonly string[];
  readonly san?: readonly Uint8Array[];
  readonly permitted?: readonly Uint8Array[];
  readonly excluded?: readonly Uint8Array[];
  readonly extra?: readonly Uint8Array[];
  readonly version?: 1 | 3;
  /** AlgorithmIdentifier and digest of the signature. */
  readonly algorithm?: { readonly der: Uint8Array; readonly hash: string };
  /** Instead of the issuer's name. */
  readonly issuerName?: Uint8Array;
  readonly subjectName?: Uint8Array;
  readonly publicKeyInfo?: Uint8Array;
}

export interface Made {
  readonly der: Uint8Array;
  readonly key: KeyObject;
  readonly name: Uint8Array;
}

let serials = 1;

export function make(recipe: Recipe): Made {
  const key = recipe.key ?? ecKey();
  const name = recipe.subjectName ?? (recipe.subject === '' ? derElement(SEQUENCE) : dnFromText(recipe.subject));
  const algorithm = recipe.algorithm ?? { der: ECDSA_SHA256, hash: 'sha256' };
  const tbs = derElement(
    SEQUENCE,
    ...(recipe.version === 1 ? [] : [fromHex('a003020102')]),
    derElement(0x02, recipe.serial ?? Uint8Array.of(0x10, serials >>> 8, serials++)),
    algorithm.der,
    recipe.issuerName ?? recipe.issuer?.name ?? name,
    derElement(SEQUENCE, time(recipe.notBefore ?? NOW - 30 * DAY), time(recipe.notAfter ?? NOW + 300 * DAY)),
    name,
    recipe.publicKeyInfo ?? new Uint8Array(createPublicKey(key).export({ format: 'der', type: 'spki' })),
    ...(recipe.version === 1 ? [] : extensions(recipe)),
  );
  return { der: signed(tbs, recipe.signingKey ?? recipe.issuer?.key ?? key, algorithm), key, name };
}

/** An authority, with what RFC 5280 wants of one. */
export function authority(subject: string, more: Partial<Recipe> = {}): Made {
  return make({ subject, ca: true, keyUsage: [0x06], ...more });
}

function signed(tbs: Uint8Array, key: KeyObject, algorithm: { der: Uint8Array; hash: string }): Uint8Array {
  return derElement(
    SEQUENCE,
    tbs,
    algorithm.der,
    derElement(0x03, Uint8Array.of(0), signature(tbs, key, algorithm.hash)),
  );
}

/** Ed25519 and Ed448 have no digest of their own choice. */
export function signature(tbs: Uint8Array, key: KeyObject, hash: string): Uint8Array {
  return sign(key.asymmetricKeyType?.startsWith('ed') === true ? undefined : hash, tbs, key);
}

function extensions(recipe: Recipe): Uint8Array[] {
  const list: Uint8Array[] = [];
  const { ca, pathLength, keyUsage, eku, san, permitted, excluded } = recipe;
  if (ca !== undefined) {
    const length = pathLength === undefined ? [] : [derElement(0x02, Uint8Array.of(pathLength))];
    list.push(extension('551d13', true, derElement(SEQUENCE, ...(ca ? [fromHex('0101ff')] : []), ...length)));
  }
  if (keyUsage !== undefined) list.push(extension('551d0f', true, derElement(0x03, Uint8Array.of(0, ...keyUsage))));
  if (eku !== undefined) {
    list.push(extension('551d25', false, derElement(SEQUENCE, ...eku.map((hex) => derElement(0x06, fromHex(hex))))));
  }
  if (san !== undefined) list.push(extension('551d11', false, derElement(SEQUENCE, ...san)));
  if (permitted !== undefined || excluded !== undefined) {
    const trees = (tag: number, names: readonly Uint8Array[] | undefined): Uint8Array[] =>
      names === undefined ? [] : [derElement(tag, ...names.map((name) => derElement(SEQUENCE, name)))];
    list.push(extension('551d1e', true, derElement(SEQUENCE, ...trees(0xa0, permitted), ...trees(0xa1, excluded))));
  }
  list.push(...(recipe.extra ?? []));
  return list.length === 0 ? [] : [derElement(0xa3, derElement(SEQUENCE, ...list))];
}

export function extension(oid: string, critical: boolean, value: Uint8Array): Uint8Array {
  const flag = critical ? [fromHex('0101ff')] : [];
  return derElement(SEQUENCE, derElement(0x06, fromHex(oid)), ...flag, derElement(0x04, value));
}

/** UTCTime for years before 2050 (RFC 5280 §4.1.2.5), unless the other form is wanted. */
export function time(at: number, generalized = false): Uint8Array {
  const text = new Date(at).toISOString().replace(/[-:T]|\.\d+/g, '');
  return !generalized && Number(text.slice(0, 4)) < 2050
    ? derElement(0x17, utf8(text.slice(2)))
    : derElement(0x18, utf8(text));
}

export const dns = (name: string): Uint8Array => derElement(0x82, utf8(name));
export const email = (name: string): Uint8Array => derElement(0x81, utf8(name));
export const uri = (name: string): Uint8Array => derElement(0x86, utf8(name));
export const ip = (hex: string): Uint8Array => derElement(0x87, fromHex(hex));
export const directory = (text: string): Uint8Array => derElement(0xa4, dnFromText(text));

export interface CrlRecipe {
  readonly issuer: Made;
  readonly revoked?: readonly Uint8Array[];
  readonly thisUpdate?: number;
  /** `null` to leave it out. */
  readonly nextUpdate?: number | null;
  readonly extensions?: readonly Uint8Array[];
  readonly entryExtensions?: readonly Uint8Array[];
  readonly signingKey?: KeyObject;
  readonly algorithm?: { readonly der: Uint8Array; readonly hash: string };
}

export function makeCrl(recipe: CrlRecipe): Uint8Array {
  const algorithm = recipe.algorithm ?? { der: ECDSA_SHA256, hash: 'sha256' };
  const entryExtensions = recipe.entryExtensions === undefined ? [] : [derElement(SEQUENCE, ...recipe.entryExtensions)];
  const entries = (recipe.revoked ?? []).map((serial) =>
    derElement(SEQUENCE, derElement(0x02, serial), time(NOW - DAY), ...entryExtensions),
  );
  const next = recipe.nextUpdate === null ? [] : [time(recipe.nextUpdate ?? NOW + 7 * DAY)];
  const tbs = derElement(
    SEQUENCE,
    fromHex('020101'),
    algorithm.der,
    recipe.issuer.name,
    time(recipe.thisUpdate ?? NOW - DAY),
    ...next,
    ...(entries.length === 0 ? [] : [derElement(SEQUENCE, ...entries)]),
    ...(recipe.extensions === undefined ? [] : [derElement(0xa0, derElement(SEQUENCE, ...recipe.extensions))]),
  );
  return signed(tbs, recipe.signingKey ?? recipe.issuer.key, algorithm);
}
