/**
 * Where certificates are: by libvirt's rules (its own search, and what libvirtd.conf says otherwise), or as a document
 * names them.
 */
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** What a document says of certificates. */
export interface X509Source {
  readonly source: 'server' | 'client' | 'file';
  readonly pkipath: string | undefined;
  readonly ca: string | undefined;
  readonly cert: string | undefined;
  readonly key: { readonly file: string } | undefined;
  readonly crl:
    | { readonly file: string | undefined; readonly fetch: boolean; readonly policy: 'strict' | 'ifpresent' }
    | undefined;
  readonly ocsp: { readonly policy: 'strict' | 'ifpresent' } | undefined;
  readonly allow: readonly string[];
  readonly commonName: boolean;
  readonly sha1: boolean;
}

export const THE_DOCUMENT = 'the document';

/** A file, and who says that it is this one. */
export interface Place {
  readonly path: string;
  readonly said: string;
}

/** A certificate and its key. */
export interface PlacePair {
  readonly cert: Place;
  readonly key: Place;
}

export interface PkiPlaces {
  readonly source: X509Source['source'];
  /** Files that nothing names are missing here; `wantedPlace` reports that. */
  readonly ca: Place | undefined;
  readonly cert: Place | undefined;
  readonly key: Place | undefined;
  /** Others that libvirt has beside the first, in its order: TLS takes the one that suits both ends. */
  readonly others: readonly PlacePair[];
  readonly crl: Place | undefined;
  /** Of revocation: what either `<crl>` or `<ocsp>` wants. */
  readonly policy: 'strict' | 'ifpresent';
  /** Patterns over the names that are let in; empty for all. */
  readonly allow: readonly string[];
  /** What libvirt would not take, or not find, for people. */
  readonly warnings: readonly string[];
}

/** Where libvirt looks. */
export interface LibvirtRoots {
  /** `/etc/libvirt` */
  readonly config: string;
  /** `/etc/pki` */
  readonly pki: string;
  /** `~/.pki/libvirt`; `undefined` for root, who has none. */
  readonly user: string | undefined;
}

export function systemRoots(): LibvirtRoots {
  const user = process.geteuid?.() === 0 ? undefined : join(homedir(), '.pki/libvirt');
  return { config: '/etc/libvirt', pki: '/etc/pki', user };
}

/** @throws Error, for people, when libvirt's configuration names some of the files only */
export function findPlaces(x509: X509Source, roots: LibvirtRoots): PkiPlaces {
  const found = x509.source === 'file' ? undefined : libvirtPlaces(x509.source, x509.pkipath, roots);
  const own = (path: string | undefined, otherwise: Place | undefined): Place | undefined =>
    path === undefined ? otherwise : { path, said: THE_DOCUMENT };
  // Both or none: a key of another certificate is of no use.
  const pair = x509.cert === undefined && x509.key === undefined ? found : undefined;
  return {
    source: x509.source,
    ca: own(x509.ca, found?.ca),
    cert: own(x509.cert, pair?.cert),
    key: own(x509.key?.file, pair?.key),
    others: pair?.others ?? [],
    warnings: pair?.warnings ?? [],
    crl: crlPlace(x509.crl, found?.crl),
    policy: x509.crl?.policy === 'strict' || x509.ocsp?.policy === 'strict' ? 'strict' : 'ifpresent',
    allow: x509.allow.length > 0 ? x509.allow : (found?.allow ?? []),
  };
}

/** What a side of the tunnel needs: a certificate and its key to show, authorities to judge by. @throws Error where nothing names it */
export function wantedPlace(places: PkiPlaces, what: 'ca' | 'cert' | 'key'): Place {
  const place = places[what];
  if (place !== undefined) return place;
  throw new Error(`<x509 source='${places.source}'> names no <${what} file='…'/>; add it`);
}

function crlPlace(own: X509Source['crl'], otherwise: Place | undefined): Place | undefined {
  if (own?.file === undefined) return otherwise;
  // What is wanted if present may be absent.
  if (own.policy === 'ifpresent' && !existsSync(own.file)) return undefined;
  return { path: own.file, said: THE_DOCUMENT };
}

interface Found extends PlacePair, Pick<PkiPlaces, 'others' | 'crl' | 'allow' | 'warnings'> {
  readonly ca: Place;
}

function libvirtPlaces(side: 'server' | 'client', pkipath: string | undefined, roots: LibvirtRoots): Found {
  if (pkipath !== undefined) return { ...inFolder(pkipath, side, `pkipath='${pkipath}'`), allow: [] };
  const standard = standardPlaces(side, roots);
  return side === 'server' ? (configuredPlaces(standard, roots) ?? standard) : standard;
}

/** All in one folder, as with `pkipath` in a URI of libvirt and in `~/.pki/libvirt`. */
function inFolder(folder: string, side: 'server' | 'client', said: string): Omit<Found, 'allow'> {
  const place = (name: string): Place => ({ path: join(folder, name), said });
  const crl = place('cacrl.pem');
  return {
    ca: place('cacert.pem'),
    ...numbered((number) => ({ cert: place(`${side}cert${number}.pem`), key: place(`${side}key${number}.pem`) })),
    crl: existsSync(crl.path) ? crl : undefined,
  };
}

type Pairs = Pick<Found, 'cert' | 'key' | 'others' | 'warnings'>;

/** Highest number in the names of libvirt's default certificates. */
const MAX_NUMBER = 3;

