/**
 * IKE_SA_INIT as responder (RFC 7296 §1.2, §2.6, §2.7). The initiator is not authenticated yet: what a request costs is
 * bounded, and beyond a number of half-open SAs a cookie must show that the initiator receives at its address.
 */
import type { DhGroup } from '../../crypto/types.ts';
import type { Candidates } from '../candidates.ts';
import type { Path } from '../events.ts';
import { bindKeys } from '../keys/ike-crypto.ts';
import { deriveIkeKeys, deriveSkeyseed, type IkeSuite, NONCE_LENGTH, type Nonces } from '../keys/keys.ts';
import { hashAlgorithmsNotify, hashAlgorithmsOf } from '../keys/signature.ts';
import { capabilitiesAsked } from '../proposals/capabilities.ts';
import { groupData } from '../proposals/groups.ts';
import { answerProposal, type Chosen, chooseIke } from '../proposals/proposals.ts';
import { explainNoProposal } from '../proposals/report.ts';
import type { Environment } from '../session/environment.ts';
import { LINGER } from '../session/lifecycle.ts';
import type { Registry } from '../session/registry.ts';
import { IkeSession } from '../session/session.ts';
import { MessageWindow } from '../session/window.ts';
import { ExchangeType, NotifyType } from '../wire/iana.ts';
import { encodePlain, type IkeHeader, type IkeMessage } from '../wire/message.ts';
import { detectNat, type IkeSpis, mayEncapsulate, NO_NAT, natDetectionNotifies } from '../wire/nat.ts';
import { findNotify, findPayload, type Payload } from '../wire/payload.ts';
import { notifyPayload } from '../wire/payloads/notify.ts';
import { deriveShared } from './key-exchange.ts';

/** An IKE_SA_INIT request, with the bytes that AUTH will be computed over. */
export interface InitRequest {
  readonly path: Path;
  readonly message: IkeMessage;
  readonly datagram: Uint8Array;
}

export type InitAnswer =
  | {
      readonly kind: 'refused';
      readonly notify: number;
      readonly data: Uint8Array;
      /** The reason, reported to the owner; `undefined` for what is a part of negotiation, such as a cookie. */
      readonly explain: (() => string) | undefined;
      /** Takes the place of a half-open SA where a key exchange was spent on the request. */
      readonly spent?: IkeSession;
    }
  /** No key exchange is spent on the request now. */
  | { readonly kind: 'full' }
  | { readonly kind: 'opened'; readonly session: IkeSession; readonly datagram: Uint8Array };

const NOTHING = new Uint8Array(0);

/**
 * Answers a request that passed the rules and the cookie. There are `candidates`.
 * @param takePlace makes room for a half-open SA; called when the request is acceptable, before the key exchange
 */
export function answerInit(
  registry: Registry<IkeSession>,
  now: number,
  request: InitRequest,
  candidates: Candidates,
  takePlace: () => boolean,
): InitAnswer {
  const { path, message } = request;
  const { env } = registry;
  const offered = findPayload(message.payloads, 'sa')!.proposals;
  const ke = findPayload(message.payloads, 'ke')!;
  const configured = candidates.proposals;
  const chosen = chooseIke(offered, configured, 'ike-sa-init');
  if (chosen === undefined) {
    const explain = (): string => explainNoProposal(offered, configured, 'ike');
    return { kind: 'refused', notify: NotifyType.NO_PROPOSAL_CHOSEN, data: NOTHING, explain };
  }
  const group = chosen.suite.dh;
  if (ke.group !== group.id) return refuseGroup(group);
  if (!takePlace()) return { kind: 'full' };
  const keyPair = env.crypto.dhKeyPair(group, env.random);
  const shared = deriveShared(keyPair, ke.data);
  keyPair.wipe();
  if (shared === undefined) {
    env.count('invalid-key-exchange');
    const explain = (): string => `the public value for ${group.name} is not valid`;
    const spent = spentSession(registry, now, path, message.header.initiatorSpi);
    return { kind: 'refused', notify: NotifyType.INVALID_SYNTAX, data: NOTHING, explain, spent };
  }
  return open(registry, now, request, candidates, { chosen, shared, publicValue: keyPair.publicValue });
}

/** RFC 7296 §1.3: the answer names the group that is wanted. */
function refuseGroup(group: DhGroup): InitAnswer {
  return { kind: 'refused', notify: NotifyType.INVALID_KE_PAYLOAD, data: groupData(group), explain: undefined };
}

/**
 * A half-open SA that came to nothing. Without it public values that are not valid would be the cheapest way to keep us
 * busy: they would never count towards the number that cookies are demanded from.
 */
function spentSession(registry: Registry<IkeSession>, now: number, path: Path, spiInitiator: bigint): IkeSession {
  const session = new IkeSession(registry, {
    initiator: false,
    spiInitiator,
    spiResponder: registry.newIkeSpi(),
    path,
    state: { name: 'closed' },
    window: new MessageWindow(registry.env.retransmit),
    now,
  });
  session.timers.set('give-up', now + LINGER);
  return session;
}

