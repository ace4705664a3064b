/**
 * Incoming messages of a known IKE SA (RFC 7296 §2.2, §2.21, §2.23): window, verification, rules, then the task or the
 * function that they are for. Everything a peer can send ends here in an answer, a counter, or both.
 */
import { formatSocketAddress } from '../base/address.ts';
import { assertNever } from '../base/assert.ts';
import type { Path } from './events.ts';
import { findError, misbehaved, reasonOf } from './failure.ts';
import { samePath } from './path.ts';
import { isFirstFragment, type Opened, open } from './protect/opening.ts';
import { breakOff, endSession } from './session/lifecycle.ts';
import type { IkeSession } from './session/session.ts';
import { cryptoOf, type Life, lifeOf } from './session/state.ts';
import type { Answer } from './tasks/answer.ts';
import { receiveAuth, refuseMalformedAuth } from './tasks/auth-responder.ts';
import { rekeyNotify, respondCreateChild } from './tasks/create-child.ts';
import { closeSession, declineAnswer } from './tasks/delete.ts';
import { respondInformational } from './tasks/informational.ts';
import { receiveInitResponse } from './tasks/init.ts';
import { respondRekeyChild } from './tasks/rekey-child.ts';
import { adopt, RekeyIkeTask, respondRekeyIke } from './tasks/rekey-ike.ts';
import { AuthMethodId, ExchangeType, exchangeName, NotifyType } from './wire/iana.ts';
import { decodeMessage, type IkeHeader } from './wire/message.ts';
import { isIkeOnly } from './wire/nat.ts';
import { findNotify, findPayload, type Payload } from './wire/payload.ts';
import { notifyPayload } from './wire/payloads/notify.ts';
import { checkRules } from './wire/rules.ts';

/** Takes a message whose SPIs belong to `session`. @throws DecodeError for a malformed message that is not authentic */
export function receive(session: IkeSession, now: number, path: Path, header: IkeHeader, datagram: Uint8Array): void {
  if (session.state.name === 'init-sent') receiveInit(session, now, path, header, datagram);
  else if (header.response) receiveResponse(session, now, path, header, datagram);
  else receiveRequest(session, now, path, header, datagram);
}

function receiveInit(session: IkeSession, now: number, path: Path, header: IkeHeader, datagram: Uint8Array): void {
  const { env, state, window } = session;
  const expected = header.response && header.exchange === ExchangeType.IKE_SA_INIT;
  if (state.name !== 'init-sent' || !expected || !window.expectsResponse(header.messageId)) {
    env.count('unexpected-response');
    return;
  }
  const message = decodeMessage(datagram, header);
  const isPlain = message.protectedPart === undefined;
  if (!isPlain || checkRules({ ...header, encrypted: false }, message.payloads) !== undefined) {
    env.count('rule-violation');
    return;
  }
  receiveInitResponse(session, now, state, { path, message, datagram });
}

function receiveResponse(session: IkeSession, now: number, path: Path, header: IkeHeader, datagram: Uint8Array): void {
  const { env, window, active } = session;
  const crypto = cryptoOf(session.state);
  const expected =
    window.expectsResponse(header.messageId) && (active === undefined || active.exchange === header.exchange);
  if (crypto === undefined || !expected) {
    env.count('unexpected-response');
    return;
  }
  const opened = open(session, now, crypto, header, datagram);
  if (opened === undefined) return;
  heard(session, now, path);
  const asked = window.request?.datagrams ?? [];
  if (asked.length > 1) session.fragments.learn(asked[0]!);
  window.finish();
  session.dropFragments('response');
  session.active = undefined;
  // What was asked may be out of date by now: the SA is being deleted.
  if (active === undefined) {
    if (header.exchange === ExchangeType.IKE_AUTH && !isAccepted(opened)) {
      endSession(session, now, { reason: 'requested', detail: 'the peer did not set it up' });
    } else session.startNext(now);
    return;
  }
  if (opened.kind === 'malformed') {
    active.abandon();
    endBroken(session, now, `the peer's response is malformed: ${opened.detail}`);
    return;
  }
  // RFC 7296 §2.21.3: to the peer our request was malformed, which ends the IKE SA on both sides.
  const error = findError(opened.payloads);
  if (error?.notify === NotifyType.INVALID_SYNTAX && active.kind !== 'auth') {
    active.abandon();
    const failure = { reason: reasonOf(error.notify), detail: `the peer answered INVALID_SYNTAX to ${active.kind}` };
    breakOff(session, now, failure);
    return;
  }
  active.process(session, now, opened.payloads);
  session.startNext(now);
}

