/**
 * What all exchanges that make a CHILD SA have in common (RFC 7296 §1.2, §1.3.1, §2.9, §2.17): IKE_AUTH, and
 * CREATE_CHILD_SA for a new child and for one that is rekeyed.
 */

import { readU32 } from '../../base/bytes.ts';
import { MIN_ESP_SPI } from '../../base/spi.ts';
import type { DhGroup, DhKeyPair } from '../../crypto/types.ts';
import { canNarrow, chooseNarrowing, explainPairMismatch, narrowPair } from '../../policy/narrow.ts';
import type { SelectorPair } from '../../policy/selector.ts';
import type { ChildConfig } from '../config.ts';
import type { Failure } from '../failure.ts';
import { findError, misbehaved } from '../failure.ts';
import { type ChildKeys, deriveChildKeys, NONCE_LENGTH, type Nonces } from '../keys/keys.ts';
import {
  acceptEsp,
  answerProposal,
  type ChildExchange,
  type Chosen,
  chooseEsp,
  type EspSuite,
} from '../proposals/proposals.ts';
import { explainNoProposal } from '../proposals/report.ts';
import type { AgreedChild } from '../session/agreed-child.ts';
import { type ChildFacts, childSpiBytes } from '../session/child.ts';
import type { ChildOffer } from '../session/child-request.ts';
import { lacksEncapsulation, lacksEspPort } from '../session/encapsulation.ts';
import type { IkeSession } from '../session/session.ts';
import { cryptoOf } from '../session/state.ts';
import { NotifyType } from '../wire/iana.ts';
import { findNotify, findPayload, type Payload } from '../wire/payload.ts';
import { notifyPayload } from '../wire/payloads/notify.ts';
import { type ChildAnswer, conflictOf, refusal, refuseClaim } from './child-answer.ts';
import { explainRefusal } from './child-offer.ts';
import { answerKeyExchange, deriveShared } from './key-exchange.ts';
import { type AgreedTraffic, agreeTraffic, asSeenHere } from './transport.ts';

export type ChildOutcome =
  | { readonly ok: true; readonly child: AgreedChild }
  /** `created`: the peer thinks that the SA exists and must be told that it does not. */
  | { readonly ok: false; readonly failure: Failure; readonly created: boolean };

/** A message that makes a CHILD SA. */
interface ChildMessage {
  readonly payloads: readonly Payload[];
  /** Id of the CHILD SA that it replaces. */
  readonly replaces?: number | undefined;
}

