/**
 * What a tunnel authenticates with and which authorities it trusts, from files that may be renewed at any time: a change is used
 * from the next authentication on; broken files cause a warning, and the previous ones remain in use.
 */
import type { KeyObject } from 'node:crypto';
import { statSync } from 'node:fs';
import { listSome, messageOf } from '../base/text.ts';
import { type Certificate, describeCertificate } from './certificate.ts';
import {
  checkKeyMatches,
  type FileReader,
  isForeignAlgorithm,
  loadAuthorities,
  loadChain,
  loadCrls,
  loadPrivateKey,
  PkiFileError,
} from './load.ts';
import {
  findPlaces,
  type LibvirtRoots,
  type PkiPlaces,
  type Place,
  type PlacePair,
  THE_DOCUMENT,
  wantedPlace,
  type X509Source,
} from './places.ts';
import { type Crl, staleness } from './revocation/crl.ts';
import type { OnlineRevocation } from './revocation/online.ts';
import type { OnlineSources } from './revocation/revocation.ts';
import { keySigner } from './signer.ts';
import { formatDay } from './time.ts';
import type { Credentials, Verifier } from './types.ts';
import { pathVerifier, type VerifierOptions } from './verifier.ts';

const DAY = 24 * 3_600_000;
/** Warn of certificates that expire within this time, milliseconds. */
export const EXPIRY_WARNING: number = 30 * DAY;

export interface FileSource {
  readonly x509: X509Source;
  readonly roots: LibvirtRoots;
  readonly reader: FileReader;
  /** Pass phrase of the key, a copy that is wiped after use; `undefined` for none. */
  readonly passphrase: () => Uint8Array | undefined;
  /** Asks others whether a certificate was revoked; for documents that want it. */
  readonly online: OnlineRevocation;
  /** Makes what judges peers. Default: `pathVerifier`, in the caller's own thread. */
  readonly verifier?: ((options: VerifierOptions) => Verifier) | undefined;
  /** For people, each once. */
  readonly onWarning: (text: string) => void;
}

export interface OwnCredentials extends Credentials {
  readonly chain: readonly Certificate[];
  readonly places: PkiPlaces;
}

/**
 * Of several certificates the first whose key is for a method of IKE: libvirt may have others before it, for TLS. What else
 * is wrong with one is no reason to take the next.
 * @param onPassed told of those before it
 */
export function choosePair(
  places: PkiPlaces,
  reader: FileReader,
  onPassed: (pair: PlacePair, error: unknown) => void = () => undefined,
): PkiPlaces & PlacePair {
  const first = { cert: wantedPlace(places, 'cert'), key: wantedPlace(places, 'key') };
  const pairs: readonly PlacePair[] = [first, ...places.others];
  for (const [at, { cert, key }] of pairs.entries()) {
    try {
      loadChain(cert.path, reader);
    } catch (error) {
      if (at < pairs.length - 1 && isForeignAlgorithm(error)) {
        onPassed({ cert, key }, error);
        continue;
      }
    }
    return { ...places, cert, key, others: pairs.slice(at + 1) };
  }
  return { ...places, ...first };
}

/** @throws Error, for people, when a file is missing, unreadable or does not fit the others */
export function loadCredentials(found: PkiPlaces, source: Omit<FileSource, 'onWarning'>): OwnCredentials {
  const places = found.others.length === 0 ? found : choosePair(found, source.reader);
  const chain = inField('cert', places, ({ path }) => loadChain(path, source.reader));
  const key = inField('key', places, () => loadKey(places, source));
  const { path: certPath } = wantedPlace(places, 'cert');
  inField('key', places, ({ path }) => checkKeyMatches(chain[0]!, certPath, key, path));
  return {
    certificates: chain.map(({ der }) => der),
    signer: keySigner(key, { allowSha1: source.x509.sha1 }),
    chain,
    places,
  };
}

function loadKey(places: PkiPlaces, { reader, passphrase }: Omit<FileSource, 'onWarning'>): KeyObject {
  const phrase = passphrase();
  try {
    return loadPrivateKey(wantedPlace(places, 'key').path, phrase, reader);
  } finally {
    phrase?.fill(0);
  }
}

/** Says, with what is wrong with a file, who names it. @throws what `load` throws */
export function inField<T>(
  field: 'ca' | 'cert' | 'key' | 'crl',
  places: PkiPlaces,
  load: (place: { readonly path: string }) => T,
): T {
  const place = field === 'crl' ? places.crl! : wantedPlace(places, field);
  try {
    return load({ path: place.path });
  } catch (error) {
    if (!(error instanceof PkiFileError)) throw error;
    const element = `<${field} file='…'/>`;
    const who = place.said === THE_DOCUMENT ? `${element} of ${place.said}` : `${place.said}; ${element} names another`;
    throw new PkiFileError(error.path, error.problem, who);
  }
}

export interface Trust {
  readonly anchors: readonly Certificate[];
  /** Authorities that are passed over, and why, for people. */
  readonly passed: readonly string[];
  readonly crls: readonly Crl[];
  readonly places: PkiPlaces;
  readonly verifier: Verifier;
}

