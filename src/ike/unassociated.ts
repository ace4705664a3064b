/**
 * Messages that belong to no IKE SA of ours (RFC 7296 §1.5, §2.5, §2.6, §2.21.1, §2.21.4): requests for a new one, and
 * everything else. Their senders are not authenticated: the rate of answers is bounded, and no state is kept.
 */
import { formatAddress, formatSocketAddress } from '../base/address.ts';
import { ByteReader, equalBytes } from '../base/bytes.ts';
import { TokenBucket } from '../base/token-bucket.ts';
import type { EndpointEnvironment } from './endpoint-environment.ts';
import type { Path } from './events.ts';
import { reasonOf } from './failure.ts';
import { COOKIE_SECRET_LENGTH, CookieJar } from './half-open/cookie.ts';
import { endSession } from './session/lifecycle.ts';
import type { IkeSession } from './session/session.ts';
import type { SessionRegistry } from './session-registry.ts';
import { answerInit, refuseInit } from './tasks/init-responder.ts';
import { ExchangeType, NotifyType, notifyName } from './wire/iana.ts';
import {
  decodeMessage,
  encodePlain,
  FLAG_INITIATOR,
  FLAG_RESPONSE,
  type IkeHeader,
  type IkeMessage,
} from './wire/message.ts';
import { findNotify, findPayload, RefusedMessageError } from './wire/payload.ts';
import { notifyPayload } from './wire/payloads/notify.ts';
import { checkRules } from './wire/rules.ts';

/** A cookie holds for one to two of these. */
const COOKIE_LIFETIME = 60_000;
/** Refusals of IKE_SA_INIT, and hints about SPIs and versions that we do not know: a second, and at once. */
const REFUSALS = [100, 200] as const;
const HINTS = [5, 10] as const;
/** Refusals that are reported to the owner, a second and at once: any host can cause them. */
const REPORTS = [2, 20] as const;
/** Several times what any key exchange and list of proposals takes; IKE_SA_INIT is never fragmented (RFC 7383 §2.4). */
const MAX_INIT_LENGTH = 8_192;
/** Connections that a refusal names. */
const MAX_LISTED = 4;
const NOTHING = new Uint8Array(0);

/** What a request for an IKE SA is refused with. */
interface Refusal {
  readonly notify: number;
  readonly data?: Uint8Array;
  /** For the owner; `undefined` for what is a part of negotiation, or a fault of the peer's. */
  readonly explain?: (() => string) | undefined;
  readonly connection?: string | undefined;
}

export class UnassociatedMessages {
  readonly #env: EndpointEnvironment;
  readonly #registry: SessionRegistry;
  readonly #cookies: CookieJar;
  readonly #refusals = new TokenBucket(...REFUSALS);
  readonly #hints = new TokenBucket(...HINTS);
  readonly #reports = new TokenBucket(...REPORTS);
  #cookiesFrom: number | undefined;

  constructor(registry: SessionRegistry) {
    const { env } = registry;
    this.#env = env;
    this.#registry = registry;
    this.#cookies = new CookieJar(env.crypto, env.random(COOKIE_SECRET_LENGTH));
  }

  /** A message with SPIs that we do not know. @throws DecodeError */
  receive(now: number, path: Path, header: IkeHeader, datagram: Uint8Array): void {
    const opening = header.exchange === ExchangeType.IKE_SA_INIT && !header.response && header.initiator;
    if (opening && header.responderSpi === 0n && header.messageId === 0) {
      this.#open(now, path, header, datagram);
      return;
    }
    this.#env.count('unknown-spi');
    // RFC 7296 §2.21.4: the sender may be told, at a low rate; a response is never answered.
    if (header.response || header.exchange === ExchangeType.IKE_SA_INIT) return;
    this.#hint(now, path, header, NotifyType.INVALID_IKE_SPI, NOTHING);
  }

  /** A datagram whose header has a higher major version, and else is as ours (RFC 7296 §2.5). */
  refuseVersion(now: number, path: Path, datagram: Uint8Array): void {
    this.#env.count('major-version');
    const reader = new ByteReader(datagram);
    const initiatorSpi = reader.u64();
    const responderSpi = reader.u64();
    reader.skip(2);
    const exchange = reader.u8();
    const flags = reader.u8();
    const messageId = reader.u32();
    if ((flags & FLAG_RESPONSE) !== 0) return;
    const initiator = (flags & FLAG_INITIATOR) !== 0;
    const header: IkeHeader = { initiatorSpi, responderSpi, exchange, initiator, response: false, messageId };
    this.#hint(now, path, header, NotifyType.INVALID_MAJOR_VERSION, NOTHING);
  }