/** Whether the answer to IKE_AUTH says that the peer has the IKE SA now. */
function isAccepted(opened: Opened): boolean {
  return opened.kind === 'payloads' && findPayload(opened.payloads, 'auth') !== undefined;
}

function endBroken(session: IkeSession, now: number, detail: string): void {
  if (session.state.name === 'established') {
    session.note('warn', detail);
    closeSession(session, now, 'failed', detail);
  } else if (session.state.name === 'auth-sent') declineAnswer(session, now, misbehaved(detail));
  else breakOff(session, now, misbehaved(detail));
}

function receiveRequest(session: IkeSession, now: number, path: Path, header: IkeHeader, datagram: Uint8Array): void {
  const { env, window } = session;
  switch (window.classify(header.messageId, datagram)) {
    case 'answered':
      env.count('replayed-request');
      session.respondAgain(now, path, { inFragments: false });
      return;
    case 'pending':
      env.count('replayed-request');
      return;
    case 'differs':
      receiveFragmentAgain(session, now, path, header, datagram);
      return;
    case 'old':
    case 'ahead':
      env.count('old-message-id');
      return;
    case 'new':
      break;
  }
  const crypto = cryptoOf(session.state);
  if (crypto === undefined || !allows(session, header.exchange)) {
    env.count('unexpected-exchange');
    return;
  }
  const opened = open(session, now, crypto, header, datagram);
  if (opened === undefined) return;
  session.dropFragments('request');
  if (isDeferred(session, now, opened)) return;
  window.accept(opened.first);
  heard(session, now, path);
  if (opened.kind === 'malformed') {
    refuse(session, now, path, header.exchange, opened);
    return;
  }
  if (session.state.name === 'half-open') {
    // From here on the peer writes, and is answered, where its IKE_AUTH came from (RFC 7296 §2.23).
    session.path = path;
    receiveAuth(session, now, session.state, opened.payloads);
    return;
  }
  const isDelete = opened.payloads.some((payload) => payload.type === 'delete' && payload.spis.length === 0);
  if (!isDelete) adopt(session, now);
  const answer = process(session, now, header.exchange, opened.payloads);
  session.respond(now, header.exchange, answer.payloads, path);
  if (findNotify(answer.payloads, NotifyType.INVALID_SYNTAX) === undefined) answer.after?.();
  // To the peer that is the end of the IKE SA (RFC 7296 §2.21.3), and so it must be to us.
  else breakOff(session, now, misbehaved(`${exchangeName(header.exchange)} request is not valid`), { linger: true });
}

/**
 * Whether an IKE_AUTH comes while the verification budget of its address is used up. It is treated as lost: the window
 * does not move, so that the peer's retransmission counts as a new request and is tried again.
 */
function isDeferred(session: IkeSession, now: number, opened: Opened): boolean {
  if (session.state.name !== 'half-open' || opened.kind !== 'payloads') return false;
  const auth = findPayload(opened.payloads, 'auth');
  if (auth === undefined || auth.method === AuthMethodId.SHARED_KEY) return false;
  const { env, askedFrom } = session;
  const why = env.verifications.refusal(now, askedFrom.remote.address);
  if (why === undefined) return false;
  env.count('authentication-deferred');
  session.note('warn', `IKE_AUTH from ${formatSocketAddress(askedFrom.remote)} is deferred: ${why}`);
  return true;
}

/**
 * A message with the ID of the last request that is not that request byte for byte. RFC 7383 §2.6.1: of its fragments the
 * first alone is answered, which the peer may have made smaller meanwhile (§2.5.2).
 */
function receiveFragmentAgain(
  session: IkeSession,
  now: number,
  path: Path,
  header: IkeHeader,
  datagram: Uint8Array,
): void {
  const crypto = cryptoOf(session.state);
  const first = crypto !== undefined && session.window.lastResponse !== undefined;
  if (first && isFirstFragment(session, crypto, header, datagram)) {
    session.env.count('replayed-request');
    session.respondAgain(now, path, { inFragments: true });
  } else session.env.count('old-message-id');
}

