/**
 * A peer made of the codec and the key schedule alone, which says whatever a test wants it to say: what an endpoint of
 * ours never would. It is the initiator of its IKE SA.
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
import { openMessage, protectMessage } from '../../src/ike/protect/protect.ts';
import { childSpiBytes } from '../../src/ike/session/child.ts';
import { AuthMethodId, ExchangeType } from '../../src/ike/wire/iana.ts';
import { decodeHeader, decodeMessage, encodePlain, type IkeHeader } from '../../src/ike/wire/message.ts';
import { findPayload, type Payload } from '../../src/ike/wire/payload.ts';
import { at, connection, Host, mirrored, net, Random } from './ike-pair.ts';

export const PATH: Path = { local: at('192.0.2.2', 4500), remote: at('192.0.2.1', 4500) };
const IKE = [parseIkeProposalString('aes128gcm16-prfsha256-x25519')];
const ESP = [parseEspProposalString('aes128gcm16-noesn')];
const SPI = 0x1122334455667788n;

export interface FakePeerOptions extends Partial<ConstructorParameters<typeof Host>[1]> {
  /** Another peer of the same endpoint. */
  readonly host?: Host;
  readonly initiatorSpi?: bigint;
}

export class FakePeer {
  now = 1_000;
  readonly random: Random = new Random(4);
  /** The endpoint that it talks to, as B of `ike-pair.ts` is configured. */
  readonly host: Host;
  readonly nonce: Uint8Array = this.random.bytes(32);
  spi = 0n;
  crypto!: IkeCrypto;
  #initRequest: Uint8Array = new Uint8Array(0);
  #nonces!: Nonces;
  #next = 0;
  #sealed = 0;

  readonly initiatorSpi: bigint;

  constructor({ host, initiatorSpi = SPI, ...options }: FakePeerOptions = {}) {
    this.initiatorSpi = initiatorSpi;
    this.host = host ?? new Host('b', { crypto: nodeProvider, random: new Random(5).bytes, ...options });
    if (host === undefined) this.host.endpoint.addConnection(mirrored(connection()));
  }

  #header(exchange: number, response: boolean, messageId: number): IkeHeader {
    return { initiatorSpi: this.initiatorSpi, responderSpi: this.spi, exchange, initiator: true, response, messageId };
  }

  /** Gives bytes to the endpoint and returns all that it sends. */
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
    for (let next = endpoint.pollTransmit(); next !== undefined; next = endpoint.pollTransmit()) out.push(next.data);
    return out;
  }

  /** Lets the endpoint's clock go on. */
  wait(duration: number): Uint8Array[] {
    const out: Uint8Array[] = [];
    const until = this.now + duration;
    for (;;) {
      const next = this.host.endpoint.nextTimeout();
      if (next === undefined || next > until) break;
      this.now = Math.max(this.now, next);
      this.host.endpoint.handleTimeout(this.now);
      out.push(...this.drain());
    }
    this.now = until;
    return out;
  }

  /** IKE_SA_INIT with what it should have, but for `change`. */
  init(change: (payloads: Payload[]) => Payload[] = (payloads) => payloads): Payload[] {
    const group = IKE[0]!.dh[0]!;
    const keyPair = nodeProvider.dhKeyPair(group, this.random.bytes);
    const payloads = change([
      { type: 'sa', proposals: ikeWireProposals(IKE) },
      { type: 'ke', group: group.id, data: keyPair.publicValue },
      { type: 'nonce', data: this.nonce },
    ]);
    this.#initRequest = encodePlain(this.#header(ExchangeType.IKE_SA_INIT, false, 0), payloads);
    const [answer] = this.send(this.#initRequest);
    if (answer === undefined) return [];
    const message = decodeMessage(answer);
    const sa = findPayload(message.payloads, 'sa');
    if (sa === undefined) return [...message.payloads];
    this.spi = message.header.responderSpi;
    const { suite } = acceptIke(sa.proposals, IKE, 'ike-sa-init')!;
    this.#nonces = { initiator: this.nonce, responder: findPayload(message.payloads, 'nonce')!.data };
    const shared = keyPair.derive(findPayload(message.payloads, 'ke')!.data);
    const seed = deriveSkeyseed(nodeProvider, suite.prf, this.#nonces, shared);
    const keys = deriveIkeKeys(nodeProvider, suite, seed, this.#nonces, {
      initiator: this.initiatorSpi,
      responder: this.spi,
    });
    this.crypto = bindKeys(nodeProvider, suite, keys, 'initiator');
    this.#next = 1;
    return [...message.payloads];
  }

  /** What a good IKE_AUTH request holds. */
  authPayloads(secret = 'a secret'): Payload[] {
    const identity = identityFromText('fqdn', 'a');
    const { keys, suite } = this.crypto;
    const parts = { initMessage: this.#initRequest, peerNonce: this.#nonces.responder, skP: keys.pi, identity };
    const data = pskAuth(nodeProvider, suite.prf, utf8(secret), parts);
    return [
      { type: 'idi', identity },
      { type: 'auth', method: AuthMethodId.SHARED_KEY, data },
      ...this.childPayloads(0x1000, false),
    ];
  }

  /** SA, TSi and TSr for a child, with a nonce where there is no IKE_AUTH around it. */
  childPayloads(spi: number, nonce = true): Payload[] {
    return [
      { type: 'sa', proposals: espWireProposals(ESP, nonce ? 'create-child' : 'ike-auth', childSpiBytes(spi)) },
      ...(nonce ? ([{ type: 'nonce', data: this.random.bytes(32) }] as const) : []),
      { type: 'tsi', selectors: [net('10.1.0.0/24')], unknown: 0 },
      { type: 'tsr', selectors: [net('10.2.0.0/24')], unknown: 0 },
    ];
  }

  /** Comes up as a good peer does. */
  establish(): void {
    this.init();
    this.request(ExchangeType.IKE_AUTH, this.authPayloads());
  }

  seal(header: IkeHeader, payloads: readonly Payload[]): Uint8Array {
    return protectMessage(header, payloads, this.crypto.outbound, this.#sealed++);
  }

  open(data: Uint8Array): { readonly header: IkeHeader; readonly payloads: readonly Payload[] } {
    const { header, protectedPart } = decodeMessage(data);
    return { header, payloads: openMessage(data, protectedPart!, this.crypto.inbound)! };
  }

  /** Sends a request and returns the payloads of the answer; `undefined` when there is none. */
  request(exchange: number, payloads: readonly Payload[]): readonly Payload[] | undefined {
    const out = this.send(this.seal(this.#header(exchange, false, this.#next++), payloads));
    const answer = out.map((data) => ({ data, header: decodeHeader(data) })).find(({ header }) => header.response);
    return answer && this.open(answer.data).payloads;
  }

  /** Answers a request of the endpoint's, and returns what it sends then. */
  answer(request: Uint8Array, payloads: readonly Payload[]): Uint8Array[] {
    const { exchange, messageId } = decodeHeader(request);
    return this.send(this.seal(this.#header(exchange, true, messageId), payloads));
  }
}
