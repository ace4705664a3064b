/** What the `<x509>` elements of a document mean on this machine: files, pass phrases, and what is to be said of them. */
import { readFileSync, statSync } from 'node:fs';
import { identityFromText } from '../base/identity.ts';
import type { SectunnelDocument, X509Settings } from '../config/model.ts';
import { checkPki } from '../pki/check.ts';
import type { FileSource } from '../pki/credentials.ts';
import { type FileReader, PkiFileError } from '../pki/load.ts';
import { systemRoots } from '../pki/places.ts';
import { readPrivateFile } from './files.ts';
import { ControlError, type PkiCheckResult } from './protocol.ts';
import type { SecretStore } from './secrets.ts';

/** No file of certificates or revocations is larger, in bytes. */
const MAX_FILE = 32 * 1024 * 1024;

const reader: FileReader = {
  read: (path) => reading(path, () => readFileSync(path)),
  readPrivate: (path) => reading(path, () => readPrivateFile(path)),
};

function reading(path: string, read: () => Buffer): Uint8Array {
  try {
    const found = statSync(path);
    if (!found.isFile()) throw new PkiFileError(path, 'it is no file');
    if (found.size > MAX_FILE) throw new PkiFileError(path, `it has ${found.size} bytes; ${MAX_FILE} at most are read`);
    return read();
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ENOENT' || code === 'ENOTDIR') throw new PkiFileError(path, 'there is no such file');
    if (code === 'EACCES') {
      throw new PkiFileError(
        path,
        `user ${process.geteuid?.()} may not read it; give it to that user, or let root run sectunneld`,
      );
    }
    throw error;
  }
}

/** @param onWarning told of what is wrong with renewed files, and of what expires soon */
function certificateSource(x509: X509Settings, secrets: SecretStore, onWarning: (text: string) => void): FileSource {
  const reference = x509.key?.secret;
  const passphrase = (): Uint8Array | undefined => (reference === undefined ? undefined : secrets.value(reference));
  return { x509, roots: systemRoots(), reader, passphrase, onWarning };
}

/** @throws ControlError when the document has no certificates */
export async function checkCertificates(document: SectunnelDocument, secrets: SecretStore): Promise<PkiCheckResult> {
  const { auths, local } = document.sa;
  const x509 = auths.flatMap((auth) => (auth.type === 'x509' ? [auth] : []));
  if (x509.length === 0) {
    throw new ControlError(
      'invalid-state',
      `tunnel ${document.name} has no <auth type='x509'>, so there is nothing to check`,
    );
  }
  const localId = local.id === undefined ? undefined : identityFromText(local.id.type, local.id.text);
  const sides = x509.map(async ({ side, x509: settings, line }) => {
    const source = certificateSource(settings, secrets, () => undefined);
    return { side, line, ...(await checkPki({ source, side, localId, now: Date.now() })) };
  });
  return { name: document.name, sides: await Promise.all(sides) };
}