  /** Outside of an IKE SA the header of the answer is that of the request, turned round (RFC 7296 §1.5). */
  #hint(now: number, path: Path, header: IkeHeader, notify: number, data: Uint8Array): void {
    if (!this.#hints.take(now)) {
      this.#env.count('rate-limited');
      return;
    }
    const answer = { ...header, initiator: !header.initiator, response: true };
    this.#env.transmit(path, encodePlain(answer, [notifyPayload(notify, data)]));
  }

  #open(now: number, path: Path, header: IkeHeader, datagram: Uint8Array): void {
    const env = this.#env;
    const registry = this.#registry;
    if (registry.sessions.get(header.initiatorSpi)?.initiator) {
      // Our own request, sent back to us. Answered, it would make us both ends of an IKE SA, whose pre-shared key fits.
      env.count('reflected');
      return;
    }
    const known = registry.halfOpen.find(header.initiatorSpi, path);
    if (known !== undefined) {
      this.#again(path, known, datagram);
      return;
    }
    if (datagram.length > MAX_INIT_LENGTH) {
      env.count('malformed-too-many');
      return;
    }
    const message = this.#decode(now, path, header, datagram);
    if (message === undefined) return;
    const violation = checkRules({ ...header, encrypted: false }, message.payloads);
    if (violation !== undefined || message.protectedPart !== undefined) {
      env.count('rule-violation');
      this.#refuse(now, path, header, { notify: violation?.notify ?? NotifyType.INVALID_SYNTAX });
      return;
    }
    if (!this.#cookieHolds(now, path, message)) return;
    this.#negotiate(now, path, message, datagram);
  }

  /** RFC 7296 §2.1: the same request gets the same bytes again; another request with the same SPI is ignored. */
  #again(path: Path, { state }: IkeSession, datagram: Uint8Array): void {
    const setUp = 'setUp' in state ? state.setUp : undefined;
    const same = setUp !== undefined && equalBytes(setUp.initRequest, datagram);
    this.#env.count(same ? 'replayed-request' : 'init-ignored');
    if (same) this.#env.transmit(path, setUp.initResponse);
  }

  #decode(now: number, path: Path, header: IkeHeader, datagram: Uint8Array): IkeMessage | undefined {
    try {
      return decodeMessage(datagram, header);
    } catch (error) {
      if (!(error instanceof RefusedMessageError)) throw error;
      this.#env.count(`malformed-${error.code}`);
      this.#refuse(now, path, header, { notify: error.notify, data: error.notifyData });
      return undefined;
    }
  }

  /** RFC 7296 §2.6: under load the sender must first show that it receives at its address. */
  #cookieHolds(now: number, path: Path, message: IkeMessage): boolean {
    const env = this.#env;
    const registry = this.#registry;
    if (!registry.halfOpen.wantsCookie(path)) return true;
    this.#rotate(now);
    const { header, payloads } = message;
    const nonce = findPayload(payloads, 'nonce')!.data;
    const subject = { nonce, remote: path.remote, initiatorSpi: header.initiatorSpi };
    const cookie = findNotify(payloads, NotifyType.COOKIE);
    if (cookie !== undefined && this.#cookies.verify(subject, cookie.data)) return true;
    env.count(cookie === undefined ? 'cookie-demanded' : 'cookie-bad');
    env.transmit(path, refuseInit(header, NotifyType.COOKIE, this.#cookies.make(subject)));
    return false;
  }

  #rotate(now: number): void {
    this.#cookiesFrom ??= now;
    if (now - this.#cookiesFrom < COOKIE_LIFETIME) return;
    this.#cookies.rotate(this.#env.random(COOKIE_SECRET_LENGTH));
    this.#cookiesFrom = now;
  }

  #negotiate(now: number, path: Path, message: IkeMessage, datagram: Uint8Array): void {
    const env = this.#env;
    const registry = this.#registry;
    const { header } = message;
    const candidates = env.connectionsBetween(path);
    if (candidates.configs.length === 0) {
      const explain = (): string => this.#explainNobody(path);
      this.#refuse(now, path, header, { notify: NotifyType.NO_PROPOSAL_CHOSEN, explain });
      return;
    }
    const answer = answerInit(registry, now, { path, message, datagram }, candidates, () => this.#takePlace(now, path));
    switch (answer.kind) {
      case 'full':
        env.count('half-open-full');
        return;
      case 'refused':
        if (answer.spent !== undefined) registry.addHalfOpen(answer.spent);
        this.#refuse(now, path, header, { ...answer, connection: candidates.configs[0]?.name });
        return;
      case 'opened':
        registry.addHalfOpen(answer.session);
        env.transmit(path, answer.datagram);
    }
  }

  /** Makes room for a half-open SA of a source, whose cookie was checked; false when it cannot have any now. */
  #takePlace(now: number, path: Path): boolean {
    const env = this.#env;
    const registry = this.#registry;
    const place = registry.halfOpen.admit(now, path);
    if (place?.displaced !== undefined) {
      env.count('half-open-displaced');
      endSession(place.displaced, now, { reason: 'failed', detail: 'another half-open IKE SA took its place' });
      // A session that failed before was kept only to answer retransmissions, and `endSession` leaves it.
      registry.removeSession(place.displaced);
    }
    return place !== undefined && registry.hasRoom();
  }

  /** Between which ends there are connections: an address may be wrong by a digit. */
  #explainNobody({ local, remote }: Path): string {
    const known: string[] = [];
    let more = 0;
    for (const { name, ...config } of this.#env.configs.values()) {
      const [here, there] = [config.local.address, config.remote.address].map((end) => end && formatAddress(end));
      if (known.length < MAX_LISTED) known.push(`${name} from ${there ?? 'anywhere'} to ${here ?? 'any of ours'}`);
      else more++;
    }
    const others =
      known.length === 0 ? 'there is none' : `there are ${known.join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
    return `no connection matches ${formatSocketAddress(remote)} to ${formatSocketAddress(local)}; ${others}`;
  }

  #refuse(now: number, path: Path, header: IkeHeader, refusal: Refusal): void {
    const { notify, data = NOTHING, explain, connection } = refusal;
    const env = this.#env;
    if (!this.#refusals.take(now)) {
      env.count('rate-limited');
      return;
    }
    env.transmit(path, refuseInit(header, notify, data));
    if (explain === undefined || !this.#reports.take(now)) return;
    const { remote } = path;
    const detail = explain();
    const text = `${notifyName(notify)} to ${formatSocketAddress(remote)}: ${detail}`;
    if (connection === undefined) env.emit({ type: 'note', connection, level: 'warn', text });
    else
      env.emit({
        type: 'failed',
        connection,
        child: undefined,
        selectors: undefined,
        reason: reasonOf(notify),
        detail,
        remote,
        initiator: false,
        again: false,
      });
  }
}
