/**
 * A peer of an IKE endpoint that has the keys and can be either side: it authenticates as a good one does, and then sends what it is
 * told, well sealed.
 */
import { identityFromText } from '../../src/base/identity.ts';
import { utf8 } from '../../src/base/text.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import { parseEspProposalString, parseIkeProposalString } from '../../src/crypto/proposal-text.ts';
import type { Path } from '../../src/ike/events.ts';
import { pskAuth } from '../../src/ike/keys/auth.ts';
import { bindKeys, type IkeCrypto } from '../../src/ike/keys/ike-crypto.ts';
import { deriveIkeKeys, deriveSkeyseed, type Nonces } from '../../src/ike/keys/keys.ts';
import { acceptIke, espWireProposals, ikeWireProposals } from '../../src/ike/proposals/proposals.ts';
import { sealPart } from '../../src/ike/protect/protect.ts';
import { childSpiBytes } from '../../src/ike/session/child.ts';
import { AuthMethodId, ExchangeType, NotifyType } from '../../src/ike/wire/iana.ts';
import { decodeHeader, decodeMessage, encodePlain, type IkeHeader } from '../../src/ike/wire/message.ts';
import { findPayload, type Payload } from '../../src/ike/wire/payload.ts';
import { notifyPayload } from '../../src/ike/wire/payloads/notify.ts';
import { at, child, connection, Host, mirrored, net, Random } from '../support/ike-pair.ts';

const IKE = [parseIkeProposalString('aes128gcm16-prfsha256-x25519')];
const ESP = [parseEspProposalString('aes128gcm16-noesn')];
const GROUP = IKE[0]!.dh[0]!;
const SPI = 0x1122334455667788n;
/** From the endpoint. */
const PATH: Path = { local: at('192.0.2.2', 4500), remote: at('192.0.2.1', 4500) };
const EMPTY = new Uint8Array(0);

/** As it is put into SK: any bytes. */
export interface Content {
  readonly firstPayload: number;
  readonly content: Uint8Array;
}

export class SessionPeer {
  now = 1_000;
  readonly random: Random = new Random(4);
  readonly host: Host;
  readonly role: 'initiator' | 'responder';
  /** Requests of the endpoint's that have no response yet. */
  readonly asked: Uint8Array[] = [];
  readonly #nonce = this.random.bytes(32);
  readonly #keyPair = nodeProvider.dhKeyPair(GROUP, this.random.bytes);
  #crypto: IkeCrypto | undefined;
  #nonces!: Nonces;
  #init: Uint8Array = EMPTY;
  #theirSpi = 0n;
  #next = 1;
  #sealed = 0;

  constructor(role: SessionPeer['role']) {
    this.role = role;
    this.host = new Host('b', { crypto: nodeProvider, random: new Random(5).bytes });
    const children = [
      child('c'),
      child('d', { selectors: { local: [net('10.3.0.0/24')], remote: [net('10.4.0.0/24')] } }),
    ];
    this.host.endpoint.addConnection(mirrored(connection({ children, dpd: { interval: 20_000 } })));
  }

