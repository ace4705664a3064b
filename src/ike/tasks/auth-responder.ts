/**
 * IKE_AUTH as responder (RFC 7296 §1.2, §2.15, §2.21.2, RFC 6023). The connection is chosen by the identities before
 * anything is made; first the peer authenticates itself, then we do, each with its own method. The owner may take its time
 * to supply secrets, verdicts and signatures; nothing else waits meanwhile.
 */

import { formatIdentity, formatTypedIdentity, type Identity, sameIdentity } from '../../base/identity.ts';
import { canNarrow } from '../../policy/narrow.ts';
import type { ConnectionConfig } from '../config.ts';
import { settleNewcomer } from '../duplicates.ts';
import type { SignatureAnswer, VerificationAnswer } from '../events.ts';
import { misbehaved } from '../failure.ts';
import { pskAuth, verifyPskAuth } from '../keys/auth.ts';
import { authoritiesOf } from '../keys/signature.ts';
import { CAPABILITY_NOTIFIES, capabilitiesAsked, WANTS_EAP } from '../proposals/capabilities.ts';
import { credentialOf } from '../session/credential.ts';
import { endSession, failSession, installChild } from '../session/lifecycle.ts';
import type { IkeSession } from '../session/session.ts';
import type { Peers, StateOf } from '../session/state.ts';
import { AuthMethodId, authMethodName, ExchangeType, NotifyType, notifyName } from '../wire/iana.ts';
import { findNotify, findPayload, type Payload } from '../wire/payload.ts';
import { notifyPayload } from '../wire/payloads/notify.ts';
import {
  askSignature,
  askVerdict,
  copyIdentity,
  formatVerdict,
  signaturePayloads,
  signedBy,
} from './authentication.ts';
import { answerOffer } from './child-exchange.ts';

type HalfOpen = StateOf<'half-open'>;
type Authenticating = StateOf<'authenticating'>;

/** Takes the authentic request: finds the connection that it is for, and asks the owner for what the peer is verified with. */
export function receiveAuth(session: IkeSession, now: number, state: HalfOpen, payloads: readonly Payload[]): void {
  const theirs = copyIdentity(findPayload(payloads, 'idi')!.identity);
  const wanted = findPayload(payloads, 'idr')?.identity;
  const { configs } = state.candidates;
  const config = chooseConnection(asNow(session, state.candidates.forPeer(theirs)), theirs, wanted, payloads);
  if (config === undefined) {
    refuseIdentities(session, now, asNow(session, configs), theirs, wanted);
    return;
  }
  const { crypto, setUp, capabilities } = state;
  const peers = { localId: config.local.id, remoteId: theirs, credential: credentialOf(config.remote) };
  const known = { config, crypto, setUp, capabilities, request: payloads, peers, step: 'peer' } as const;
  const next: Authenticating = { name: 'authenticating', ...known, requestId: undefined };
  session.enter(next);
  const asked = askAboutPeer(session, next);
  if (typeof asked === 'string') refuse(session, now, `${met(peers)}: ${asked}`);
  else session.enter({ ...next, requestId: asked });
}

/** Connections as they are configured now. */
function asNow({ env }: IkeSession, configs: readonly ConnectionConfig[]): readonly ConnectionConfig[] {
  return configs.flatMap(({ name }) => env.connection(name) ?? []);
}

/** Asks the owner for what the peer is judged by; a text, for people, when it is refused before. */
function askAboutPeer(session: IkeSession, state: Authenticating): number | string {
  const { config, request, peers, crypto, setUp } = state;
  const { localId, remoteId } = peers;
  if (config.remote.auth === 'signature') {
    return askVerdict(session, { side: 'initiator', localId, remoteId, payloads: request, crypto, setUp });
  }
  const { method } = findPayload(request, 'auth')!;
  if (method === AuthMethodId.SHARED_KEY) {
    return session.registry.ask(session, { type: 'need-secret', localId, remoteId });
  }
  return `method not allowed: it authenticates with ${authMethodName(method)}; a pre-shared key is required`;
}

function met({ localId, remoteId }: Peers): string {
  return `the peer is ${formatIdentity(remoteId)}, we are ${formatIdentity(localId)}`;
}

/** No connection fits the two identities. The refusal counts for the connection when the addresses leave only one. */
function refuseIdentities(
  session: IkeSession,
  now: number,
  configs: readonly ConnectionConfig[],
  theirs: Identity,
  asked: Identity | undefined,
): void {
  const named = (id: Identity | undefined): string => (id === undefined ? 'any identity' : formatTypedIdentity(id));
  const known = configs.slice(0, MAX_LISTED).map(({ name, local, remote }) => {
    const wrong = [
      ...(remote.id === undefined || sameIdentity(remote.id, theirs) ? [] : [`is for ${named(remote.id)}`]),
      ...(asked === undefined || sameIdentity(asked, local.id) ? [] : [`is ${named(local.id)} here`]),
    ];
    return `connection ${name} ${wrong.join(' and ')}`;
  });
  const more = configs.length > MAX_LISTED ? `, and ${configs.length - MAX_LISTED} more do not match either` : '';
  const connection = configs.length === 1 ? configs[0]!.name : undefined;
  const met = `the peer identifies itself as ${named(theirs)} and asks for ${named(asked)}`;
  refuse(session, now, `${met}; no connection matches these identities: ${known.join(', ')}${more}`, { connection });
}

