/**
 * Why two lists of proposals have nothing in common, for the person who reads the log at night: both lists, and for
 * each of our proposals what separates it from the peer's proposal that comes closest. Labels are the attributes of a
 * `<proposal>` element, names those that may be written there.
 */
import { listSome } from '../../base/text.ts';
import { dhGroupById, encryptionById, integrityById, prfById } from '../../crypto/algorithms.ts';
import type { EspProposal, IkeProposal } from '../../crypto/proposal.ts';
import { formatProposal } from '../../crypto/proposal-text.ts';
import { EsnTransform, ProtocolId, protocolName, TRANSFORM_NONE, TransformType } from '../wire/iana.ts';
import type { WireProposal, WireTransform } from '../wire/payloads/sa.ts';
import { type ChildExchange, ESP_TRANSFORM_TYPES, IKE_TRANSFORM_TYPES } from './proposals.ts';

/** BOUNDED: a peer that offers hundreds of proposals or transforms fills no log. */
const MAX_SHOWN = 16;

/**
 * Several lines, without a newline at the end.
 * @param exchange where the proposals stood; `ike` for those of an IKE SA
 */
export function explainNoProposal(
  offered: readonly WireProposal[],
  configured: readonly (IkeProposal | EspProposal)[],
  exchange: 'ike' | ChildExchange,
): string {
  return [
    'offered by the peer:',
    ...numbered(offered.map(describeWire)),
    'configured here:',
    ...numbered(configured.map(formatProposal)),
    'what differs:',
    ...numbered(compareProposals(offered, configured, exchange).map(describeComparison)),
  ].join('\n');
}

function numbered(lines: readonly string[]): string[] {
  if (lines.length === 0) return ['  none'];
  const shown = lines.slice(0, MAX_SHOWN).map((line, index) => `  ${index + 1}: ${line}`);
  return lines.length > MAX_SHOWN ? [...shown, `  and ${lines.length - MAX_SHOWN} more`] : shown;
}

/** Names by label; a label that is missing means that nothing of the kind is negotiated. */
type Names = ReadonlyMap<Label, readonly string[]>;
type Label = 'encryption' | 'integrity' | 'prf' | 'dh' | 'esn';

/** As `<proposal>` has them. */
const LABEL_ORDER: readonly Label[] = ['encryption', 'integrity', 'prf', 'dh', 'esn'];

const LABELS: Readonly<Record<number, Label>> = {
  [TransformType.ENCR]: 'encryption',
  [TransformType.INTEG]: 'integrity',
  [TransformType.PRF]: 'prf',
  [TransformType.DH]: 'dh',
  [TransformType.ESN]: 'esn',
};

function namesOf(proposal: IkeProposal | EspProposal, exchange: 'ike' | ChildExchange): Names {
  const names = new Map<Label, readonly string[]>();
  const put = (label: Label, list: readonly string[]): void => {
    if (list.length > 0) names.set(label, list);
  };
  put(
    'encryption',
    proposal.encryption.map((entry) => entry.name),
  );
  put(
    'integrity',
    proposal.integrity.map((entry) => entry.name),
  );
  if ('prf' in proposal)
    put(
      'prf',
      proposal.prf.map((entry) => entry.name),
    );
  if (exchange !== 'ike-auth')
    put(
      'dh',
      proposal.dh.map((entry) => entry.name),
    );
  if ('esn' in proposal) put('esn', proposal.esn.map(esnName));
  return names;
}

function wireNames(proposal: WireProposal): Names {
  const names = new Map<Label, string[]>();
  for (const transform of proposal.transforms) {
    const label = LABELS[transform.type];
    if (label === undefined) continue;
    const list = names.get(label);
    if (list === undefined) names.set(label, [transformName(transform)]);
    else list.push(transformName(transform));
  }
  return names;
}

function describeWire(proposal: WireProposal): string {
  const parts = [...wireNames(proposal)].map(([label, list]) => `${label} ${listed(list)}`);
  return [`${protocolName(proposal.protocol)} with ${parts.join('; ') || 'nothing'}`, ...oddTypes(proposal)].join('; ');
}

function oddTypes(proposal: WireProposal): string[] {
  const odd = proposal.transforms.filter((entry) => LABELS[entry.type] === undefined);
  return [...new Set(odd.map(oddName))].slice(0, MAX_SHOWN);
}

/** `additional key exchange 1 (mlkem768)`: RFC 9370 has transform types 6 to 12 for them. */
function oddName({ type, id }: WireTransform): string {
  if (type < FIRST_ADDITIONAL || type > LAST_ADDITIONAL) return `transform type ${type}`;
  return `additional key exchange ${type - FIRST_ADDITIONAL + 1} (${transformName({ type: TransformType.DH, id, keyBits: undefined, unknownAttributes: false })})`;
}

const FIRST_ADDITIONAL = 6;
const LAST_ADDITIONAL = 12;

/** What separates two proposals, of one kind of transform. */
export interface ProposalDifference {
  /** An attribute of `<proposal>`, or another thing that kept the two apart. */
  readonly label: string;
  readonly offered: string;
  readonly configured: string;
}