/** Extensions that both sides have. */
interface Agreed {
  readonly asksForNat: boolean;
  readonly forcesEncapsulation: boolean;
  readonly fragmentation: boolean;
  readonly peerHashes: readonly number[] | undefined;
}

function agree(env: Environment, path: Path, { payloads }: IkeMessage, { extensions }: Candidates): Agreed {
  const saysFragments = findNotify(payloads, NotifyType.IKEV2_FRAGMENTATION_SUPPORTED) !== undefined;
  return {
    asksForNat: extensions.asksForNat && mayEncapsulate(path.local.port, payloads),
    forcesEncapsulation: !env.rawEsp || extensions.forcesEncapsulation,
    // RFC 7383 §2.3, RFC 7427 §4: said only to a peer that said it.
    fragmentation: saysFragments && extensions.fragments,
    peerHashes: extensions.signs ? hashAlgorithmsOf(payloads) : undefined,
  };
}

function natNotifies(env: Environment, spis: IkeSpis, path: Path, agreed: Agreed): Payload[] {
  if (!agreed.asksForNat) return [];
  const random = agreed.forcesEncapsulation ? env.random : undefined;
  return natDetectionNotifies(env.crypto, spis, path.local, path.remote, random);
}

function extensionPayloads(agreed: Agreed, { extensions }: Candidates): Payload[] {
  return [
    notifyPayload(NotifyType.CHILDLESS_IKEV2_SUPPORTED),
    ...(agreed.fragmentation ? [notifyPayload(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED)] : []),
    ...(agreed.peerHashes === undefined ? [] : [hashAlgorithmsNotify()]),
    ...extensions.certificateRequests,
  ];
}

/** The key exchange that was spent on a request. */
interface KeyExchange {
  readonly chosen: Chosen<IkeSuite>;
  /** Wiped when the keys are made. */
  readonly shared: Uint8Array;
  /** Ours. */
  readonly publicValue: Uint8Array;
}

function open(
  registry: Registry<IkeSession>,
  now: number,
  { path, message, datagram }: InitRequest,
  candidates: Candidates,
  { chosen, shared, publicValue }: KeyExchange,
): InitAnswer {
  const { env } = registry;
  const { suite } = chosen;
  const spiInitiator = message.header.initiatorSpi;
  const spiResponder = registry.newIkeSpi();
  const nonces: Nonces = {
    initiator: findPayload(message.payloads, 'nonce')!.data.slice(),
    responder: env.random(NONCE_LENGTH),
  };
  const skeyseed = deriveSkeyseed(env.crypto, suite.prf, nonces, shared);
  shared.fill(0);
  const keys = deriveIkeKeys(env.crypto, suite, skeyseed, nonces, {
    initiator: spiInitiator,
    responder: spiResponder,
  });
  const agreed = agree(env, path, message, candidates);
  const spis = { initiatorSpi: spiInitiator, responderSpi: spiResponder };
  const payloads: Payload[] = [
    { type: 'sa', proposals: [answerProposal(chosen)] },
    { type: 'ke', group: suite.dh.id, data: publicValue },
    { type: 'nonce', data: nonces.responder },
    ...natNotifies(env, spis, path, agreed),
    ...extensionPayloads(agreed, candidates),
    ...env.vendorIds.map((data): Payload => ({ type: 'vendor', data })),
  ];
  const response = encodePlain(responseHeader(spiInitiator, spiResponder), payloads);
  const setUp = {
    initRequest: datagram.slice(),
    initResponse: response,
    nonces,
    childless: true,
    peerHashes: agreed.peerHashes,
    authorities: [],
  };
  const session = new IkeSession(registry, {
    initiator: false,
    spiInitiator,
    spiResponder,
    path,
    state: {
      name: 'half-open',
      crypto: bindKeys(env.crypto, suite, keys, 'responder'),
      setUp,
      candidates: candidates.allowing(chosen),
      capabilities: capabilitiesAsked(message.payloads),
    },
    window: new MessageWindow(env.retransmit, 0, 1),
    now,
  });
  // The hashes in the request were computed with a responder SPI of zero (RFC 7296 §2.23).
  const asked = { initiatorSpi: spiInitiator, responderSpi: 0n };
  session.nat = agreed.asksForNat
    ? { forced: agreed.forcesEncapsulation, ...detectNat(env.crypto, asked, path.local, path.remote, message.payloads) }
    : NO_NAT;
  session.fragments.supported = agreed.fragmentation;
  session.timers.set('give-up', now + env.limits.halfOpenTimeout);
  return { kind: 'opened', session, datagram: response };
}

function responseHeader(initiatorSpi: bigint, responderSpi: bigint): IkeHeader {
  const exchange = ExchangeType.IKE_SA_INIT;
  return { initiatorSpi, responderSpi, exchange, initiator: false, response: true, messageId: 0 };
}

/** An answer that nothing is kept of. The responder's SPI is 0 (RFC 7296 §2.6). */
export function refuseInit(header: IkeHeader, notify: number, data: Uint8Array): Uint8Array {
  return encodePlain(responseHeader(header.initiatorSpi, 0n), [notifyPayload(notify, data)]);
}