/** Connections that a refusal names. */
const MAX_LISTED = 4;

/**
 * The connection that fits both identities and the way in which the peer proves its own: one that names the peer before
 * one that accepts any identity, and of several one with a child for what the peer offers. The peer has to authenticate the
 * identity that it claims for that connection.
 */
function chooseConnection(
  configs: readonly ConnectionConfig[],
  theirs: Identity,
  asked: Identity | undefined,
  payloads: readonly Payload[],
): ConnectionConfig | undefined {
  const fitting = configs.filter(({ local, remote }) => {
    if (asked !== undefined && !sameIdentity(asked, local.id)) return false;
    return remote.id === undefined || sameIdentity(remote.id, theirs);
  });
  const method = findPayload(payloads, 'auth')!.method === AuthMethodId.SHARED_KEY ? 'psk' : 'signature';
  const proving = fitting.filter(({ remote }) => remote.auth === method);
  const usable = proving.length > 0 ? proving : fitting;
  if (usable.length < 2) return usable[0];
  const named = usable.filter((config) => config.remote.id !== undefined);
  return [...named, ...usable].find((config) => hasChildFor(config, payloads)) ?? named[0] ?? usable[0];
}

/** Selectors of a side that the choice of a connection looks at: the peer has proved nothing yet, and may send 255. */
const MAX_JUDGED = 16;

function hasChildFor({ children }: ConnectionConfig, payloads: readonly Payload[]): boolean {
  const local = findPayload(payloads, 'tsr')?.selectors.slice(0, MAX_JUDGED);
  const remote = findPayload(payloads, 'tsi')?.selectors.slice(0, MAX_JUDGED);
  if (local === undefined || remote === undefined) return true;
  return children.some((child) => canNarrow({ local, remote }, child.selectors));
}

/** Goes on with the secret that the owner was asked for. */
export function answerSecret(
  session: IkeSession,
  now: number,
  state: Authenticating,
  secret: Uint8Array | undefined,
): void {
  const { crypto, setUp, request, peers } = state;
  const { env } = session;
  if (secret === undefined) {
    refuse(session, now, `${met(peers)}: no pre-shared key is configured for the two`, { reason: 'no-secret' });
    return;
  }
  if (state.step === 'peer') {
    const parts = signedBy('initiator', peers.remoteId, crypto, setUp);
    const auth = findPayload(request, 'auth')!;
    if (!verifyPskAuth(env.crypto, crypto.suite.prf, secret, parts, auth.data)) {
      refuse(session, now, `${met(peers)}: the identities match, but the pre-shared keys differ`);
      return;
    }
    if (state.config.local.auth !== 'psk') {
      proveSelf(session, now, state);
      return;
    }
  }
  const ours = signedBy('responder', peers.localId, crypto, setUp);
  const data = pskAuth(env.crypto, crypto.suite.prf, secret, ours);
  finish(session, now, state, [{ type: 'auth', method: AuthMethodId.SHARED_KEY, data }]);
}

/** Goes on with the owner's verdict on the peer's signature and certificates. */
export function answerVerdict(
  session: IkeSession,
  now: number,
  state: Authenticating,
  verdict: VerificationAnswer,
): void {
  if (verdict.ok) proveSelf(session, now, state);
  else refuse(session, now, `${met(state.peers)}: ${formatVerdict(verdict)}`);
}

/** The peer is authenticated. Now we authenticate ourselves, for which the owner is asked again. */
function proveSelf(session: IkeSession, now: number, state: Authenticating): void {
  const { crypto, setUp, request, peers } = state;
  const { localId, remoteId } = peers;
  const asked =
    state.config.local.auth === 'psk'
      ? session.registry.ask(session, { type: 'need-secret', localId, remoteId })
      : askSignature(session, { side: 'responder', localId, remoteId, crypto, setUp }, authoritiesOf(request));
  if (typeof asked === 'string') refuse(session, now, `${met(peers)}: we must sign, but ${asked}`);
  else session.enter({ ...state, requestId: asked, step: 'self' });
}

/** Goes on with the signature that the owner was asked for. */
export function answerSignature(
  session: IkeSession,
  now: number,
  state: Authenticating,
  answer: SignatureAnswer,
): void {
  const authPayloads = signaturePayloads(answer, state.setUp);
  if (typeof authPayloads === 'string')
    refuse(session, now, `${met(state.peers)}: we cannot sign: ${authPayloads}`, { reason: 'no-signature' });
  else finish(session, now, state, authPayloads);
}