/** Processes the response to an offer. `nonces` are those of the exchange that the keys come from. */
export function acceptAnswer(
  session: IkeSession,
  now: number,
  offer: ChildOffer,
  { payloads, nonces, replaces }: ChildMessage & { readonly nonces: Nonces },
): ChildOutcome {
  const error = findError(payloads);
  if (error !== undefined) return { ok: false, failure: explainRefusal(error, offer), created: false };
  const { config, selectors: offered } = offer.ask;
  const refuse = (failure: Failure): ChildOutcome => ({ ok: false, failure, created: true });

  const sa = findPayload(payloads, 'sa');
  const tsi = findPayload(payloads, 'tsi');
  const tsr = findPayload(payloads, 'tsr');
  if (sa === undefined || tsi === undefined || tsr === undefined) {
    return { ok: false, failure: misbehaved('the response has no SA, TSi or TSr payload'), created: false };
  }
  const chosen = acceptEsp(sa.proposals, offer.proposals, offer.exchange);
  const spiOut = chosen === undefined ? undefined : espSpi(chosen.peerSpi);
  if (chosen === undefined || spiOut === undefined)
    return refuse(misbehaved('the peer chose a proposal that was not offered'));
  if (!session.registry.isChildSpiFree(offer.spiIn)) {
    return refuse({ reason: 'TEMPORARY_FAILURE', detail: 'another CHILD SA was made with the same SPI meanwhile' });
  }

  const transport = findNotify(payloads, NotifyType.USE_TRANSPORT_MODE) !== undefined;
  if (transport !== (config.mode === 'transport')) {
    const detail = `${config.mode} mode was requested, the peer answered with ${transport ? 'transport' : 'tunnel'}`;
    return refuse({ reason: 'NO_PROPOSAL_CHOSEN', detail });
  }
  const told: SelectorPair = { local: tsi.selectors, remote: tsr.selectors };
  const answered = transport ? asSeenHere(session, told) : told;
  const narrowed = narrowPair(answered, offered);
  // RFC 7296 §2.9: the responder may take away, never add.
  if (!narrowed.ok || !narrowed.whole) {
    const detail = `the peer answered selectors that were not offered: ${explainPairMismatch(answered, offered)}`;
    return refuse({ reason: 'TS_UNACCEPTABLE', detail });
  }
  const conflict = conflictOf(session, now, config, narrowed.selectors);
  if (conflict !== '')
    return refuse({ reason: 'TS_UNACCEPTABLE', detail: `the peer chose addresses of another peer: ${conflict}` });
  const traffic = agreeTraffic(session, config, narrowed.selectors, told);
  if (typeof traffic === 'string') return refuse({ reason: 'TS_UNACCEPTABLE', detail: traffic });
  const shared = sharedSecret(offer.keyPair, chosen.suite.dh, payloads);
  if (shared === 'invalid') return refuse(misbehaved('the KE payload of the response does not match the group'));
  const keys = childKeys(session, chosen.suite, nonces, shared);
  const { spiIn } = offer;
  const agreed = { ...traffic, offered };
  const facts = childFacts(session, payloads, { config, suite: chosen.suite, ...agreed, spiIn, spiOut, replaces });
  return { ok: true, child: { facts, keys, initiator: true, nonces } };
}

/** The DH result when the suite wants one, nothing when it wants none. */
function sharedSecret(
  keyPair: DhKeyPair | undefined,
  group: DhGroup | undefined,
  payloads: readonly Payload[],
): Uint8Array | undefined | 'invalid' {
  if (group === undefined) return undefined;
  const ke = findPayload(payloads, 'ke');
  if (ke === undefined || ke.group !== group.id || keyPair?.group !== group) return 'invalid';
  return deriveShared(keyPair, ke.data) ?? 'invalid';
}

function espSpi(bytes: Uint8Array): number | undefined {
  if (bytes.length !== 4) return undefined;
  const spi = readU32(bytes, 0);
  return spi < MIN_ESP_SPI ? undefined : spi;
}

function childKeys(session: IkeSession, suite: EspSuite, nonces: Nonces, shared: Uint8Array | undefined): ChildKeys {
  const crypto = cryptoOf(session.state)!;
  const source = { prf: crypto.suite.prf, d: crypto.keys.d };
  const keys = deriveChildKeys(session.env.crypto, source, suite.cipher, nonces, shared);
  shared?.fill(0);
  return keys;
}

/** What both sides have agreed on. */
interface Agreed extends AgreedTraffic, Pick<ChildFacts, 'config' | 'offered' | 'spiIn' | 'spiOut' | 'replaces'> {
  readonly suite: EspSuite;
}

/** @param payloads the peer's message */
function childFacts(session: IkeSession, payloads: readonly Payload[], { suite, ...agreed }: Agreed): ChildFacts {
  return {
    id: session.env.nextId(),
    connection: session.connectionName,
    mode: agreed.config.mode,
    suite: suite.cipher,
    dhGroup: suite.dh?.name,
    esn: suite.esn,
    encapsulated: session.encapsulated,
    takesPadding: findNotify(payloads, NotifyType.ESP_TFC_PADDING_NOT_SUPPORTED) === undefined,
    ...agreed,
  };
}

/** A request that offers a CHILD SA. */
interface ChildRequestMessage extends ChildMessage {
  /** Those of IKE_SA_INIT in IKE_AUTH; `undefined` in CREATE_CHILD_SA, where the exchange has its own. */
  readonly nonces?: Nonces | undefined;
}

