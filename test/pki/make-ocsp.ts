/** OCSP answers as tests want them, right or wrong; and extensions that say where to ask. */
import { createHash, createPublicKey, type KeyObject } from 'node:crypto';
import { derChildren, derContents, derElement } from '../../src/base/asn1/der.ts';
import { fromHex } from '../../src/base/bytes.ts';
import { ECDSA_SHA256, extension, type Made, NOW, signature, time, uri } from './make.ts';

const SEQUENCE = 0x30;
const SHA1 = fromHex('300906052b0e03021a0500');

/** Authority information access that names these responders, among other things. */
export function responders(...urls: string[]): Uint8Array {
  const access = (method: string, url: string): Uint8Array =>
    derElement(SEQUENCE, derElement(0x06, fromHex(method)), uri(url));
  const issuers = access('2b06010505073002', 'http://pki.example/ca.crt');
  return extension(
    '2b06010505070101',
    false,
    derElement(SEQUENCE, issuers, ...urls.map((url) => access('2b06010505073001', url))),
  );
}

/** CRL distribution points, one for each address. */
export function lists(...urls: string[]): Uint8Array {
  const points = urls.map((url) => derElement(SEQUENCE, derElement(0xa0, derElement(0xa0, uri(url)))));
  return extension('551d1f', false, derElement(SEQUENCE, ...points));
}

export const OCSP_SIGNING: readonly string[] = ['2b06010505070309'];
export const NO_CHECK: Uint8Array = extension('2b0601050507300105', false, fromHex('0500'));

const sha1 = (bytes: Uint8Array): Uint8Array => new Uint8Array(createHash('sha1').update(bytes).digest());
export const keyHash = ({ key }: Made): Uint8Array => {
  const info = new Uint8Array(createPublicKey(key).export({ format: 'der', type: 'spki' }));
  return sha1(derContents(derChildren(info, SEQUENCE)[1]!).subarray(1));
};

export interface OcspRecipe {
  readonly issuer: Made;
  readonly serial: Uint8Array;
  /** DER of a CertStatus; default: good. */
  readonly status?: Uint8Array;
  /** Default: the issuer, by its name. */
  readonly responder?: Uint8Array;
  readonly thisUpdate?: number;
  /** `null` to leave it out. */
  readonly nextUpdate?: number | null;
  /** DER of the value of the nonce extension. */
  readonly nonce?: Uint8Array | undefined;
  readonly responseExtensions?: readonly Uint8Array[];
  readonly singleExtensions?: readonly Uint8Array[];
  readonly signingKey?: KeyObject;
  readonly algorithm?: { readonly der: Uint8Array; readonly hash: string };
  readonly certificates?: readonly Made[];
  readonly hashAlgorithm?: Uint8Array;
  /** Answers about other certificates, before this one. */
  readonly others?: readonly Uint8Array[];
}

export const GOOD: Uint8Array = fromHex('8000');
export const UNKNOWN: Uint8Array = fromHex('8200');
export const revokedFor = (reason: number): Uint8Array =>
  derElement(0xa1, generalized(NOW - 3_600_000), derElement(0xa0, derElement(0x0a, Uint8Array.of(reason))));
export const byKey = (made: Made): Uint8Array => derElement(0xa2, derElement(0x04, keyHash(made)));
export const byName = ({ name }: Made): Uint8Array => derElement(0xa1, name);

function generalized(at: number): Uint8Array {
  return time(at, true);
}

function single(recipe: OcspRecipe, serial: Uint8Array): Uint8Array {
  const { issuer, nextUpdate = NOW + 3_600_000, singleExtensions: extensions } = recipe;
  const id = derElement(
    SEQUENCE,
    recipe.hashAlgorithm ?? SHA1,
    derElement(0x04, sha1(issuer.name)),
    derElement(0x04, keyHash(issuer)),
    derElement(0x02, serial),
  );
  return derElement(
    SEQUENCE,
    id,
    recipe.status ?? GOOD,
    generalized(recipe.thisUpdate ?? NOW - 60_000),
    ...(nextUpdate === null ? [] : [derElement(0xa0, generalized(nextUpdate))]),
    ...(extensions === undefined ? [] : [derElement(0xa1, derElement(SEQUENCE, ...extensions))]),
  );
}

export function makeOcsp(recipe: OcspRecipe): Uint8Array {
  const { issuer, algorithm = { der: ECDSA_SHA256, hash: 'sha256' }, certificates = [] } = recipe;
  const nonce = recipe.nonce === undefined ? [] : [extension('2b0601050507300102', false, recipe.nonce)];
  const extensions = [...nonce, ...(recipe.responseExtensions ?? [])];
  const data = derElement(
    SEQUENCE,
    recipe.responder ?? byName(issuer),
    generalized(NOW),
    derElement(
      SEQUENCE,
      ...(recipe.others ?? []).map((serial) => single({ ...recipe, status: UNKNOWN }, serial)),
      single(recipe, recipe.serial),
    ),
    ...(extensions.length === 0 ? [] : [derElement(0xa1, derElement(SEQUENCE, ...extensions))]),
  );
  const basic = derElement(
    SEQUENCE,
    data,
    algorithm.der,
    derElement(0x03, Uint8Array.of(0), signature(data, recipe.signingKey ?? issuer.key, algorithm.hash)),
    ...(certificates.length === 0
      ? []
      : [derElement(0xa0, derElement(SEQUENCE, ...certificates.map(({ der }) => der)))]),
  );
  return ocspOf('2b0601050507300101', basic);
}

export function ocspOf(type: string, basic: Uint8Array): Uint8Array {
  const bytes = derElement(SEQUENCE, derElement(0x06, fromHex(type)), derElement(0x04, basic));
  return derElement(SEQUENCE, fromHex('0a0100'), derElement(0xa0, bytes));
}