/** The owner did not answer in time. A missing pre-shared key is not reported: any host can claim any identity. */
export function expireAuth(session: IkeSession, now: number, { config, peers, step }: Authenticating): void {
  const { local, remote } = config;
  session.env.count('half-open-expired');
  if ((step === 'peer' ? remote : local).auth === 'psk') {
    endSession(session, now, { reason: 'failed', detail: 'the set-up was not finished in time' });
    return;
  }
  const [what, reason] =
    step === 'peer'
      ? (['verdict on its certificate', 'no-verdict'] as const)
      : (['signature of ours', 'no-signature'] as const);
  failSession(session, now, { reason, detail: `${met(peers)}: the ${what} did not arrive in time` });
}

/** Both are known to each other: the IKE SA is up, and its first CHILD SA, if the peer wants one and can have it. */
function finish(session: IkeSession, now: number, state: Authenticating, authPayloads: readonly Payload[]): void {
  const { config, crypto, setUp, request, peers, capabilities } = state;
  const response: Payload[] = [{ type: 'idr', identity: peers.localId }, ...authPayloads];
  // RFC 6023: a peer that wants no CHILD SA yet sends none of SA, TSi, TSr.
  const childless = findPayload(request, 'sa') === undefined;
  // Before the child is answered: which addresses it gets depends on the peer.
  session.establish(now, { config, crypto, peers, replaces: undefined });
  const message = { payloads: request, nonces: setUp.nonces };
  const child = childless ? undefined : answerOffer(session, now, config.children, message);
  if (child !== undefined) response.push(...(child.ok ? child.payloads : [child.notify]));
  session.respond(now, ExchangeType.IKE_AUTH, response, session.path);
  settleNewcomer(session, now, { initialContact: findNotify(request, NotifyType.INITIAL_CONTACT) !== undefined });
  session.announce();
  noteNotifies(session, capabilities, request);
  if (child?.ok) installChild(session, now, child.child, { sendNow: true });
  else if (child !== undefined) session.fail(child.failure, { child: child.config, initiator: false });
}

interface Refusal {
  readonly reason?: 'AUTHENTICATION_FAILED' | 'no-secret' | 'no-signature';
  /** The one that was meant, where the state does not say it. */
  readonly connection?: string | undefined;
}

function refuse(session: IkeSession, now: number, detail: string, refusal: Refusal = {}): void {
  const { reason = 'AUTHENTICATION_FAILED', connection } = refusal;
  session.env.count('authentication-failed');
  session.respond(now, ExchangeType.IKE_AUTH, [notifyPayload(NotifyType.AUTHENTICATION_FAILED)], session.path);
  failSession(session, now, { reason, detail }, { linger: true, connection });
}

/** A request that breaks the rules: answered as they say, and the attempt is over. */
export function refuseMalformedAuth(
  session: IkeSession,
  now: number,
  state: HalfOpen,
  { notify, data, detail }: { readonly notify: number; readonly data: Uint8Array; readonly detail: string },
): void {
  session.respond(now, ExchangeType.IKE_AUTH, [notifyPayload(notify, data)], session.path);
  if (notify !== NotifyType.AUTHENTICATION_FAILED) {
    failSession(session, now, misbehaved(detail), { linger: true });
    return;
  }
  // Which of several connections it means cannot be said: nothing is authenticated yet.
  const [only, ...others] = state.candidates.configs;
  const connection = others.length === 0 && only !== undefined ? session.env.connection(only.name)?.name : undefined;
  session.env.count('authentication-failed');
  failSession(session, now, { reason: 'AUTHENTICATION_FAILED', detail: WANTS_EAP }, { linger: true, connection });
}

/** Tells what a peer that has proved itself asks for and cannot have, and notes what else it says of itself. */
function noteNotifies(session: IkeSession, askedBefore: readonly string[], payloads: readonly Payload[]): void {
  for (const capability of new Set([...askedBefore, ...capabilitiesAsked(payloads)])) {
    session.env.emit({ type: 'declined', connection: session.connectionName, capability });
  }
  for (const payload of payloads) {
    if (payload.type !== 'notify' || EXPECTED.has(payload.notify)) continue;
    session.note('debug', `the peer sent ${notifyName(payload.notify)}, which is ignored`);
  }
}

/** What is acted upon, or needs no word. */
const EXPECTED: ReadonlySet<number> = new Set<number>([
  NotifyType.INITIAL_CONTACT,
  NotifyType.USE_TRANSPORT_MODE,
  NotifyType.ESP_TFC_PADDING_NOT_SUPPORTED,
  NotifyType.REKEY_SA,
  NotifyType.ADDITIONAL_TS_POSSIBLE,
  NotifyType.NAT_DETECTION_SOURCE_IP,
  NotifyType.NAT_DETECTION_DESTINATION_IP,
  NotifyType.CHILDLESS_IKEV2_SUPPORTED,
  NotifyType.COOKIE,
  ...CAPABILITY_NOTIFIES,
]);
