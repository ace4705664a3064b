/** What the `<x509>` elements of a document mean on this machine: files, pass phrases, and what is to be said of them. */
import { readFileSync, statSync } from 'node:fs';
import { SectunnelError } from '../../base/error.ts';
import { type Identity, identityFromText, sameIdentity } from '../../base/identity.ts';
import { secretCopy } from '../../base/secret-bytes.ts';
import { messageOf } from '../../base/text.ts';
import type { SecretReference, SectunnelDocument, X509Settings } from '../../config/model.ts';
import type { PkiCheckResult } from '../../control/results.ts';
import type { Certificate } from '../../pki/certificate.ts';
import { checkPki } from '../../pki/check.ts';
import { CertificateFiles, expiry, type FileSource, inField, type Trust } from '../../pki/credentials.ts';
import { describeIdentity, provenIdentities, provesIdentity } from '../../pki/identity.ts';
import { type FileReader, PkiFileError } from '../../pki/load.ts';
import { systemRoots, wantedPlace } from '../../pki/places.ts';
import { OnlineRevocation } from '../../pki/revocation/online.ts';
import type { Credentials, Verifier } from '../../pki/types.ts';
import type { CertificateFacts } from '../../plan/plan.ts';
import { readPrivateFile } from '../store/files.ts';
import type { SecretSources } from './sources.ts';

/** No file of certificates or revocations is larger, in bytes. */
const MAX_FILE = 32 * 1024 * 1024;

const reader: FileReader = {
  read: (path) => reading(path, () => readFileSync(path)),
  readPrivate: (path) => reading(path, () => readPrivateFile(path)),
};

function reading(path: string, read: () => Buffer): Uint8Array {
  try {
    const found = statSync(path);
    if (!found.isFile()) throw new PkiFileError(path, 'it is no regular file; name one');
    if (found.size > MAX_FILE) throw new PkiFileError(path, `it has ${found.size} bytes; ${MAX_FILE} at most are read`);
    return read();
  } catch (error) {
    if (error instanceof PkiFileError) throw error;
    // The message about a file that other users may read begins with the path.
    if (error instanceof SectunnelError) throw new PkiFileError(path, error.message.replace(path, 'it'));
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ENOENT' || code === 'ENOTDIR') throw new PkiFileError(path, 'there is no such file');
    if (code === 'EACCES') {
      throw new PkiFileError(
        path,
        `user ${process.geteuid?.()} may not read it; make that user its owner, or run sectunneld as root`,
      );
    }
    throw error;
  }
}

/** The pass phrase of a key, which is there while files are read and at no other time. */
class PassPhrase {
  readonly #secrets: SecretSources;
  readonly #reference: SecretReference | undefined;
  #held: Uint8Array | { readonly problem: unknown } | undefined;

  constructor(secrets: SecretSources, reference: SecretReference | undefined) {
    this.#secrets = secrets;
    this.#reference = reference;
  }

  /** Has `use` find the pass phrase; an error matters only to those that use it. */
  async during<T>(use: () => T): Promise<Awaited<T>> {
    if (this.#reference === undefined) return await use();
    const held = await this.#secrets.value(this.#reference).then(
      ({ value }) => value,
      (problem: unknown) => ({ problem }),
    );
    this.#held = held;
    try {
      return await use();
    } finally {
      if (held instanceof Uint8Array) held.fill(0);
      if (this.#held === held) this.#held = undefined;
    }
  }

  /** A copy. @throws SectunnelError when it cannot be read */
  get(): Uint8Array | undefined {
    const held = this.#held;
    if (held !== undefined && 'problem' in held) throw held.problem;
    return held && secretCopy(held);
  }
}

/** What judges peers, and what asks others about certificates: the same for all tunnels. */
export type Judges = Pick<FileSource, 'online' | 'verifier'>;

/** @param onWarning called with what is wrong with renewed files, and of what expires soon */
function certificateSource(
  x509: X509Settings,
  phrase: PassPhrase,
  judges: Judges,
  onWarning: (text: string) => void,
): FileSource {
  return { x509, roots: systemRoots(), reader, passphrase: () => phrase.get(), ...judges, onWarning };
}

/** The certificates of a document, from files that may be renewed at any time. */
export class TunnelCertificates {
  readonly #document: SectunnelDocument;
  readonly #phrase: PassPhrase;
  readonly #local: CertificateFiles | undefined;
  readonly #remote: CertificateFiles | undefined;