/** @throws Error, for people */
export function loadTrust(
  places: PkiPlaces,
  source: Pick<FileSource, 'reader' | 'x509' | 'online' | 'verifier'>,
): Trust {
  const { reader, x509, verifier: makeVerifier = pathVerifier } = source;
  const passed: string[] = [];
  const anchors = inField('ca', places, ({ path }) => loadAuthorities(path, reader, (text) => void passed.push(text)));
  const crls = places.crl === undefined ? [] : inField('crl', places, ({ path }) => loadCrls(path, reader));
  const verifier = makeVerifier({
    anchors,
    crls,
    crlPolicy: places.policy,
    online: onlineSources(source),
    allowedDns: places.allow,
    allowSha1: x509.sha1,
    allowCommonName: x509.commonName,
  });
  return { anchors, passed, crls, places, verifier };
}

/** What a document wants to be asked over the network; `undefined` for nothing. */
export function onlineSources({
  x509: { crl, ocsp },
  online,
}: Pick<FileSource, 'x509' | 'online'>): OnlineSources | undefined {
  const sources = { through: online, ocsp: ocsp !== undefined, lists: crl?.fetch === true };
  return sources.ocsp || sources.lists ? sources : undefined;
}

/** Something loaded from files, and loaded again when they change. */
class FromFiles<T> {
  readonly #source: FileSource;
  readonly #files: (places: PkiPlaces) => readonly string[];
  readonly #load: (places: PkiPlaces) => T;
  #loaded: { readonly value: T; readonly state: string } | undefined;
  /** The last warning, which is not repeated. */
  #broken = '';

  constructor(source: FileSource, files: (places: PkiPlaces) => readonly string[], load: (places: PkiPlaces) => T) {
    this.#source = source;
    this.#files = files;
    this.#load = load;
  }

  /** @throws Error, for people, when there is nothing from before either */
  get(): T {
    const { x509, roots, onWarning } = this.#source;
    try {
      const places = findPlaces(x509, roots);
      const state = JSON.stringify(this.#files(places).map(fileState));
      if (this.#loaded?.state !== state) this.#loaded = { value: this.#load(places), state };
      this.#broken = '';
    } catch (error) {
      if (this.#loaded === undefined) throw error;
      const text = messageOf(error);
      if (text !== this.#broken) onWarning(`${text}; the previous files remain in use`);
      this.#broken = text;
    }
    return this.#loaded.value;
  }
}

function pathsOf(...places: readonly (Place | undefined)[]): string[] {
  return places.flatMap((place) => (place === undefined ? [] : [place.path]));
}

function fileState(path: string): unknown[] {
  const found = statSync(path, { throwIfNoEntry: false });
  return [path, found?.mtimeMs, found?.size, found?.ino];
}

/** One side of a tunnel with certificates: our credentials, or the authorities that we trust. */
export class CertificateFiles {
  readonly #source: FileSource;
  readonly #own: FromFiles<OwnCredentials>;
  readonly #trust: FromFiles<Trust>;
  #warned = '';
  #warnedOfTrust = '';

  constructor(source: FileSource) {
    this.#source = source;
    this.#own = new FromFiles(
      source,
      (places) => [places, ...places.others].flatMap(({ cert, key }) => pathsOf(cert, key)),
      (places) => loadCredentials(places, source),
    );
    this.#trust = new FromFiles(
      source,
      ({ ca, crl }) => pathsOf(ca, crl),
      (places) => loadTrust(places, source),
    );
  }

  /** @throws Error, for people @param now milliseconds since 1970 */
  credentials(now: number): OwnCredentials {
    const own = this.#own.get();
    const text = own.chain.flatMap((certificate) => expiry(certificate, now) ?? []).join('; ');
    if (text !== '' && text !== this.#warned)
      this.#source.onWarning(`${wantedPlace(own.places, 'cert').path}: ${text}`);
    this.#warned = text;
    return own;
  }

  /** @throws Error, for people @param now milliseconds since 1970 */
  trust(now: number): Trust {
    const trust = this.#trust.get();
    const { anchors, crls, places } = trust;
    const expiring = anchors.flatMap((anchor) => expiry(anchor, now) ?? []);
    const stale = crls.flatMap((crl) => crlExpiry(crl, now) ?? []);
    const text = [...named(places.ca, expiring), ...named(places.crl, stale)].join('; ');
    if (text !== '' && text !== this.#warnedOfTrust) this.#source.onWarning(text);
    this.#warnedOfTrust = text;
    return trust;
  }
}

/** Problems that a warning lists of one file. */
const MAX_LISTED = 3;

function named(place: { readonly path: string } | undefined, problems: readonly string[]): string[] {
  if (place === undefined || problems.length === 0) return [];
  return [`${place.path}: ${listSome(problems, MAX_LISTED, '; ')}`];
}

/** `'CN=gw1' expires in 12 days`: changes once a day. */
export function expiry(certificate: Certificate, now: number): string | undefined {
  const left = certificate.notAfter - now;
  if (left >= EXPIRY_WARNING) return undefined;
  const date = formatDay(certificate.notAfter);
  const name = describeCertificate(certificate);
  if (left < 0) return `${name} expired on ${date}`;
  const days = Math.floor(left / DAY);
  return `${name} expires on ${date}, ${days === 0 ? 'within a day' : days === 1 ? 'in a day' : `in ${days} days`}`;
}

/** What will be wrong with a list soon, or is. */
export function crlExpiry(crl: Crl, now: number): string | undefined {
  const stale = staleness(crl, now, 0);
  return stale === undefined ? undefined : `the revocation list of '${crl.issuer}' ${stale}`;
}
