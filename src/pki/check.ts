/**
 * What would become of a tunnel's certificates: which files, which identities they prove, what is expired or about to,
 * what a peer would reject.
 */
import { createPublicKey } from 'node:crypto';
import { messageOf } from '../base/text.ts';
import { type Certificate, describeCertificate, isSelfIssued } from './certificate.ts';
import { choosePair, crlExpiry, expiry, type FileSource, loadTrust, onlineSources, type Trust } from './credentials.ts';
import { describeIdentity, provenIdentities, provesIdentity } from './identity.ts';
import { checkKeyMatches, loadChain, loadPrivateKey } from './load.ts';
import { methodsOf } from './methods.ts';
import { type PathOptions, revocationRefusal, validatePath } from './path.ts';
import { findPlaces, type PkiPlaces, type Place, wantedPlace, type X509Source } from './places.ts';
import { type OnlineSources, revocationOf } from './revocation/revocation.ts';
import type { PeerIdentity } from './types.ts';

export interface PkiFile {
  readonly role: 'ca' | 'certificate' | 'key' | 'crl';
  readonly path: string;
  /** Who says that it is this one. */
  readonly said: string;
  /** What is in it, or what is wrong. */
  readonly found: string;
}

export interface PkiFinding {
  /** `error`: it does not work. `warning`: soon it will not. `note`: worth knowing. */
  readonly level: 'error' | 'warning' | 'note';
  readonly text: string;
}

export interface PkiReport {
  readonly files: readonly PkiFile[];
  /** What our certificate proves, as documents would write it; empty where only the peer has one. */
  readonly identities: readonly string[];
  /** Ways in which the key can sign, the preferred first. */
  readonly methods: readonly string[];
  readonly findings: readonly PkiFinding[];
}

export interface CheckInput {
  readonly source: Omit<FileSource, 'onWarning'>;
  /** Which side of the tunnel the files are for. */
  readonly side: 'both' | 'local' | 'remote';
  /** As the document says. */
  readonly localId: PeerIdentity | undefined;
  /** Milliseconds since 1970. */
  readonly now: number;
}

/** Never throws for what is wrong with files. */
export async function checkPki(input: CheckInput): Promise<PkiReport> {
  const report = new Report();
  const places = report.attempt(() => findPlaces(input.source.x509, input.source.roots));
  if (places === undefined) return report;
  // Who shows a certificate judges none: what it names of authorities is looked at all the same.
  const judges = input.side !== 'local' || places.ca !== undefined;
  const trust = judges ? report.attempt(() => loadTrust(places, input.source)) : undefined;
  if (places.ca !== undefined) report.files.push(caFile(places.ca, trust));
  if (places.crl !== undefined) report.files.push(crlFile(places.crl, trust));
  else report.add('note', absentList(input.source.x509));
  const stale = places.policy === 'strict' && onlineSources(input.source) === undefined ? 'error' : 'warning';
  for (const crl of trust?.crls ?? []) report.add(stale, crlExpiry(crl, input.now));
  for (const anchor of trust?.anchors ?? []) report.add(levelOf(anchor, input.now), expiry(anchor, input.now));
  for (const text of trust?.passed ?? []) report.add('note', `IKE cannot use one authority, which is skipped: ${text}`);
  if (input.side !== 'remote') await checkOwn(report, choose(report, places, input), trust, input);
  return report;
}

class Report implements PkiReport {
  readonly files: PkiFile[] = [];
  readonly identities: string[] = [];
  readonly methods: string[] = [];
  readonly findings: PkiFinding[] = [];

  add(level: PkiFinding['level'], text: string | undefined): void {
    if (text !== undefined) this.findings.push({ level, text });
  }

  attempt<T>(load: () => T): T | undefined {
    try {
      return load();
    } catch (error) {
      this.add('error', messageOf(error));
      return undefined;
    }
  }
}

function levelOf(certificate: Certificate, now: number): PkiFinding['level'] {
  return certificate.notAfter < now ? 'error' : 'warning';
}

function caFile(ca: Place, trust: Trust | undefined): PkiFile {
  const found = trust === undefined ? 'not usable' : trust.anchors.map(describeCertificate).join(', ');
  return { role: 'ca', ...ca, found };
}

function crlFile({ path, said }: NonNullable<PkiPlaces['crl']>, trust: Trust | undefined): PkiFile {
  const lists = trust?.crls.map(({ issuer, revoked }) => `'${issuer}', ${revoked.size} revoked`);
  return { role: 'crl', path, said, found: lists?.join('; ') ?? 'not usable' };
}

function absentList({ crl }: X509Source): string | undefined {
  return crl?.file && `there is no ${crl.file}, so no certificate counts as revoked (policy='${crl.policy}')`;
}

/** Of several certificates the one that is used. The others are reported. */
function choose(report: Report, places: PkiPlaces, { source: { reader } }: CheckInput): PkiPlaces {
  for (const text of places.warnings) report.add('warning', text);
  if (places.others.length === 0) return places;
  const chosen = choosePair(places, reader, ({ cert }, error) => {
    report.add('note', `${cert.path} is skipped, as IKE cannot use it: ${messageOf(error)}`);
  });
  if (chosen.others.length > 0) {
    const names = chosen.others.map(({ cert }) => cert.path).join(', ');
    report.add('note', `${chosen.cert.path} is the first that IKE can use; ${names} is left to TLS`);
  }
  return chosen;
}