  /** Reads nothing yet. @param onWarning called for broken renewals and for what expires soon */
  constructor(document: SectunnelDocument, secrets: SecretSources, judges: Judges, onWarning: (text: string) => void) {
    this.#document = document;
    const auth = x509Auths(document).find(({ side }) => side !== 'remote');
    this.#phrase = new PassPhrase(secrets, auth?.x509.key?.secret);
    const files = (of: 'local' | 'remote'): CertificateFiles | undefined => {
      const found = x509Auths(document).find(({ side }) => side === 'both' || side === of);
      return found && new CertificateFiles(certificateSource(found.x509, this.#phrase, judges, onWarning));
    };
    this.#local = files('local');
    this.#remote = files('remote');
  }

  /** Whether a tunnel could start with them. @throws SectunnelError saying which file is wrong, and how it is mended */
  check(now: number): Promise<CertificateFacts> {
    return refusingFiles(() => this.#phrase.during(() => this.#checked(now)));
  }

  #checked(now: number): CertificateFacts {
    const trust = this.#remote?.trust(now);
    const authorities = trust?.verifier.authorities ?? [];
    if (trust !== undefined) checkAnchors(trust, now);
    if (this.#local === undefined) return { localId: undefined, authorities };
    const { chain, places } = this.#local.credentials(now);
    const [leaf] = chain;
    const said = documentId(this.#document);
    inField('cert', places, ({ path }) => {
      if (leaf!.notAfter < now) throw new PkiFileError(path, `${expiry(leaf!, now)}; renew it`);
      if (said !== undefined) checkProves(leaf!, path, said);
    });
    const proven = provenIdentities(leaf!, NO_COMMON_NAME);
    // Byte by byte as in the certificate: not all peers compare distinguished names as RFC 5280 §7.1 requires.
    const localId = said === undefined ? proven[0] : (proven.find((id) => sameIdentity(id, said)) ?? said);
    return { localId, authorities };
  }

  /** Warns of certificates that expire soon and of broken renewals, also while no peer authenticates. */
  async look(now: number): Promise<void> {
    try {
      await this.#phrase.during(() => this.#local?.credentials(now));
      this.#remote?.trust(now);
    } catch {
      // They were loaded when the tunnel started; problems since then have been logged.
    }
  }

  /** @throws Error, for people */
  async credentials(now: number, localId: Identity): Promise<Credentials | undefined> {
    const credentials = await this.#phrase.during(() => this.#local?.credentials(now));
    if (credentials !== undefined)
      checkProves(credentials.chain[0]!, wantedPlace(credentials.places, 'cert').path, localId);
    return credentials;
  }

  /** @throws Error, for people */
  verifier(): Verifier | undefined {
    return this.#remote?.trust(Date.now()).verifier;
  }
}

/** @throws PkiFileError when no peer could be trusted */
function checkAnchors({ anchors, places }: Trust, now: number): void {
  const [first] = anchors;
  if (first === undefined || anchors.some(({ notAfter }) => notAfter >= now)) return;
  const others = anchors.length > 1 ? `, as have the ${anchors.length - 1} others` : '';
  inField('ca', places, ({ path }) => {
    throw new PkiFileError(path, `${expiry(first, now)}${others}; replace it with the authority's new certificate`);
  });
}

type X509Auth = Extract<SectunnelDocument['sa']['auths'][number], { readonly type: 'x509' }>;

function x509Auths({ sa }: SectunnelDocument): X509Auth[] {
  return sa.auths.flatMap((auth) => (auth.type === 'x509' ? [auth] : []));
}

const NO_COMMON_NAME = { allowCommonName: false };

function documentId({ sa }: SectunnelDocument): Identity | undefined {
  const { id } = sa.local;
  return id && identityFromText(id.type, id.text);
}

function checkProves(certificate: Certificate, path: string, localId: Identity): void {
  if (provesIdentity(certificate, localId, NO_COMMON_NAME)) return;
  const proven = provenIdentities(certificate, NO_COMMON_NAME).map(describeIdentity).join('; ');
  throw new PkiFileError(
    path,
    `it does not prove ${describeIdentity(localId)}, the <id> of <local>, but ${proven || 'no identity'}`,
  );
}

async function refusingFiles<T>(load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (error) {
    if (error instanceof SectunnelError) throw error;
    throw new SectunnelError('system', messageOf(error));
  }
}

/** For a daemon that verifies no peer and fetches nothing. */
const OFFLINE: Judges = {
  online: new OnlineRevocation({ fetch: () => Promise.reject(new Error('nothing is fetched now')) }),
};

/** What is to be said when a tunnel is defined: that may be before its files are there, but it cannot start without them. */
export async function certificateProblems(document: SectunnelDocument, secrets: SecretSources): Promise<string[]> {
  const warnings: string[] = [];
  const certificates = new TunnelCertificates(document, secrets, OFFLINE, (text) => void warnings.push(text));
  try {
    await certificates.check(Date.now());
    return warnings;
  } catch (error) {
    return [messageOf(error)];
  }
}

/** @throws SectunnelError when the document has no certificates */
export async function checkCertificates(
  document: SectunnelDocument,
  secrets: SecretSources,
  online: OnlineRevocation,
): Promise<PkiCheckResult> {
  const x509 = x509Auths(document);
  if (x509.length === 0) {
    throw new SectunnelError(
      'invalid-state',
      `tunnel ${document.name} has no <auth type='x509'>, so there is nothing to check`,
    );
  }
  const localId = documentId(document);
  const sides = x509.map(async ({ side, x509: settings, line }) => {
    const phrase = new PassPhrase(secrets, settings.key?.secret);
    const source = certificateSource(settings, phrase, { online }, () => undefined);
    const report = await phrase.during(() => checkPki({ source, side, localId, now: Date.now() }));
    return { side, line, ...report };
  });
  return { name: document.name, sides: await Promise.all(sides) };
}
