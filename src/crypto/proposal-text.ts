/**
 * Proposals as people write them, and back: attributes of a document (`encryption='aes256gcm16' prf='sha384'
 * dh='ecp384'`) or strongSwan's single string (`aes256gcm16-prfsha384-ecp384`), in which the kinds are told apart by
 * name. What may stand together follows RFC 7296 §3.3 and RFC 5282 §8.
 */
import { SectunnelError } from '../base/error.ts';
import { nearest } from '../base/similar.ts';
import {
  defaultPrfs,
  dhGroupByName,
  dhGroups,
  encryptionAlgorithms,
  encryptionByName,
  integrityAlgorithms,
  integrityByName,
  prfAlgorithms,
  prfByName,
} from './algorithms.ts';
import type { EspProposal, IkeProposal } from './proposal.ts';
import type { DhGroup, EncryptionAlgorithm, IntegrityAlgorithm, PrfAlgorithm } from './types.ts';

/** A proposal that cannot be used as it is written (`code` is `malformed`); the message says what would be right. */
export class ProposalError extends SectunnelError {
  override readonly name = 'ProposalError';

  constructor(message: string) {
    super('malformed', message);
  }
}

/**
 * The attributes of one proposal, each a list of names with commas, dashes or spaces between them. When only
 * `encryption` is given it may be a whole proposal in strongSwan's form.
 */
export interface ProposalText {
  readonly encryption?: string | undefined;
  readonly integrity?: string | undefined;
  /** Only for IKE. */
  readonly prf?: string | undefined;
  readonly dh?: string | undefined;
  /** Only for ESP: `yes` or `no`. */
  readonly esn?: string | undefined;
}

type Kind = 'encryption' | 'integrity' | 'prf' | 'dh';

const KIND_TITLES: Record<Kind, string> = {
  encryption: 'encryption algorithm',
  integrity: 'integrity algorithm',
  prf: 'PRF',
  dh: 'key exchange group',
};

/** Words that users of other programs know, which are left out on purpose. */
const REFUSED = new Map<string, string>(
  [
    ...['des', '3des', 'blowfish', 'blowfish128', 'blowfish192', 'blowfish256', 'cast128'],
    ...['md5', 'md5_128', 'prfmd5', 'modp768', 'modp1024', 'modp1536', 'modp1024s160', 'ecp192', 'ecp224', 'ecp224bp'],
  ].map((word) => [word, 'it is too weak']),
);

/**
 * An IKE proposal. Without `prf` it is derived from the integrity algorithms, as strongSwan does; beside an AEAD the
 * default PRFs (HMAC with SHA2-256, 384, 512) are offered, and the peer chooses.
 * @throws ProposalError
 */
export function parseIkeProposal(text: ProposalText): IkeProposal {
  if (text.esn !== undefined) throw new ProposalError('esn belongs to ESP proposals; an IKE SA has no such choice');
  if (isSingleString(text)) return parseIkeProposalString(text.encryption ?? '');
  const encryption = parseList('encryption', text.encryption, encryptionByName);
  const integrity = parseList('integrity', text.integrity, integrityByName);
  const prf = parseList('prf', text.prf, prfByName);
  const dh = parseList('dh', text.dh, dhGroupByName);
  return checkIke(encryption, integrity, prf, dh);
}

/**
 * An IKE proposal in strongSwan's form: `aes128-sha256-x25519`, `aes128gcm16-prfsha256-x25519`. Beside an AEAD an
 * integrity name is taken for the PRF that goes with it (`aes256gcm16-sha384-ecp384`), as strongSwan does.
 * @throws ProposalError
 */
export function parseIkeProposalString(text: string): IkeProposal {
  const sorted = sortWords(text, true);
  const { encryption, integrity, dh } = sorted;
  const asPrf = encryption.length > 0 && encryption.every((cipher) => cipher.aead) && sorted.prf.length === 0;
  return asPrf ? checkIke(encryption, [], prfsOf(integrity), dh) : checkIke(encryption, integrity, sorted.prf, dh);
}

/** @throws ProposalError */
export function parseEspProposal(text: ProposalText): EspProposal {
  if (text.prf !== undefined) throw new ProposalError('prf belongs to IKE proposals; ESP has none, leave it out');
  const esn = parseEsn(text.esn);
  if (isSingleString(text)) {
    const proposal = parseEspProposalString(text.encryption ?? '');
    return text.esn === undefined ? proposal : { ...proposal, esn };
  }
  const encryption = parseList('encryption', text.encryption, encryptionByName);
  const integrity = parseList('integrity', text.integrity, integrityByName);
  const dh = text.dh?.trim() === 'none' ? [] : parseList('dh', text.dh, dhGroupByName);
  checkCiphers(encryption, integrity);
  return { encryption, integrity, dh, esn };
}