  /** Exchanges IKE_SA_INIT, so that there are keys. */
  meet(): void {
    if (this.role === 'initiator')
      this.#init = encodePlain(this.#header(ExchangeType.IKE_SA_INIT, 0, false), this.#negotiation());
    else this.host.endpoint.initiate(this.now, 'net');
    const theirs = this.role === 'initiator' ? this.send(this.#init)[0]! : this.drain()[0]!;
    const { header, payloads } = decodeMessage(theirs);
    this.#theirSpi = this.role === 'initiator' ? header.responderSpi : header.initiatorSpi;
    const nonce = findPayload(payloads, 'nonce')!.data.slice();
    const [initiator, responder] = this.role === 'initiator' ? [this.#nonce, nonce] : [nonce, this.#nonce];
    this.#nonces = { initiator, responder };
    const { suite } = acceptIke(findPayload(payloads, 'sa')!.proposals, IKE, 'ike-sa-init')!;
    const shared = this.#keyPair.derive(findPayload(payloads, 'ke')!.data);
    const seed = deriveSkeyseed(nodeProvider, suite.prf, this.#nonces, shared);
    const { initiatorSpi, responderSpi } = this.#header(0, 0, false);
    const spis = { initiator: initiatorSpi, responder: responderSpi };
    this.#crypto = bindKeys(
      nodeProvider,
      suite,
      deriveIkeKeys(nodeProvider, suite, seed, this.#nonces, spis),
      this.role,
    );
    if (this.role === 'initiator') return;
    this.#init = encodePlain(this.#header(ExchangeType.IKE_SA_INIT, 0, true), this.#negotiation());
    this.asked.length = 0;
    this.send(this.#init);
  }

  /** Authenticates: the SAs are up then. */
  establish(): void {
    this.meet();
    const identity = identityFromText('fqdn', 'a');
    const { keys, suite } = this.#crypto!;
    const isInitiator = this.role === 'initiator';
    const parts = {
      initMessage: this.#init,
      peerNonce: isInitiator ? this.#nonces.responder : this.#nonces.initiator,
      skP: isInitiator ? keys.pi : keys.pr,
      identity,
    };
    const data = pskAuth(nodeProvider, suite.prf, utf8('a secret'), parts);
    const payloads: Payload[] = [
      { type: isInitiator ? 'idi' : 'idr', identity },
      { type: 'auth', method: AuthMethodId.SHARED_KEY, data },
      ...this.childPayloads('ike-auth'),
    ];
    const content = this.encoded(payloads);
    if (isInitiator) this.request(ExchangeType.IKE_AUTH, content);
    else this.answer(content);
  }

  /** SA, TSi and TSr of a child, and a nonce where it is not part of IKE_AUTH. */
  childPayloads(context: 'ike-auth' | 'create-child'): Payload[] {
    const mine = { selectors: [net('10.1.0.0/24')], unknown: 0 };
    const theirs = { selectors: [net('10.2.0.0/24')], unknown: 0 };
    const [tsi, tsr] = this.role === 'initiator' ? [mine, theirs] : [theirs, mine];
    return [
      { type: 'sa', proposals: espWireProposals(ESP, context, childSpiBytes(0x1000 + this.random.below(0x1000))) },
      ...(context === 'create-child' ? ([{ type: 'nonce', data: this.random.bytes(32) }] as const) : []),
      { type: 'tsi', ...tsi },
      { type: 'tsr', ...tsr },
    ];
  }

  /** The content of SK for payloads. */
  encoded(payloads: readonly Payload[]): Content {
    const bytes = encodePlain(this.#header(0, 0, false), payloads);
    return { firstPayload: bytes[16]!, content: bytes.subarray(28) };
  }

  #negotiation(): Payload[] {
    return [
      { type: 'sa', proposals: ikeWireProposals(IKE) },
      { type: 'ke', group: GROUP.id, data: this.#keyPair.publicValue },
      { type: 'nonce', data: this.#nonce },
      notifyPayload(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED, EMPTY),
    ];
  }

  #header(exchange: number, messageId: number, response: boolean): IkeHeader {
    const initiator = this.role === 'initiator';
    const [initiatorSpi, responderSpi] = initiator ? [SPI, this.#theirSpi] : [this.#theirSpi, SPI];
    return { initiatorSpi, responderSpi, exchange, initiator, response, messageId };
  }

  /** A request in so many fragments (0: whole), `skip` numbers away from the next. */
  request(
    exchange: number,
    content: Content,
    { fragments = 0, skip = 0 }: { readonly fragments?: number; readonly skip?: number } = {},
  ): void {
    const header = this.#header(exchange, (this.#next + skip) >>> 0, false);
    if (skip === 0) this.#next++;
    for (const datagram of this.#seal(header, content, fragments)) this.send(datagram);
  }

  /** A response to the oldest request of the endpoint's; nothing where there is none. */
  answer(content: Content, { fragments = 0 }: { readonly fragments?: number } = {}): void {
    const request = this.asked.shift();
    if (request === undefined) return;
    const { exchange, messageId } = decodeHeader(request);
    for (const datagram of this.#seal(this.#header(exchange, messageId, true), content, fragments)) this.send(datagram);
  }

  #seal(header: IkeHeader, { firstPayload, content }: Content, total: number): Uint8Array[] {
    const cipher = this.#crypto!.outbound;
    if (total === 0) return [sealPart(header, { firstPayload, content }, cipher, this.#sealed++)];
    const size = Math.ceil(content.length / total);
    return Array.from({ length: total }, (_, at) => {
      const part = { firstPayload: at === 0 ? firstPayload : 0, content: content.subarray(at * size, (at + 1) * size) };
      return sealPart(header, { ...part, place: { number: at + 1, total } }, cipher, this.#sealed++);
    });
  }

  /** Gives bytes to the endpoint; what it asks is kept. */
  send(data: Uint8Array): Uint8Array[] {
    this.host.endpoint.handleDatagram(this.now, PATH, data);
    return this.drain();
  }

  drain(): Uint8Array[] {
    const { endpoint } = this.host;
    for (let event = endpoint.pollEvent(); event !== undefined; event = endpoint.pollEvent()) {
      this.host.note(this.now, event);
    }
    const out: Uint8Array[] = [];
    for (let next = endpoint.pollTransmit(); next !== undefined; next = endpoint.pollTransmit()) {
      if (next.keepalive) continue;
      out.push(next.data.slice());
      if (!decodeHeader(next.data).response) this.asked.push(next.data.slice());
    }
    return out;
  }

  /** Lets the endpoint's clock go on. @throws Error when it is called without end */
  wait(duration: number): void {
    const until = this.now + duration;
    for (let steps = 0; ; steps++) {
      const next = this.host.endpoint.nextTimeout();
      if (next === undefined || next > until) break;
      if (steps > 10_000) throw new Error(`the endpoint is called without end at ${this.now}`);
      this.now = Math.max(this.now, next);
      this.host.endpoint.handleTimeout(this.now);
      this.drain();
    }
    this.now = until;
  }
}