/** Answers an offer as responder, with one of `configs`. */
export function answerOffer(
  session: IkeSession,
  now: number,
  configs: readonly ChildConfig[],
  { payloads, nonces, replaces }: ChildRequestMessage,
): ChildAnswer {
  const { env, registry } = session;
  const exchange: ChildExchange = nonces === undefined ? 'create-child' : 'ike-auth';
  const sa = findPayload(payloads, 'sa');
  const tsi = findPayload(payloads, 'tsi');
  const tsr = findPayload(payloads, 'tsr');
  const theirNonce = findPayload(payloads, 'nonce')?.data;
  if (
    sa === undefined ||
    tsi === undefined ||
    tsr === undefined ||
    (nonces === undefined && theirNonce === undefined)
  ) {
    return refusal(NotifyType.INVALID_SYNTAX, 'INVALID_SYNTAX', 'the request lacks SA, nonce, TSi or TSr');
  }
  const proposed: SelectorPair = { local: tsr.selectors, remote: tsi.selectors };
  const transport = findNotify(payloads, NotifyType.USE_TRANSPORT_MODE) !== undefined;
  const choice = chooseConfig(session, configs, { told: proposed, offered: sa.proposals, exchange, transport });
  if (!choice.ok) return choice;
  const { config, chosen } = choice;
  const claim = session.registry.claim(session, now, config.name, choice.selectors);
  const { free: selectors } = claim;
  if (selectors === undefined || claim.undecided) return refuseClaim(claim, config);
  if (claim.conflict !== '') session.note('warn', `the request of the peer was narrowed: ${claim.conflict}`);
  const traffic = agreeTraffic(session, config, selectors, proposed);
  if (typeof traffic === 'string') return refusal(NotifyType.TS_UNACCEPTABLE, 'TS_UNACCEPTABLE', traffic);
  const noEsp = lacksEncapsulation(session) ?? lacksEspPort(session);
  if (noEsp !== undefined) {
    env.count('path-refused');
    return refusal(NotifyType.NO_PROPOSAL_CHOSEN, 'no-esp-path', noEsp);
  }
  const spiOut = espSpi(chosen.peerSpi);
  if (spiOut === undefined) return refusal(NotifyType.INVALID_SYNTAX, 'INVALID_SYNTAX', 'the SPI offered is reserved');

  const { dh } = chosen.suite;
  const keyExchange = dh && answerKeyExchange(session, dh, payloads);
  if (keyExchange?.ok === false) return keyExchange;
  if (config.mode === 'tunnel' && transport) {
    const capability = `transport mode, which the rule of '${config.name}' does not have: it gets tunnel mode`;
    env.emit({ type: 'declined', connection: session.connectionName, capability });
  }
  const nonce = env.random(NONCE_LENGTH);
  const used = nonces ?? { initiator: theirNonce!.slice(), responder: nonce };
  const spiIn = registry.newChildSpi();
  const keys = childKeys(session, chosen.suite, used, keyExchange?.shared);
  const answer: Payload[] = [];
  if (config.mode === 'transport') answer.push(notifyPayload(NotifyType.USE_TRANSPORT_MODE));
  answer.push({ type: 'sa', proposals: [answerProposal(chosen, childSpiBytes(spiIn))] });
  if (nonces === undefined) answer.push({ type: 'nonce', data: nonce });
  answer.push(
    ...(keyExchange?.payloads ?? []),
    { type: 'tsi', selectors: selectors.remote, unknown: 0 },
    { type: 'tsr', selectors: selectors.local, unknown: 0 },
  );
  if (hasMore(configs, config, proposed)) answer.push(notifyPayload(NotifyType.ADDITIONAL_TS_POSSIBLE));
  const agreed = { ...traffic, offered: undefined };
  const facts = childFacts(session, payloads, { config, suite: chosen.suite, ...agreed, spiIn, spiOut, replaces });
  return { ok: true, child: { facts, keys, initiator: false, nonces: used }, payloads: answer };
}