/**
 * An ESP proposal in strongSwan's form: `aes128gcm16-x25519`, `aes256-sha256-esn-noesn`. Without `esn` or `noesn`
 * both are acceptable and extended sequence numbers are preferred.
 * @throws ProposalError
 */
export function parseEspProposalString(text: string): EspProposal {
  const { encryption, integrity, dh, esn } = sortWords(text, false);
  checkCiphers(encryption, integrity);
  return { encryption, integrity, dh, esn: esn.length > 0 ? esn : [true, false] };
}

/** The algorithms of one SA. */
export interface SuiteNames {
  readonly encryption: EncryptionAlgorithm;
  readonly integrity?: IntegrityAlgorithm | undefined;
  readonly prf?: PrfAlgorithm | undefined;
  readonly dh?: DhGroup | undefined;
  readonly esn?: boolean | undefined;
}

/** `aes256gcm16-prfsha384-ecp384`, `aes128-sha256-x25519`, `aes128gcm16-esn`: as strongSwan writes it. */
export function formatSuite({ encryption, integrity, prf, dh, esn }: SuiteNames): string {
  return formatWords({
    encryption: [encryption],
    integrity: integrity === undefined ? [] : [integrity],
    prf: prf === undefined ? [] : [prf],
    dh: dh === undefined ? [] : [dh],
    esn: esn === true ? [true] : [],
  });
}

/** The single-string form; reading it again gives an equal proposal. */
export function formatProposal(proposal: IkeProposal | EspProposal): string {
  return 'prf' in proposal ? formatWords({ ...proposal, esn: [] }) : formatWords({ ...proposal, prf: [] });
}

type SortedWords = IkeProposal & EspProposal;

/** A PRF that the integrity algorithms imply is not written. */
function formatWords({ encryption, integrity, prf, dh, esn }: SortedWords): string {
  const implied = prfsOf(integrity);
  const shown = prf.length === implied.length && prf.every((entry, i) => entry === implied[i]) ? [] : prf;
  const names = [...encryption, ...integrity, ...shown, ...dh].map((entry) => entry.name);
  return [...names, ...esn.map((on) => (on ? 'esn' : 'noesn'))].join('-');
}

function isSingleString({ encryption, integrity, prf, dh }: ProposalText): boolean {
  return encryption !== undefined && integrity === undefined && prf === undefined && dh === undefined;
}

function words(text: string): string[] {
  // Spellings with a dash in them (`aes128-cbc`) are names of one word, so they are looked for first. Those of OpenSSL do
  // not say how long the ICV is (`aes-256-gcm`): they stay one word, so that a refusal can tell the name.
  return text
    .toLowerCase()
    .replace(/\b(aes(?:128|192|256))-(cbc|ctr)\b/g, '$1$2')
    .replace(/\bchacha20-poly1305\b/g, 'chacha20poly1305')
    .replace(/\baes-?(128|192|256)-(gcm|ccm)(?=$|[\s,-])/g, 'aes$1_$2')
    .split(/[\s,-]+/)
    .filter((word) => word !== '')
    .map((word) => word.replace(/^(aes\d+)_(gcm|ccm)$/, '$1-$2'));
}

function parseList<T>(kind: Kind, text: string | undefined, find: (name: string) => T | undefined): T[] {
  const found = new Set<T>();
  for (const word of words(text ?? '')) {
    const entry = find(word);
    if (entry === undefined) throw unknownWord(kind, word);
    found.add(entry);
  }
  if (text !== undefined && found.size === 0) {
    throw new ProposalError(`${kind} is empty: name at least one ${KIND_TITLES[kind]}, or leave the attribute out`);
  }
  return [...found];
}

/** Tells the words of a single string apart. Names that are integrity algorithm and PRF alike are the former. */
function sortWords(text: string, ike: boolean): SortedWords {
  const encryption = new Set<EncryptionAlgorithm>();
  const integrity = new Set<IntegrityAlgorithm>();
  const prf = new Set<PrfAlgorithm>();
  const dh = new Set<DhGroup>();
  const esn = new Set<boolean>();
  for (const word of words(text)) {
    const cipher = encryptionByName(word);
    const mac = integrityByName(word);
    const prfFunction = ike ? prfByName(word) : undefined;
    const group = dhGroupByName(word);
    if (cipher !== undefined) encryption.add(cipher);
    else if (mac !== undefined) integrity.add(mac);
    else if (prfFunction !== undefined) prf.add(prfFunction);
    else if (group !== undefined) dh.add(group);
    else if (!ike && (word === 'esn' || word === 'noesn')) esn.add(word === 'esn');
    else throw unknownProposalWord(word, ike);
  }
  return { encryption: [...encryption], integrity: [...integrity], prf: [...prf], dh: [...dh], esn: [...esn] };
}