/** Which requests have a place in which state: no exchange gets ahead of authentication. */
function allows(session: IkeSession, exchange: number): boolean {
  const { state } = session;
  switch (state.name) {
    case 'half-open':
      return exchange === ExchangeType.IKE_AUTH;
    case 'established':
    case 'rekeyed':
    case 'deleting':
      return exchange === ExchangeType.CREATE_CHILD_SA || exchange === ExchangeType.INFORMATIONAL;
    case 'init-sent':
    case 'credentials-wanted':
    case 'auth-sent':
    case 'verifying':
    case 'authenticating':
    case 'closed':
      return false;
    default:
      return assertNever(state, 'allows');
  }
}

function process(session: IkeSession, now: number, exchange: number, payloads: readonly Payload[]): Answer {
  if (exchange === ExchangeType.INFORMATIONAL) return respondInformational(session, now, payloads);
  if (session.env.isSettling) return { payloads: [notifyPayload(NotifyType.TEMPORARY_FAILURE)] };
  const forIkeSa = findPayload(payloads, 'tsi') === undefined;
  if (forIkeSa) return respondRekeyIke(session, now, payloads);
  const { state } = session;
  // RFC 7296 §2.25: no children while the IKE SA is replaced or deleted.
  if (state.name !== 'established' || session.active instanceof RekeyIkeTask) {
    return { payloads: [notifyPayload(NotifyType.TEMPORARY_FAILURE)] };
  }
  const rekey = rekeyNotify(payloads);
  if (rekey !== undefined) return { payloads: respondRekeyChild(session, now, payloads, rekey) };
  return { payloads: respondCreateChild(session, now, state, payloads) };
}

/** RFC 7296 §2.5, §2.21.2, §2.21.3: an unknown critical payload is refused, bad syntax ends the IKE SA. */
function refuse(
  session: IkeSession,
  now: number,
  path: Path,
  exchange: number,
  { notify, data, detail }: Extract<Opened, { kind: 'malformed' }>,
): void {
  const what = `${exchangeName(exchange)} request: ${detail}`;
  if (session.state.name === 'half-open') {
    session.path = path;
    refuseMalformedAuth(session, now, session.state, { notify, data, detail: what });
    return;
  }
  session.respond(now, exchange, [notifyPayload(notify, data)], path);
  if (notify === NotifyType.INVALID_SYNTAX) breakOff(session, now, misbehaved(what), { linger: true });
  else session.note('warn', `refused: ${what}`);
}

/** An authentic message that is not a replay: the peer lives, and here is where it is. */
function heard(session: IkeSession, now: number, path: Path): void {
  session.lastHeardAt = now;
  followPeer(session, path);
}

/**
 * RFC 7296 §2.23: a peer behind a NAT is followed to where it appears, unless we are behind one ourselves. A message that is
 * late, on an IKE SA that was replaced, does not lead back one that has heard from the peer itself.
 */
export function followPeer(session: IkeSession, path: Path): void {
  const life = lifeOf(session.state);
  if (life?.establishedAt === undefined || samePath(session.path, path)) return;
  if (!session.nat.remoteBehindNat || session.nat.localBehindNat) return;
  if (session.encapsulated && isIkeOnly(path.local) && !isIkeOnly(session.path.local)) {
    refusePath(session, life, path);
    return;
  }
  // It may say so on an IKE SA that was replaced meanwhile, with its delete: those that replaced it are where that was.
  for (const heir of heirsOf(session, life)) if (samePath(heir.path, session.path)) move(heir, path);
  move(session, path);
}

/** The IKE SAs that came out of the rekeying of this one, and of those in turn. */
function heirsOf(session: IkeSession, { origin }: Life): IkeSession[] {
  const others = session.registry.withSamePeer(session);
  return others.filter(({ id, state }) => id > session.id && lifeOf(state)?.origin === origin);
}

function move(session: IkeSession, path: Path): void {
  session.path = path;
  session.registry.stateChanged(session);
  if (lifeOf(session.state)?.announced) session.env.emit({ type: 'path-changed', ikeSaId: session.id, path });
}

/** ESP in UDP cannot follow the peer to port 500: it stays where it is, and requests of ours too (RFC 7296 §2.23). */
function refusePath(session: IkeSession, life: Life, { local, remote }: Path): void {
  session.env.count('path-refused');
  if (life.toldOfPath) return;
  life.toldOfPath = true;
  const from = `the peer sends from ${formatSocketAddress(remote)} to port ${local.port}, which carries no ESP in UDP`;
  session.note('warn', `${from}: packets still go to ${formatSocketAddress(session.path.remote)}`);
}
