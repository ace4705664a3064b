/**
 * Proposals on the wire (RFC 7296 §2.7, §3.3): made from what is configured, chosen from as responder, checked as
 * initiator.
 *
 * The responder goes through the peer's proposals in the peer's order (§3.3: most preferred first) and for each through
 * ours; of the first pair that has something in common for every transform type it takes, type by type, the
 * transform that stands first with us. So the peer's order decides between proposals, ours within one.
 */

import { readU32 } from '../../base/bytes.ts';
import { MIN_ESP_SPI } from '../../base/spi.ts';
import type { EspProposal, IkeProposal } from '../../crypto/proposal.ts';
import type { CipherSuite, DhGroup, EncryptionAlgorithm } from '../../crypto/types.ts';
import type { IkeSuite } from '../keys/keys.ts';
import { EsnTransform, ProtocolId, TRANSFORM_NONE, TransformType } from '../wire/iana.ts';
import type { WireProposal, WireTransform } from '../wire/payloads/sa.ts';

/** What was chosen for a CHILD SA. */
export interface EspSuite {
  readonly cipher: CipherSuite;
  /** Group of the CHILD SA's own key exchange; `undefined` for none. */
  readonly dh: DhGroup | undefined;
  readonly esn: boolean;
}

/** The outcome of a choice, the same on both sides. */
export interface Chosen<Suite> {
  readonly suite: Suite;
  /** SPI in the peer's proposal: empty for an IKE SA that replaces none. */
  readonly peerSpi: Uint8Array;
  /** What the responder answers but for its SPI: the proposal's number and one transform of each type. */
  readonly proposal: WireProposal;
}

/**
 * In IKE_AUTH there is no key exchange of the CHILD SA's own (RFC 7296 §1.2): groups are neither offered nor looked
 * at. In CREATE_CHILD_SA they are.
 */
export type ChildExchange = 'ike-auth' | 'create-child';

/** A first IKE SA has its SPIs in the header and none in the proposal; one that replaces another has (RFC 7296 §3.3.1). */
export type IkeExchange = 'ike-sa-init' | 'rekey-ike';

const NO_SPI = new Uint8Array(0);
const CHILD_SPI_LENGTH = 4;
const IKE_SPI_LENGTH = 8;

/** @param spi ours, when the IKE SA replaces another; empty in IKE_SA_INIT (RFC 7296 §3.3.1) */
export function ikeWireProposals(configured: readonly IkeProposal[], spi: Uint8Array = NO_SPI): WireProposal[] {
  return configured.map((proposal, index) => ({
    number: index + 1,
    protocol: ProtocolId.IKE,
    spi,
    transforms: [
      ...proposal.encryption.map(encryptionTransform),
      ...proposal.integrity.map((entry) => transform(TransformType.INTEG, entry.id)),
      ...proposal.prf.map((entry) => transform(TransformType.PRF, entry.id)),
      ...proposal.dh.map((entry) => transform(TransformType.DH, entry.id)),
    ],
  }));
}

/** The same proposals, with the group of that name at the head of those that have it. */
export function preferGroup(configured: readonly EspProposal[], name: string | undefined): readonly EspProposal[] {
  return configured.map((proposal) => {
    const group = proposal.dh.find((entry) => entry.name === name);
    if (group === undefined) return proposal;
    return { ...proposal, dh: [group, ...proposal.dh.filter((other) => other !== group)] };
  });
}

/** Those of the proposals that are offered: in IKE_AUTH, where there are no groups, not the same one twice. */
function offerable(configured: readonly EspProposal[], exchange: ChildExchange): readonly EspProposal[] {
  if (exchange !== 'ike-auth') return configured;
  const same = (a: EspProposal, b: EspProposal): boolean =>
    sameList(a.encryption, b.encryption) && sameList(a.integrity, b.integrity) && sameList(a.esn, b.esn);
  return configured.filter((proposal, at) => !configured.slice(0, at).some((before) => same(before, proposal)));
}

function sameList<T>(a: readonly T[], b: readonly T[]): boolean {
  return a.length === b.length && a.every((entry, at) => entry === b[at]);
}

/** @param spi ours, of packets to us */
export function espWireProposals(
  configured: readonly EspProposal[],
  exchange: ChildExchange,
  spi: Uint8Array,
): WireProposal[] {
  return offerable(configured, exchange).map((proposal, index) => ({
    number: index + 1,
    protocol: ProtocolId.ESP,
    spi,
    transforms: [
      ...proposal.encryption.map(encryptionTransform),
      ...proposal.integrity.map((entry) => transform(TransformType.INTEG, entry.id)),
      ...groupsFor(proposal, exchange).map((entry) => transform(TransformType.DH, entry.id)),
      ...proposal.esn.map((on) => transform(TransformType.ESN, esnId(on))),
    ],
  }));
}