function parseEsn(text: string | undefined): boolean[] {
  switch (text?.trim().toLowerCase()) {
    case undefined:
      return [true, false];
    case 'yes':
      return [true];
    case 'no':
      return [false];
    default:
      throw new ProposalError(`esn='${text}' is not known; write 'yes', 'no', or leave it out to accept both`);
  }
}

function checkIke(
  encryption: readonly EncryptionAlgorithm[],
  integrity: readonly IntegrityAlgorithm[],
  prf: readonly PrfAlgorithm[],
  dh: readonly DhGroup[],
): IkeProposal {
  checkCiphers(encryption, integrity);
  const espOnly = encryption.find((cipher) => cipher.espOnly);
  if (espOnly !== undefined) {
    throw new ProposalError(`'${espOnly.name}' protects nothing and is for ESP only; an IKE SA needs a real cipher`);
  }
  if (dh.length === 0) {
    throw new ProposalError(`an IKE proposal needs a key exchange group in dh: ${allowed('dh')}`);
  }
  const implied = prf.length > 0 ? prf : prfsOf(integrity);
  return { encryption, integrity, prf: implied.length > 0 ? implied : defaultPrfs, dh };
}

/** Either every cipher is an AEAD and there is no integrity algorithm, or none is and there is one. */
function checkCiphers(encryption: readonly EncryptionAlgorithm[], integrity: readonly IntegrityAlgorithm[]): void {
  const aead = encryption.find((cipher) => cipher.aead);
  const plain = encryption.find((cipher) => !cipher.aead);
  const mac = integrity[0];
  if (encryption.length === 0) {
    throw new ProposalError(`a proposal needs an encryption algorithm: ${allowed('encryption')}`);
  }
  if (aead !== undefined && plain !== undefined) {
    throw new ProposalError(
      `'${aead.name}' has its own integrity and '${plain.name}' has not, so they cannot stand in one proposal; ` +
        'write one proposal for each',
    );
  }
  if (aead !== undefined && mac !== undefined) {
    throw new ProposalError(
      `'${aead.name}' has its own integrity and cannot go with '${mac.name}'; leave the integrity algorithm out` +
        (prfsOf([mac]).length > 0 ? ` (to choose the PRF of an IKE SA write 'prf${mac.name}')` : ''),
    );
  }
  if (plain !== undefined && mac === undefined) {
    throw new ProposalError(
      `'${plain.name}' has no integrity of its own and needs an integrity algorithm: ${allowed('integrity')}`,
    );
  }
}

/** The PRF built on the same primitive as each integrity algorithm. */
function prfsOf(integrity: readonly IntegrityAlgorithm[]): PrfAlgorithm[] {
  return integrity.flatMap((mac) => prfByName(mac.name) ?? []);
}

const TABLES = {
  encryption: encryptionAlgorithms,
  integrity: integrityAlgorithms,
  prf: prfAlgorithms,
  dh: dhGroups,
} as const;

function allowed(kind: Kind): string {
  return TABLES[kind].map((entry) => entry.name).join(', ');
}

/** Which algorithm of these kinds a misspelt word may have meant, by its name where the word is near to an alias. */
function meant(word: string, kinds: readonly Kind[]): string {
  const entries = kinds.flatMap((kind) => TABLES[kind].map(({ name, aliases }) => [name, ...aliases]));
  const near = nearest(word, entries.flat());
  const entry = entries.find((names) => near !== undefined && names.includes(near));
  return entry === undefined ? '' : ` (did you mean '${entry[0]}'?)`;
}

function unknownWord(kind: Kind, word: string): ProposalError {
  const why = REFUSED.get(word);
  const title = KIND_TITLES[kind];
  const found = why === undefined ? `'${word}' is not a known ${title}` : `'${word}' is not supported: ${why}`;
  const other = kindOf(word);
  const hint =
    other !== undefined && other !== kind
      ? ` (it is a name for ${other})`
      : why === undefined
        ? meant(word, [kind])
        : '';
  return new ProposalError(`${found}${hint}; allowed in ${kind}: ${allowed(kind)}`);
}

function kindOf(word: string): Kind | undefined {
  if (encryptionByName(word) !== undefined) return 'encryption';
  if (integrityByName(word) !== undefined) return 'integrity';
  if (prfByName(word) !== undefined) return 'prf';
  return dhGroupByName(word) === undefined ? undefined : 'dh';
}

function unknownProposalWord(word: string, ike: boolean): ProposalError {
  const why = REFUSED.get(word);
  const kinds: Kind[] = ike ? ['encryption', 'integrity', 'prf', 'dh'] : ['encryption', 'integrity', 'dh'];
  const found = why === undefined ? `'${word}' is not a known algorithm` : `'${word}' is not supported: ${why}`;
  const hint = why === undefined ? meant(word, kinds) : '';
  return new ProposalError(`${found}${hint}; ${kinds.map((kind) => `${kind}: ${allowed(kind)}`).join('; ')}`);
}
