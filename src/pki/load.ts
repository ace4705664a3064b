/**
 * Certificates, keys and revocation lists out of files. Every error names the file, says what is wrong in it and how to
 * fix it. The reader that is passed in refuses a private key that others may read.
 */

import { createPrivateKey, createPublicKey, type KeyObject, type PrivateKeyInput } from 'node:crypto';
import { MAX_CHAIN } from '../base/asn1/x509-limits.ts';
import { SectunnelError } from '../base/error.ts';
import { listSome, messageOf } from '../base/text.ts';
import { type Certificate, describeCertificate, isSelfIssued, parseCertificate, sameNames } from './certificate.ts';
import { isDer, type PemBlock, pemBlocks } from './pem.ts';
import { ForeignAlgorithmError } from './public-key.ts';
import { type Crl, MAX_CRL, parseCrl } from './revocation/crl.ts';
import { keyProblem } from './scheme.ts';

/** Certificates in a file of authorities: bundles of all public authorities are longer, but do not belong here. */
const MAX_AUTHORITIES = 500;
/** Largest file of certificates or of a key, in bytes. */
const MAX_FILE = 4 * 1024 * 1024;

/** What is wrong with a file and how to correct it, for a person. Its `code` is `system`. */
export class PkiFileError extends SectunnelError {
  override readonly name = 'PkiFileError';
  readonly path: string;
  readonly problem: string;

  /** @param field who names the file */
  constructor(path: string, problem: string, field?: string, cause?: unknown) {
    super('system', `${path}: ${problem}${field === undefined ? '' : ` (${field})`}`, cause);
    this.path = path;
    this.problem = problem;
  }
}

/** Reads files; both throw for people. */
export interface FileReader {
  read(path: string): Uint8Array;
  /** For keys: refuses what others may read. */
  readPrivate(path: string): Uint8Array;
}

/** Whether all that is wrong with a certificate's file is that its key is for no method of IKE. */
export function isForeignAlgorithm(error: unknown): boolean {
  for (let at = error; at instanceof Error; at = at.cause) if (at instanceof ForeignAlgorithmError) return true;
  return false;
}

/**
 * Certificates of the authorities that are trusted. Those whose keys are for no method of IKE are passed over: beside others
 * they are there for TLS.
 * @throws PkiFileError, also when all are such
 */
export function loadAuthorities(
  path: string,
  reader: FileReader,
  onPassed: (text: string) => void = () => undefined,
): Certificate[] {
  let foreign: unknown;
  const found = loadCertificates(path, reader, (error) => {
    foreign ??= error;
    onPassed(messageOf(error));
  });
  if (found.length === 0) throw foreign;
  if (found.length <= MAX_AUTHORITIES) return found;
  throw new PkiFileError(path, `it holds ${found.length} certificates; keep only the authorities of your peers`);
}

/** The certificate that belongs to the key, then those that lead from it to an authority and that are in the same file. */
export function loadChain(path: string, reader: FileReader): Certificate[] {
  const [leaf, ...others] = loadCertificates(path, reader);
  if (others.length >= MAX_CHAIN) {
    throw new PkiFileError(path, `it holds ${others.length + 1} certificates; a chain has at most ${MAX_CHAIN}`);
  }
  const chain = [leaf!];
  for (let next = leaf; next !== undefined && !isSelfIssued(next); ) {
    const { issuerName } = next;
    next = others.find((issuer) => !chain.includes(issuer) && sameNames(issuer.subjectName, issuerName));
    // A peer that trusts a root has it.
    if (next !== undefined && !isSelfIssued(next)) chain.push(next);
  }
  return chain;
}

/** @param onForeign told of those whose keys are for no method of IKE, which are then left out; else such a one is an error */
function loadCertificates(path: string, reader: FileReader, onForeign?: (error: unknown) => void): Certificate[] {
  const bytes = bounded(path, reader.read(path), MAX_FILE);
  if (isDer(bytes)) return [certificateFrom(path, bytes, 'the certificate')];
  const blocks = pemBlocks(bytes);
  const wanted = blocks.filter(({ label }) => /^(X509 |TRUSTED )?CERTIFICATE$/.test(label));
  if (wanted.length === 0) throw new PkiFileError(path, `${holds(blocks)}; a certificate in PEM or DER is required`);
  const certificates = wanted.flatMap((block, at) => {
    const which = wanted.length === 1 ? 'the certificate' : `certificate ${at + 1} of ${wanted.length}`;
    if (block.label.startsWith('TRUSTED')) {
      throw new PkiFileError(path, `${which} is in OpenSSL's trusted form; write it with 'openssl x509 -in ${path}'`);
    }
    const der = block.der();
    if (der === undefined) throw new PkiFileError(path, `${which} is not base64 between its lines; copy it again`);
    try {
      return [certificateFrom(path, der, which)];
    } catch (error) {
      if (onForeign === undefined || !isForeignAlgorithm(error)) throw error;
      onForeign(error);
      return [];
    }
  });
  // The key may stand in the same file.
  bytes.fill(0);
  return certificates;
}

function certificateFrom(path: string, der: Uint8Array, which: string): Certificate {
  try {
    return parseCertificate(der);
  } catch (error) {
    const problem = `${which} cannot be used: ${messageOf(error)}; copy it again, or have it reissued`;
    throw new PkiFileError(path, problem, undefined, error);
  }
}

