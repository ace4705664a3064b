/**
 * IKE_SA_INIT as initiator (RFC 7296 §1.2, §2.6, §2.7, §2.23).
 *
 * The response is not authentic, so it never ends the attempt at once (§2.21.1): a refusal is remembered as the likely
 * reason, and the attempt goes on for a while, as the real response may follow a forged one.
 */
import { formatProposal } from '../../crypto/proposal-text.ts';
import type { ConnectionConfig } from '../config.ts';
import type { Path } from '../events.ts';
import { type Failure, failureFrom, findError, misbehaved } from '../failure.ts';
import { bindKeys, type IkeCrypto, wipeCrypto } from '../keys/ike-crypto.ts';
import { deriveIkeKeys, deriveSkeyseed, type IkeSuite, NONCE_LENGTH, type Nonces } from '../keys/keys.ts';
import { authoritiesOf, hashAlgorithmsNotify, hashAlgorithmsOf, usesSignatures } from '../keys/signature.ts';
import { GroupChoice } from '../proposals/groups.ts';
import { acceptIke, ikeWireProposals } from '../proposals/proposals.ts';
import { single } from '../protect/outgoing.ts';
import { lacksEncapsulation } from '../session/encapsulation.ts';
import type { Environment } from '../session/environment.ts';
import { endSession, failSession } from '../session/lifecycle.ts';
import type { IkeSession } from '../session/session.ts';
import type { Attempt, InitRequest, SetUp, StateOf } from '../session/state.ts';
import { ExchangeType, NotifyType } from '../wire/iana.ts';
import { encodePlain, type IkeMessage } from '../wire/message.ts';
import { detectNat, mayEncapsulate, type NatStatus, NO_NAT, natDetectionNotifies } from '../wire/nat.ts';
import { findNotify, findPayload, type Payload } from '../wire/payload.ts';
import { type NotifyPayload, notifyPayload } from '../wire/payloads/notify.ts';
import { askOwnCredentials } from './auth.ts';
import { deriveShared } from './key-exchange.ts';

/** How long an attempt goes on after a refusal, which any host could have forged. */
const REFUSAL_GRACE = 3_000;
/** Cookies that are returned; a peer that demands more counts as misbehaving. */
const MAX_COOKIES = 5;

type InitSent = StateOf<'init-sent'>;

/** A response to IKE_SA_INIT, with the bytes that AUTH will be computed over. */
export interface InitResponse {
  readonly path: Path;
  readonly message: IkeMessage;
  readonly datagram: Uint8Array;
}

/** What our IKE_SA_INIT begins with: the first group of the first proposal. */
export function newInitRequest({ crypto, random }: Environment, { proposals }: ConnectionConfig): InitRequest {
  const group = proposals[0]!.dh[0]!;
  return {
    groups: new GroupChoice(),
    group,
    keyPair: crypto.dhKeyPair(group, random),
    nonce: random(NONCE_LENGTH),
    cookie: undefined,
    cookies: 0,
    bytes: new Uint8Array(0),
    likely: undefined,
  };
}

/** Sends the request, or the same with a cookie or another group: the message ID stays 0 (RFC 7296 §2.6, §2.7). */
export function sendInit(session: IkeSession, now: number, { attempt, init }: InitSent): void {
  const { window } = session;
  const header = session.headerFor({ exchange: ExchangeType.IKE_SA_INIT, response: false, messageId: 0 });
  init.bytes = encodePlain(header, requestPayloads(session, attempt.config, init));
  const message = single(init.bytes);
  if (window.idle) window.send(now, message);
  else window.resend(now, message);
  session.transmit(session.path, message);
}