/** Chooses as responder; `undefined` for NO_PROPOSAL_CHOSEN, which `explainNoProposal` explains. */
export function chooseIke(
  offered: readonly WireProposal[],
  configured: readonly IkeProposal[],
  exchange: IkeExchange,
): Chosen<IkeSuite> | undefined {
  return choose(offered, configured, (theirs, ours) => matchIke(theirs, ours, exchange));
}

/** Chooses as responder, as `chooseIke`. */
export function chooseEsp(
  offered: readonly WireProposal[],
  configured: readonly EspProposal[],
  exchange: ChildExchange,
): Chosen<EspSuite> | undefined {
  return choose(offered, configured, (theirs, ours) => matchEsp(theirs, ours, exchange));
}

/**
 * Checks the responder's answer to `ikeWireProposals(configured)` as initiator: exactly one proposal, with the number of
 * one of ours and exactly one transform of each type out of that one (RFC 7296 §2.7). `undefined` when it is anything else.
 */
export function acceptIke(
  answer: readonly WireProposal[],
  configured: readonly IkeProposal[],
  exchange: IkeExchange,
): Chosen<IkeSuite> | undefined {
  const theirs = onlyAnswer(answer);
  const ours = theirs && configured[theirs.number - 1];
  return ours && choose([theirs], [ours], (a, b) => matchIke(a, b, exchange));
}

/** Checks the responder's answer to `espWireProposals(configured, exchange)`, as `acceptIke`. */
export function acceptEsp(
  answer: readonly WireProposal[],
  configured: readonly EspProposal[],
  exchange: ChildExchange,
): Chosen<EspSuite> | undefined {
  const theirs = onlyAnswer(answer);
  const ours = theirs && offerable(configured, exchange)[theirs.number - 1];
  if (theirs === undefined || ours === undefined) return undefined;
  // A group out of nowhere in IKE_AUTH, which offers none, is no subset of the offer.
  const strayGroup = theirs.transforms.some((entry) => entry.type === TransformType.DH && entry.id !== TRANSFORM_NONE);
  if (exchange === 'ike-auth' && strayGroup) return undefined;
  return choose([theirs], [ours], (a, b) => matchEsp(a, b, exchange));
}

/** The answer's one proposal, unless it leaves a choice: that is the responder's to make. */
function onlyAnswer(answer: readonly WireProposal[]): WireProposal | undefined {
  const [proposal, ...others] = answer;
  if (proposal === undefined || others.length > 0) return undefined;
  const types = new Set(proposal.transforms.map((entry) => entry.type));
  return types.size === proposal.transforms.length ? proposal : undefined;
}

function choose<Ours, Suite>(
  offered: readonly WireProposal[],
  configured: readonly Ours[],
  match: (theirs: WireProposal, ours: Ours) => Match<Suite> | undefined,
): Chosen<Suite> | undefined {
  for (const theirs of offered) {
    for (const ours of configured) {
      const found = match(theirs, ours);
      if (found === undefined) continue;
      const { number, protocol } = theirs;
      return {
        suite: found.suite,
        peerSpi: theirs.spi,
        proposal: { number, protocol, spi: NO_SPI, transforms: found.transforms },
      };
    }
  }
  return undefined;
}

interface Match<Suite> {
  readonly suite: Suite;
  readonly transforms: readonly WireTransform[];
}

function matchIke(theirs: WireProposal, ours: IkeProposal, exchange: IkeExchange): Match<IkeSuite> | undefined {
  if (theirs.protocol !== ProtocolId.IKE || !ikeSpiFits(theirs.spi, exchange)) return undefined;
  if (!onlyTypes(theirs, IKE_TRANSFORM_TYPES)) return undefined;
  const cipher = matchCipher(theirs, ours);
  const prf = ours.prf.find((entry) => hasId(theirs, TransformType.PRF, entry.id));
  const dh = ours.dh.find((entry) => hasId(theirs, TransformType.DH, entry.id));
  if (cipher === undefined || prf === undefined || dh === undefined) return undefined;
  return {
    suite: { cipher: cipher.suite, prf, dh },
    transforms: [...cipher.transforms, transform(TransformType.PRF, prf.id), transform(TransformType.DH, dh.id)],
  };
}

function matchEsp(theirs: WireProposal, ours: EspProposal, exchange: ChildExchange): Match<EspSuite> | undefined {
  if (theirs.protocol !== ProtocolId.ESP || !childSpiFits(theirs.spi)) return undefined;
  if (!onlyTypes(theirs, ESP_TRANSFORM_TYPES)) return undefined;
  const cipher = matchCipher(theirs, ours);
  const dh = exchange === 'ike-auth' ? NO_GROUP : matchGroup(theirs, ours.dh);
  const esn = ours.esn.find((on) => hasId(theirs, TransformType.ESN, esnId(on)));
  if (cipher === undefined || dh === undefined || esn === undefined) return undefined;
  return {
    suite: { cipher: cipher.suite, dh: dh.suite, esn },
    transforms: [...cipher.transforms, ...dh.transforms, transform(TransformType.ESN, esnId(esn))],
  };
}