/** @param passphrase wiped by the caller */
export function loadPrivateKey(path: string, passphrase: Uint8Array | undefined, reader: FileReader): KeyObject {
  const bytes = bounded(path, reader.readPrivate(path), MAX_FILE);
  try {
    const key = isDer(bytes) ? derKey(path, bytes, passphrase) : pemKey(path, bytes, passphrase);
    const problem = keyProblem(key);
    if (problem !== undefined) throw new PkiFileError(path, `it holds ${problem}`);
    return key;
  } finally {
    bytes.fill(0);
  }
}

/** What stands in a block of that label, in Node's words. */
const KEY_TYPES = {
  'PRIVATE KEY': 'pkcs8',
  'ENCRYPTED PRIVATE KEY': 'pkcs8',
  'RSA PRIVATE KEY': 'pkcs1',
  'EC PRIVATE KEY': 'sec1',
} as const;

function pemKey(path: string, bytes: Uint8Array, passphrase: Uint8Array | undefined): KeyObject {
  const blocks = pemBlocks(bytes);
  const keys = blocks.filter(({ label }) => label.endsWith('PRIVATE KEY'));
  const [block] = keys;
  if (block === undefined) throw new PkiFileError(path, `${holds(blocks)}; a private key in PEM or DER is required`);
  if (keys.length > 1) throw new PkiFileError(path, `it holds ${keys.length} private keys; keep one`);
  if (block.label === 'OPENSSH PRIVATE KEY') {
    throw new PkiFileError(path, `it holds an SSH key; write it as PEM with 'ssh-keygen -p -m PEM -f ${path}'`);
  }
  const encrypted = block.label === 'ENCRYPTED PRIVATE KEY' || block.hasHeaders;
  if (encrypted && passphrase === undefined) throw needsPassphrase(path);
  const type = isKeyLabel(block.label) ? KEY_TYPES[block.label] : undefined;
  // OpenSSL's own reader of PEM leaves lines of it in memory that it has given back.
  const der = type === undefined ? undefined : block.der();
  try {
    if (type === undefined || der === undefined)
      return importKey({ key: inBuffer(block.pem), format: 'pem' }, passphrase);
    return importKey({ key: inBuffer(der), format: 'der', type }, passphrase);
  } catch (error) {
    throw keyError(path, error, encrypted);
  } finally {
    der?.fill(0);
  }
}

function isKeyLabel(label: string): label is keyof typeof KEY_TYPES {
  return Object.hasOwn(KEY_TYPES, label);
}

/** The same memory. */
function inBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}

function importKey(key: PrivateKeyInput, passphrase: Uint8Array | undefined): KeyObject {
  return createPrivateKey(passphrase === undefined ? key : { ...key, passphrase: inBuffer(passphrase) });
}

function derKey(path: string, der: Uint8Array, passphrase: Uint8Array | undefined): KeyObject {
  let last: unknown;
  // Encrypted PKCS#8 fails without a pass phrase, and nothing in it says so: its first element is then a sequence.
  const encrypted = der[der[1]! < 0x80 ? 2 : 2 + (der[1]! - 0x80)] === 0x30;
  if (encrypted && passphrase === undefined) throw needsPassphrase(path);
  for (const type of ['pkcs8', 'pkcs1', 'sec1'] as const) {
    try {
      return importKey({ key: inBuffer(der), format: 'der', type }, passphrase);
    } catch (error) {
      last ??= error;
    }
  }
  throw keyError(path, last, encrypted);
}

function needsPassphrase(path: string): PkiFileError {
  return new PkiFileError(path, "the key is encrypted; name its pass phrase: <key file='…'><secret uuid='…'/></key>");
}

function keyError(path: string, error: unknown, encrypted: boolean): PkiFileError {
  const why = encrypted ? 'the pass phrase in the secret is wrong, or the key is damaged' : 'the key cannot be read';
  return new PkiFileError(path, `${why} (${messageOf(error)})`);
}

export function loadCrls(path: string, reader: FileReader): Crl[] {
  const bytes = bounded(path, reader.read(path), 2 * MAX_CRL);
  const blocks = isDer(bytes) ? undefined : pemBlocks(bytes);
  const lists =
    blocks === undefined ? [bytes] : blocks.flatMap((block) => (block.label === 'X509 CRL' ? (block.der() ?? []) : []));
  if (lists.length === 0)
    throw new PkiFileError(path, `${holds(blocks ?? [])}; a revocation list in PEM or DER is required`);
  return lists.map((der) => {
    try {
      return parseCrl(der);
    } catch (error) {
      throw new PkiFileError(path, messageOf(error));
    }
  });
}

/** @throws PkiFileError when the key is not that of the certificate */
export function checkKeyMatches(certificate: Certificate, certPath: string, key: KeyObject, keyPath: string): void {
  const own = createPublicKey(key).export({ format: 'der', type: 'spki' });
  if (own.equals(certificate.publicKey.export({ format: 'der', type: 'spki' }))) return;
  throw new PkiFileError(
    keyPath,
    `the key is not that of ${describeCertificate(certificate)}, the first certificate in ${certPath}; ` +
      'name the key that the certificate was made with, or put its certificate first',
  );
}

function bounded(path: string, bytes: Uint8Array, most: number): Uint8Array {
  if (bytes.length > most) throw new PkiFileError(path, `it has ${bytes.length} bytes; the limit is ${most}`);
  if (bytes.length === 0) throw new PkiFileError(path, 'it is empty; copy it again');
  return bytes;
}

function holds(blocks: readonly PemBlock[]): string {
  if (blocks.length === 0) return 'it holds neither PEM nor DER';
  const labels = blocks.map(({ label }) => label);
  return `it holds ${listSome(labels, 3)}`;
}