/** Our own certificate, as a peer sees it that trusts the same authorities. */
async function checkOwn(report: Report, places: PkiPlaces, trust: Trust | undefined, input: CheckInput): Promise<void> {
  const { reader, passphrase } = input.source;
  const own = report.attempt(() => ({ cert: wantedPlace(places, 'cert'), key: wantedPlace(places, 'key') }));
  if (own === undefined) return;
  const { cert, key: keyPlace } = own;
  const chain = report.attempt(() => loadChain(cert.path, reader));
  report.files.push({
    role: 'certificate',
    ...cert,
    found: chain?.map(describeCertificate).join(', then ') ?? 'not usable',
  });
  const key = report.attempt(() => {
    const phrase = passphrase();
    try {
      return loadPrivateKey(keyPlace.path, phrase, reader);
    } finally {
      phrase?.fill(0);
    }
  });
  const kind = key && `${key.asymmetricKeyType}${sizeOf(createPublicKey(key).asymmetricKeyDetails)}`;
  report.files.push({ role: 'key', ...keyPlace, found: kind ?? 'not usable' });
  if (key !== undefined)
    report.methods.push(...methodsOf(key, { allowSha1: input.source.x509.sha1 }).map(({ name }) => name));
  const [leaf] = chain ?? [];
  if (chain === undefined || leaf === undefined) return;
  if (key !== undefined) report.attempt(() => checkKeyMatches(leaf, cert.path, key, keyPlace.path));
  for (const certificate of chain) report.add(levelOf(certificate, input.now), expiry(certificate, input.now));
  checkNames(report, leaf, cert.path, input.localId);
  if (trust !== undefined) await checkAsPeer(report, chain, trust, input);
}

function sizeOf(details: { modulusLength?: number; namedCurve?: string } | undefined): string {
  if (details?.modulusLength !== undefined) return `, ${details.modulusLength} bits`;
  return details?.namedCurve === undefined ? '' : `, ${details.namedCurve}`;
}

function checkNames(report: Report, leaf: Certificate, path: string, localId: PeerIdentity | undefined): void {
  const options = { allowCommonName: false };
  report.identities.push(...provenIdentities(leaf, options).map(describeIdentity));
  if (localId !== undefined && !provesIdentity(leaf, localId, options)) {
    const proven = report.identities.join('; ') || 'nothing';
    report.add('error', `the <id> of <local> is ${describeIdentity(localId)}, but ${path} proves only: ${proven}`);
  }
  const { subjectAltName, keyUsage, extendedKeyUsage } = leaf.extensions;
  if (subjectAltName === undefined) {
    report.add('note', `${path} has no subject alternative name: peers can identify us only by the distinguished name`);
  }
  if (keyUsage === undefined) report.add('note', `${path} does not restrict its key (no key usage); peers accept that`);
  if (extendedKeyUsage?.includes('1.3.6.1.5.5.7.3.17') === false) {
    report.add('note', `the extended key usage of ${path} is not for IKE; few peers check that (RFC 4945 §5.1.3.12)`);
  }
}

async function checkAsPeer(
  report: Report,
  chain: readonly Certificate[],
  trust: Trust,
  { now, source }: CheckInput,
): Promise<void> {
  const [leaf, ...sent] = chain;
  const online = onlineSources(source);
  const roots = trust.anchors.filter(isSelfIssued);
  const options: PathOptions = {
    anchors: roots.length > 0 ? roots : trust.anchors,
    intermediates: sent,
    crls: trust.crls,
    // What is asked over the network is looked at by itself, below.
    crlPolicy: online === undefined ? trust.places.policy : 'ifpresent',
    now,
    clockSkew: 0,
    allowSha1: source.x509.sha1,
    extendedKeyUsage: 'ignore',
  };
  const result = await validatePath(leaf!, options);
  if (result.ok) {
    if (online !== undefined) await checkOnline(report, result.path, options, online, trust.places.policy);
    return;
  }
  // An expired certificate was told of already.
  if (result.reason === 'expired') return;
  const withAll = await validatePath(leaf!, { ...options, intermediates: [...sent, ...trust.anchors] });
  if (withAll.ok) {
    const missing = withAll.path.slice(1, -1).filter((certificate) => !sent.includes(certificate));
    const names = missing.map(describeCertificate).join(', ');
    report.add('warning', `a peer that has only the root would reject us: append ${names} to the certificate's file`);
    return;
  }
  report.add('error', `a peer would reject us (${result.reason}): ${result.detail}`);
}

/** What the network says of our own certificates, as it would to a peer with the same document. */
async function checkOnline(
  report: Report,
  path: readonly Certificate[],
  options: PathOptions,
  online: OnlineSources,
  policy: 'strict' | 'ifpresent',
): Promise<void> {
  const found = await revocationOf(path, options, online);
  for (const [at, status] of found.entries()) {
    const name = describeCertificate(path[at]!);
    const refusal = revocationRefusal(path[at]!, status, policy);
    if (refusal !== undefined) report.add('error', `a peer would reject us (${refusal.reason}): ${refusal.detail}`);
    else if (status.status === 'good') report.add('note', `${name} was not revoked`);
    else report.add('warning', `whether ${name} was revoked is not known: ${status.detail}`);
  }
}