/** For a configured proposal, the offered one that comes closest to it. */
export interface ProposalComparison {
  /** Index of the one that was offered; `undefined` when none was. */
  readonly closest: number | undefined;
  /** Empty when the transforms fit each other. */
  readonly differences: readonly ProposalDifference[];
}

/** Holds each configured proposal against what was offered. */
export function compareProposals(
  offered: readonly WireProposal[],
  configured: readonly (IkeProposal | EspProposal)[],
  exchange: 'ike' | ChildExchange,
): ProposalComparison[] {
  const theirs = offered.slice(0, MAX_SHOWN).map(wireNames);
  return configured.map((proposal) => closestOf(namesOf(proposal, exchange), theirs, offered, exchange));
}

function closestOf(
  ours: Names,
  theirs: readonly Names[],
  offered: readonly WireProposal[],
  exchange: 'ike' | ChildExchange,
): ProposalComparison {
  let best: ProposalComparison = { closest: undefined, differences: [] };
  for (const [at, names] of theirs.entries()) {
    const differences = differencesOf(ours, names, offered[at]!, exchange);
    if (best.closest === undefined || differences.length < best.differences.length) best = { closest: at, differences };
  }
  return best;
}

function describeComparison({ closest, differences }: ProposalComparison): string {
  if (closest === undefined) return 'the peer offers nothing';
  const what = differences.map(({ label, offered, configured }) => `${label}: peer ${offered}, here ${configured}`);
  const none = 'no transform: the SPI of the proposal is not usable';
  return `from the peer's ${closest + 1}: ${what.length === 0 ? none : what.join('; ')}`;
}

function differencesOf(
  ours: Names,
  theirs: Names,
  offered: WireProposal,
  exchange: 'ike' | ChildExchange,
): ProposalDifference[] {
  const wanted = exchange === 'ike' ? ProtocolId.IKE : ProtocolId.ESP;
  if (offered.protocol !== wanted) {
    return [{ label: 'protocol', offered: protocolName(offered.protocol), configured: protocolName(wanted) }];
  }
  const allowed = exchange === 'ike' ? IKE_TRANSFORM_TYPES : ESP_TRANSFORM_TYPES;
  const odd = offered.transforms.filter(({ type }) => !allowed.includes(type));
  const found = [...new Set(odd.map(oddName))].slice(0, MAX_SHOWN).map((label) => ({
    label,
    offered: 'offers it',
    configured: `not supported for ${protocolName(wanted)}`,
  }));
  for (const label of LABEL_ORDER) {
    if (label === 'dh' && exchange === 'ike-auth') continue;
    if (label === 'prf' && exchange !== 'ike') continue;
    if (label === 'esn' && exchange === 'ike') continue;
    // Leaving a kind out and offering NONE of it are the same to us (RFC 7296 §3.3.3), but for ESN, which must be there.
    const theirList = theirs.get(label) ?? ['none'];
    const ourList = ours.get(label) ?? ['none'];
    if (ourList.some((name) => theirList.includes(name))) continue;
    found.push({ label, offered: listed(theirList), configured: listed(ourList) });
  }
  return found;
}

function listed(names: readonly string[]): string {
  return listSome(names, MAX_SHOWN);
}

function esnName(on: boolean): string {
  return on ? 'yes' : 'no';
}

/** Algorithms that we do not have but that old peers still offer: a name says more than a number. */
const OLD_NAMES: Readonly<Record<Label, Readonly<Record<number, string>>>> = {
  encryption: { 2: 'des', 3: '3des', 5: 'idea', 6: 'cast128', 7: 'blowfish', 11: 'null', 23: 'camellia' },
  integrity: { 1: 'md5', 3: 'des-mac', 4: 'kpdk-md5' },
  prf: { 1: 'prfmd5', 3: 'prftiger' },
  dh: {
    1: 'modp768',
    2: 'modp1024',
    5: 'modp1536',
    22: 'modp1024s160',
    23: 'modp2048s224',
    24: 'modp2048s256',
    25: 'ecp192',
    26: 'ecp224',
    35: 'mlkem512',
    36: 'mlkem768',
    37: 'mlkem1024',
  },
  esn: {},
};

function transformName(transform: WireTransform): string {
  const label = LABELS[transform.type]!;
  const bits = transform.keyBits === undefined ? '' : `/${transform.keyBits}`;
  const name = knownName(transform) ?? `${OLD_NAMES[label][transform.id] ?? `id ${transform.id}`}${bits}`;
  return transform.unknownAttributes ? `${name} with unknown attributes` : name;
}

function knownName({ type, id, keyBits }: WireTransform): string | undefined {
  if (type === TransformType.ENCR) return encryptionById(id, keyBits)?.name;
  if (keyBits !== undefined) return undefined;
  switch (type) {
    case TransformType.INTEG:
      return id === TRANSFORM_NONE ? 'none' : integrityById(id)?.name;
    case TransformType.PRF:
      return prfById(id)?.name;
    case TransformType.DH:
      return id === TRANSFORM_NONE ? 'none' : dhGroupById(id)?.name;
    case TransformType.ESN:
      return id === EsnTransform.ESN ? esnName(true) : id === EsnTransform.NO_ESN ? esnName(false) : undefined;
    default:
      return undefined;
  }
}