/**
 * libvirt's default certificates: the one without a number, then 0 to 3, each there or not; it stops at the first number that
 * is missing. Where there is none at all, it is the one without a number that is wanted.
 */
function numbered(pair: (number: string) => PlacePair): Pairs {
  const plain = pair('');
  const all = Array.from({ length: MAX_NUMBER + 1 }, (_, number) => pair(String(number)));
  const isThere = ({ cert, key }: PlacePair): boolean => existsSync(cert.path) || existsSync(key.path);
  const end = all.findIndex((each) => !isThere(each));
  const counted = all.slice(0, end < 0 ? all.length : end);
  const behind = end < 0 ? [] : all.slice(end).filter(isThere);
  const [first, ...others] = [...(isThere(plain) || counted.length === 0 ? [plain] : []), ...counted];
  return { ...first!, others, warnings: behind.map(({ cert }) => gapText(cert.path, all[end]!.cert.path)) };
}

function gapText(path: string, missing: string): string {
  return `${path} is skipped, by libvirt too: there is no ${missing}, and numbers must have no gaps`;
}

function standardPlaces(side: 'server' | 'client', { pki, user }: LibvirtRoots): Found {
  const place = (name: string): Place => ({ path: join(pki, name), said: "libvirt's default" });
  const own = user === undefined ? undefined : inFolder(user, side, "libvirt's default for users");
  // A user's certificate and key go together; what is not there is taken from the system's.
  const { cert, key, others, warnings } =
    own !== undefined && existsSync(own.cert.path) && existsSync(own.key.path)
      ? own
      : numbered((number) => ({
          cert: place(`libvirt/${side}cert${number}.pem`),
          key: place(`libvirt/private/${side}key${number}.pem`),
        }));
  const crl = ['CA/cacrl.pem', 'CA/crl.pem'].map(place).find(({ path }) => existsSync(path));
  return {
    ca: own !== undefined && existsSync(own.ca.path) ? own.ca : place('CA/cacert.pem'),
    ...{ cert, key, others, warnings },
    crl: own?.crl ?? crl,
    allow: [],
  };
}

/** The monolithic daemon's, or that of the one which speaks TLS for the modular daemons. */
const CONFIGURATIONS = ['libvirtd.conf', 'virtproxyd.conf'];

function configuredPlaces(standard: Found, { config }: LibvirtRoots): Found | undefined {
  for (const name of CONFIGURATIONS) {
    const path = join(config, name);
    const settings = existsSync(path) ? parseLibvirtConfig(readFileSync(path, 'utf8')) : new Map<string, string[]>();
    const placesOf = (key: string): Place[] =>
      (settings.get(key) ?? [])
        .filter((file) => file !== '')
        .map((file) => ({ path: file, said: `${key} in ${path}` }));
    const [ca] = placesOf('ca_file');
    const pairs = configuredPairs(path, placesOf);
    const allow = settings.get('tls_allowed_dn_list') ?? [];
    const crl = placesOf('crl_file')[0] ?? standard.crl;
    if (ca !== undefined && pairs !== undefined) return { ca, ...pairs, crl, allow };
    if (ca !== undefined || pairs !== undefined) {
      throw new Error(`${path} names some of ca_file, cert_file and key_file only; libvirt wants all three or none`);
    }
    if (allow.length > 0 || crl !== standard.crl) return { ...standard, crl, allow };
  }
  return undefined;
}

/** `cert_file` with `key_file`, or, in newer releases, the lists `cert_files` and `key_files`. @throws Error for people */
function configuredPairs(path: string, placesOf: (key: string) => Place[]): Pairs | undefined {
  const lists = { cert: placesOf('cert_files'), key: placesOf('key_files') };
  const single = { cert: placesOf('cert_file').slice(0, 1), key: placesOf('key_file').slice(0, 1) };
  const hasLists = lists.cert.length + lists.key.length > 0;
  if (hasLists && single.cert.length + single.key.length > 0) {
    throw new Error(
      `${path} has both cert_file or key_file and cert_files or key_files; libvirt wants one or the other`,
    );
  }
  const { cert: certs, key: keys } = hasLists ? lists : single;
  if (certs.length === 0 && keys.length === 0) return undefined;
  if (hasLists && certs.length !== keys.length) {
    throw new Error(
      `${path} names ${certs.length} in cert_files and ${keys.length} in key_files; libvirt wants a key for each certificate, in the same order`,
    );
  }
  const [first, ...others] = certs.flatMap((cert, at) => (keys[at] === undefined ? [] : [{ cert, key: keys[at] }]));
  if (first === undefined) {
    throw new Error(`${path} names some of ca_file, cert_file and key_file only; libvirt wants all three or none`);
  }
  return { ...first, others, warnings: [] };
}

/** `name = "text"` and `name = [ "text", … ]` of libvirt's configuration files; numbers are passed over. */
export function parseLibvirtConfig(text: string): Map<string, string[]> {
  // BOUNDED: by the file, which is the administrator's.
  const settings = new Map<string, string[]>();
  const plain = text.replace(/^\s*#.*$/gm, '');
  for (const [, name = '', value = ''] of plain.matchAll(/^\s*(\w+)\s*=\s*(\[[^\]]*\]|"[^"\n]*"|'[^'\n]*')/gm)) {
    settings.set(
      name,
      Array.from(value.matchAll(/"([^"\n]*)"|'([^'\n]*)'/g), ([, double, single]) => double ?? single ?? ''),
    );
  }
  return settings;
}