function requestPayloads(
  { env, path, spiInitiator }: IkeSession,
  config: ConnectionConfig,
  { cookie, group, keyPair, nonce }: InitRequest,
): readonly Payload[] {
  const forced = forcesEncapsulation(env, config) ? env.random : undefined;
  const spis = { initiatorSpi: spiInitiator, responderSpi: 0n };
  return [
    ...(cookie === undefined ? [] : [cookie]),
    { type: 'sa', proposals: ikeWireProposals(config.proposals) },
    { type: 'ke', group: group.id, data: keyPair.publicValue },
    { type: 'nonce', data: nonce },
    ...(config.nat.mode === 'off' ? [] : natDetectionNotifies(env.crypto, spis, path.local, path.remote, forced)),
    ...(config.fragmentSize === 0 ? [] : [notifyPayload(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED)]),
    ...(usesSignatures(config) ? [hashAlgorithmsNotify()] : []),
    ...env.vendorIds.map((data): Payload => ({ type: 'vendor', data })),
  ];
}

function forcesEncapsulation({ rawEsp }: Environment, { nat }: ConnectionConfig): boolean {
  return !rawEsp || nat.mode === 'force';
}

/** Takes a response. */
export function receiveInitResponse(session: IkeSession, now: number, state: InitSent, response: InitResponse): void {
  const { payloads } = response.message;
  const cookie = findNotify(payloads, NotifyType.COOKIE);
  const error = findError(payloads);
  if (error?.notify === NotifyType.INVALID_KE_PAYLOAD) useGroup(session, now, state, error);
  else if (cookie !== undefined && findPayload(payloads, 'sa') === undefined) useCookie(session, now, state, cookie);
  else if (error !== undefined) {
    session.env.count('unauthenticated-notify');
    suspect(session, now, state, failureFrom(error, `offered: ${offered(state)}`, 'ike-sa'));
  } else accept(session, now, state, response);
}

function offered({ attempt }: InitSent): string {
  return attempt.config.proposals.map(formatProposal).join(', ');
}

function useCookie(session: IkeSession, now: number, state: InitSent, cookie: NotifyPayload): void {
  const { init } = state;
  if (++init.cookies > MAX_COOKIES) {
    suspect(session, now, state, misbehaved('the peer demands a new cookie again and again'));
    return;
  }
  init.cookie = { ...cookie, data: cookie.data.slice(), spi: new Uint8Array(0) };
  sendInit(session, now, state);
}

function useGroup(session: IkeSession, now: number, state: InitSent, error: NotifyPayload): void {
  const { attempt, init } = state;
  const group = init.groups.next(error, init.group, attempt.config.proposals);
  if (group === undefined) {
    const said = `it wants a group that we did not offer or have already tried: ${offered(state)}`;
    suspect(session, now, state, failureFrom(error, said, 'ike-sa'));
    return;
  }
  init.keyPair.wipe();
  init.group = group;
  init.keyPair = session.env.crypto.dhKeyPair(group, session.env.random);
  sendInit(session, now, state);
}

/** Remembers the likely reason. Only the first answer sets the clock, so that forgeries cannot keep the attempt alive. */
function suspect(session: IkeSession, now: number, { init }: InitSent, failure: Failure): void {
  init.likely ??= failure;
  if (session.timers.get('give-up') === undefined) session.timers.set('give-up', now + REFUSAL_GRACE);
}

function accept(session: IkeSession, now: number, state: InitSent, { path, message, datagram }: InitResponse): void {
  const { attempt, init } = state;
  const { config } = attempt;
  const { header, payloads } = message;
  const sa = findPayload(payloads, 'sa');
  const ke = findPayload(payloads, 'ke');
  const nonce = findPayload(payloads, 'nonce');
  if (sa === undefined || ke === undefined || nonce === undefined || header.responderSpi === 0n) return;
  const chosen = acceptIke(sa.proposals, config.proposals, 'ike-sa-init');
  if (chosen === undefined || chosen.suite.dh !== init.group || ke.group !== init.group.id) {
    suspect(session, now, state, misbehaved('the peer chose algorithms that were not offered, or another group'));
    return;
  }
  session.nat = natOf(session, config, path, message);
  const problem = lacksEncapsulation(session);
  if (problem !== undefined) {
    suspect(session, now, state, { reason: 'no-esp-path', detail: problem });
    return;
  }
  const shared = deriveShared(init.keyPair, ke.data);
  if (shared === undefined) {
    session.env.count('invalid-key-exchange');
    suspect(session, now, state, misbehaved("the peer's public value is not valid"));
    return;
  }
  session.spiResponder = header.responderSpi;
  const nonces: Nonces = { initiator: init.nonce, responder: nonce.data.slice() };
  const crypto = firstCrypto(session, chosen.suite, nonces, shared);
  const setUp = {
    initRequest: init.bytes,
    initResponse: datagram.slice(),
    nonces,
    childless: findNotify(payloads, NotifyType.CHILDLESS_IKEV2_SUPPORTED) !== undefined,
    peerHashes: usesSignatures(config) ? hashAlgorithmsOf(payloads) : undefined,
    authorities: authoritiesOf(payloads),
  };
  session.fragments.supported =
    config.fragmentSize !== 0 && findNotify(payloads, NotifyType.IKEV2_FRAGMENTATION_SUPPORTED) !== undefined;
  // Where any local address would do, it is the one that the answer came to.
  if (session.path.local.address.value === 0n) session.path = { ...session.path, local: path.local };
  if (session.encapsulated) session.path = natPath(session.path, config);
  session.window.finish();
  session.timers.clear('give-up');
  authenticate(session, now, attempt, crypto, setUp);
}