/** An SPI of zero would mean that there is no SA (RFC 7296 §3.1). */
function ikeSpiFits(spi: Uint8Array, exchange: IkeExchange): boolean {
  return exchange === 'ike-sa-init' ? spi.length === 0 : spi.length === IKE_SPI_LENGTH && spi.some((byte) => byte > 0);
}

/** SPIs below 256 are reserved (RFC 4303 §2.1). */
function childSpiFits(spi: Uint8Array): boolean {
  return spi.length === CHILD_SPI_LENGTH && readU32(spi, 0) >= MIN_ESP_SPI;
}

/**
 * An AEAD stands beside no integrity transform or beside NONE (RFC 7296 §3.3, RFC 5282 §8); NONE is answered when it was
 * offered, so that the answer has one transform of each type of the offer.
 */
function matchCipher(
  theirs: WireProposal,
  ours: Pick<EspProposal, 'encryption' | 'integrity'>,
): Match<CipherSuite> | undefined {
  const hasIntegrity = hasType(theirs, TransformType.INTEG);
  for (const encryption of ours.encryption) {
    if (!hasId(theirs, TransformType.ENCR, encryption.id, encryption.keyBits)) continue;
    const first = encryptionTransform(encryption);
    if (encryption.aead) {
      const none = transform(TransformType.INTEG, TRANSFORM_NONE);
      if (!hasIntegrity) return { suite: { encryption, integrity: undefined }, transforms: [first] };
      if (!hasId(theirs, TransformType.INTEG, TRANSFORM_NONE)) continue;
      return { suite: { encryption, integrity: undefined }, transforms: [first, none] };
    }
    const integrity = ours.integrity.find((entry) => hasId(theirs, TransformType.INTEG, entry.id));
    if (integrity === undefined) continue;
    return { suite: { encryption, integrity }, transforms: [first, transform(TransformType.INTEG, integrity.id)] };
  }
  return undefined;
}

const NO_GROUP: Match<DhGroup | undefined> = { suite: undefined, transforms: [] };

/** Without a group of ours the peer must offer none either, or NONE beside others (RFC 7296 §3.3.3). */
function matchGroup(theirs: WireProposal, ours: readonly DhGroup[]): Match<DhGroup | undefined> | undefined {
  if (ours.length === 0) {
    if (!hasType(theirs, TransformType.DH)) return NO_GROUP;
    if (!hasId(theirs, TransformType.DH, TRANSFORM_NONE)) return undefined;
    return { suite: undefined, transforms: [transform(TransformType.DH, TRANSFORM_NONE)] };
  }
  const group = ours.find((entry) => hasId(theirs, TransformType.DH, entry.id));
  return group && { suite: group, transforms: [transform(TransformType.DH, group.id)] };
}

/** Transform types that a proposal may have (RFC 7296 §3.3.3). Any other makes all of it unacceptable (§3.3.6). */
export const IKE_TRANSFORM_TYPES: readonly number[] = [
  TransformType.ENCR,
  TransformType.PRF,
  TransformType.INTEG,
  TransformType.DH,
];
export const ESP_TRANSFORM_TYPES: readonly number[] = [
  TransformType.ENCR,
  TransformType.INTEG,
  TransformType.DH,
  TransformType.ESN,
];

function onlyTypes(proposal: WireProposal, types: readonly number[]): boolean {
  return proposal.transforms.every((entry) => types.includes(entry.type));
}

/** Whether a type stands in the proposal at all, acceptable or not. */
function hasType(proposal: WireProposal, type: number): boolean {
  return proposal.transforms.some((entry) => entry.type === type);
}

/**
 * Whether exactly this transform is offered. One with an attribute that we do not know counts as not offered
 * (RFC 7296 §3.3.6), and so does a key length where the algorithm has none.
 */
function hasId(proposal: WireProposal, type: number, id: number, keyBits?: number): boolean {
  return proposal.transforms.some(
    (entry) => entry.type === type && entry.id === id && entry.keyBits === keyBits && !entry.unknownAttributes,
  );
}

function groupsFor(proposal: EspProposal, exchange: ChildExchange): readonly DhGroup[] {
  return exchange === 'ike-auth' ? [] : proposal.dh;
}

function encryptionTransform(algorithm: EncryptionAlgorithm): WireTransform {
  return transform(TransformType.ENCR, algorithm.id, algorithm.keyBits);
}

function transform(type: number, id: number, keyBits?: number): WireTransform {
  return { type, id, keyBits, unknownAttributes: false };
}

function esnId(on: boolean): number {
  return on ? EsnTransform.ESN : EsnTransform.NO_ESN;
}

/** The answer of the responder: the choice with our SPI in it. */
export function answerProposal<Suite>(chosen: Chosen<Suite>, spi: Uint8Array = NO_SPI): WireProposal {
  return { ...chosen.proposal, spi };
}