/** Whether the peer may ask for another CHILD SA for what this one leaves out (RFC 7296 §2.9). */
function hasMore(configs: readonly ChildConfig[], chosen: ChildConfig, proposed: SelectorPair): boolean {
  const narrowed = narrowPair(proposed, chosen.selectors);
  if (narrowed.ok && narrowed.whole) return false;
  return configs.some((other) => other !== chosen && canNarrow(proposed, other.selectors));
}

type ConfigChoice =
  | {
      readonly ok: true;
      readonly config: ChildConfig;
      readonly chosen: Chosen<EspSuite>;
      readonly selectors: SelectorPair;
    }
  | Extract<ChildAnswer, { ok: false }>;

/** What the peer offers. */
interface PeerOffer {
  readonly told: SelectorPair;
  readonly offered: Parameters<typeof chooseEsp>[0];
  readonly exchange: ChildExchange;
  readonly transport: boolean;
}

/** By mode, then selectors, then algorithms, so that the refusal names what stood in the way. */
function chooseConfig(
  session: IkeSession,
  configs: readonly ChildConfig[],
  { told, offered, exchange, transport }: PeerOffer,
): ConfigChoice {
  // RFC 7296 §1.3.1: an offer of transport mode may be declined, transport mode that was not offered cannot be chosen.
  const byMode = configs.filter((config) => config.mode === 'tunnel' || transport);
  const preferred = byMode.filter((config) => (config.mode === 'transport') === transport);
  const usable = preferred.length > 0 ? preferred : byMode;
  if (usable.length === 0) {
    const detail =
      configs.length === 0 ? 'no child is configured' : 'the peer offers tunnel mode, transport is configured';
    return { ...refusal(NotifyType.NO_PROPOSAL_CHOSEN, 'NO_PROPOSAL_CHOSEN', detail), config: configs[0] };
  }
  // All are of one mode.
  const proposed = usable[0]?.mode === 'transport' ? asSeenHere(session, told) : told;
  const bySelectors = usable.filter((config) => narrowPair(proposed, config.selectors).ok);
  if (bySelectors.length === 0) {
    const detail = each(usable, (config) => explainPairMismatch(proposed, config.selectors));
    return refusal(NotifyType.TS_UNACCEPTABLE, 'TS_UNACCEPTABLE', detail);
  }
  const byProposal = bySelectors.filter((config) => chooseEsp(offered, config.proposals, exchange) !== undefined);
  const choice = chooseNarrowing(
    proposed,
    byProposal.map((config) => config.selectors),
  );
  const config = choice && byProposal[choice.index];
  if (config === undefined || choice === undefined) {
    const detail = each(bySelectors, ({ proposals }) => explainNoProposal(offered, proposals, exchange));
    return { ...refusal(NotifyType.NO_PROPOSAL_CHOSEN, 'NO_PROPOSAL_CHOSEN', detail), config: bySelectors[0] };
  }
  return { ok: true, config, chosen: chooseEsp(offered, config.proposals, exchange)!, selectors: choice.selectors };
}

/** BOUNDED: children that a refusal explains; thousands may be configured. */
const MAX_EXPLAINED = 4;

/** A line or more for each; once for those that it is the same for. */
function each(configs: readonly ChildConfig[], explain: (config: ChildConfig) => string): string {
  const names = new Map<string, string[]>();
  for (const config of configs.slice(0, MAX_EXPLAINED)) {
    const why = explain(config);
    names.set(why, [...(names.get(why) ?? []), config.name]);
  }
  const lines = [...names].map(([why, alike]) => `child ${alike.join(', ')}: ${why}`);
  const more = configs.length - MAX_EXPLAINED;
  return [...lines, ...(more > 0 ? [`and ${more} more children that do not match`] : [])].join('\n');
}