/** Goes on with IKE_AUTH, unless the IKE SA is not wanted any more or the peer cannot have it. */
function authenticate(session: IkeSession, now: number, attempt: Attempt, crypto: IkeCrypto, setUp: SetUp): void {
  if (adopted(session, now, attempt)) {
    wipeCrypto(crypto);
    return;
  }
  if (!setUp.childless && attempt.wanted.length === 0) {
    wipeCrypto(crypto);
    // RFC 6023 §3: not every peer can do without a first child.
    const detail = `connection ${attempt.config.name} has no child, and the peer does not allow an IKE SA without one`;
    failSession(session, now, { reason: 'other-error-notify', detail });
    return;
  }
  askOwnCredentials(session, now, attempt, crypto, setUp);
}

function natOf({ env }: IkeSession, config: ConnectionConfig, path: Path, message: IkeMessage): NatStatus {
  const { header, payloads } = message;
  if (config.nat.mode === 'off' || !mayEncapsulate(path.local.port, payloads)) return NO_NAT;
  const { initiatorSpi, responderSpi } = header;
  const found = detectNat(env.crypto, { initiatorSpi, responderSpi }, path.local, path.remote, payloads);
  return { forced: forcesEncapsulation(env, config), ...found };
}

/**
 * When the peer opened the connection while we did, its IKE SA serves as well as ours would: ours is dropped before it
 * authenticates, and what it was wanted for is done on the other.
 */
function adopted(session: IkeSession, now: number, attempt: Attempt): boolean {
  const { config, wanted, successorOf, reauthenticates } = attempt;
  // One that is to replace the other is wanted beside it.
  if ((successorOf ?? reauthenticates) !== undefined) return false;
  const other = session.registry.establishedOf(config.name, session.path.remote.address);
  if (other === undefined) return false;
  session.registry.bringUp(now, other, wanted);
  endSession(session, now, { reason: 'redundant', detail: 'the peer opened the connection at the same time' });
  return true;
}

/** Both move to the ports for NAT traversal, unless they use ports of their own for everything (RFC 7296 §2.23). */
function natPath(path: Path, { local, remote }: ConnectionConfig): Path {
  const move = (end: Path['local'], from: number, to: number): Path['local'] =>
    end.port === from ? { ...end, port: to } : end;
  return {
    local: move(path.local, local.port, local.natPort),
    remote: move(path.remote, remote.port, remote.natPort),
  };
}

/** Keys and ciphers of a first IKE SA. Wipes the shared secret. */
function firstCrypto(session: IkeSession, suite: IkeSuite, nonces: Nonces, shared: Uint8Array): IkeCrypto {
  const { env, spiInitiator, spiResponder } = session;
  const skeyseed = deriveSkeyseed(env.crypto, suite.prf, nonces, shared);
  shared.fill(0);
  const keys = deriveIkeKeys(env.crypto, suite, skeyseed, nonces, {
    initiator: spiInitiator,
    responder: spiResponder,
  });
  return bindKeys(env.crypto, suite, keys, 'initiator');
}
