/**
 * An IKE SA whose peer has the keys and sends anything, as initiator and as responder, before and after it authenticated. The first
 * frame says how it begins; each other is a step: what is done, two numbers, and the content.
 */
import { concatBytes } from '../../../src/base/bytes.ts';
import { utf8 } from '../../../src/base/text.ts';
import { childSpiBytes } from '../../../src/ike/session/child.ts';
import { ExchangeType, NotifyType, ProtocolId } from '../../../src/ike/wire/iana.ts';
import type { Payload } from '../../../src/ike/wire/payload.ts';
import { notifyPayload } from '../../../src/ike/wire/payloads/notify.ts';
import { samplePayloads } from '../../ike/arbitraries.ts';
import { readFrames, writeFrames } from '../frames.ts';
import { SessionPeer } from '../session-peer.ts';
import { holds, type Target } from '../target.ts';

const MAX_STEPS = 24;
/** What lingers longest: retransmissions without a response, and what is kept of a closed SA. */
const UNTIL_NOTHING_IS_LEFT = 900_000;

const Step = { request: 0, answer: 1, wait: 2, own: 3, skipped: 4, raw: 5 } as const;
const STEPS = 6;

function run(input: Uint8Array): void {
  const [how = new Uint8Array(1), ...frames] = readFrames(input);
  const peer = begin(how[0] ?? 0);
  for (const frame of frames.slice(0, MAX_STEPS)) {
    step(peer, frame);
    check(peer);
  }
  end(peer);
}

function begin(how: number): SessionPeer {
  const peer = new SessionPeer((how & 1) === 0 ? 'initiator' : 'responder');
  if ((how & 2) === 0) {
    peer.establish();
    holds(peer.host.children.size > 0, 'a good peer gets no CHILD SA');
  } else peer.meet();
  return peer;
}

function step(peer: SessionPeer, [what = 0, one = 0, two = 0, ...rest]: Uint8Array): void {
  const content = { firstPayload: two, content: Uint8Array.from(rest) };
  const fragments = one >>> 6;
  switch (what % STEPS) {
    case Step.request:
      peer.request(34 + (one & 7), content, { fragments });
      break;
    case Step.answer:
      peer.answer(content, { fragments });
      break;
    case Step.wait:
      peer.wait(100 * one + two);
      break;
    case Step.own:
      own(peer, one, two);
      break;
    case Step.skipped:
      peer.request(34 + (one & 7), { ...content, firstPayload: rest[0] ?? 0 }, { skip: two - 128 });
      break;
    default:
      peer.send(content.content);
  }
}

/** What the endpoint's owner does. */
function own(peer: SessionPeer, one: number, two: number): void {
  const { endpoint, children, ikeSas } = peer.host;
  const child = [...children.keys()][two % Math.max(1, children.size)];
  const ikeSa = [...ikeSas][two % Math.max(1, ikeSas.size)];
  const { now } = peer;
  switch (one % 6) {
    case 0:
      endpoint.initiate(now, 'net');
      break;
    case 1:
      if (child !== undefined) endpoint.rekeyChild(now, child);
      break;
    case 2:
      if (ikeSa !== undefined) endpoint.rekeyIkeSa(now, ikeSa);
      break;
    case 3:
      if (child !== undefined) endpoint.closeChild(now, child);
      break;
    case 4:
      endpoint.probe(now);
      break;
    default:
      if (ikeSa !== undefined) endpoint.closeIkeSa(now, ikeSa);
  }
  peer.drain();
}

function check({ host, asked }: SessionPeer): void {
  holds(host.endpoint.counters().bug === 0, 'the endpoint counts a bug of ours');
  const known = new Set(host.endpoint.status().flatMap(({ children }) => children.map(({ id }) => id)));
  for (const id of host.children.keys()) holds(known.has(id), `CHILD SA ${id} is up for its owner and gone`);
  holds(host.ikeSas.size > 0 || host.children.size === 0, 'there are CHILD SAs without an IKE SA');
  holds(
    host.ikeSas.size <= 8 && host.children.size <= 64,
    `${host.ikeSas.size} IKE SAs, ${host.children.size} CHILD SAs`,
  );
  // Retransmissions are among them.
  asked.splice(0, Math.max(0, asked.length - 64));
}

function end(peer: SessionPeer): void {
  const { endpoint } = peer.host;
  endpoint.closeConnection(peer.now, 'net');
  peer.drain();
  peer.wait(UNTIL_NOTHING_IS_LEFT);
  check(peer);
  holds(endpoint.status().length === 0, `${endpoint.status().length} IKE SAs are left`);
  holds(peer.host.children.size === 0 && peer.host.ikeSas.size === 0, 'the owner was not told of the end of an SA');
  holds(endpoint.nextTimeout() === undefined, 'a timer is left');
}

function seeds(): Uint8Array[] {
  const empty = new Uint8Array(0);
  const bytesOf = (
    what: number,
    exchange: number,
    payloads: readonly Payload[],
    role: SessionPeer['role'] = 'initiator',
  ) => {
    const { firstPayload, content } = new SessionPeer(role).encoded(payloads);
    return concatBytes(Uint8Array.of(what, exchange - 34, firstPayload), content);
  };
  const info = (...payloads: readonly Payload[]): Uint8Array =>
    bytesOf(Step.request, ExchangeType.INFORMATIONAL, payloads);
  const create = (...payloads: readonly Payload[]): Uint8Array =>
    bytesOf(Step.request, ExchangeType.CREATE_CHILD_SA, payloads);
  const rekeyed: Payload = {
    ...notifyPayload(NotifyType.REKEY_SA, empty),
    protocol: ProtocolId.ESP,
    spi: childSpiBytes(0x1000),
  };
  const child = new SessionPeer('initiator').childPayloads('create-child');
  const ke = samplePayloads.find(({ type }) => type === 'ke')!;
  const steps = [
    info(),
    info({ type: 'delete', protocol: ProtocolId.ESP, spis: [childSpiBytes(0x1000)] }),
    info({ type: 'delete', protocol: ProtocolId.IKE, spis: [] }),
    info(notifyPayload(NotifyType.UPDATE_SA_ADDRESSES, empty)),
    create(...child),
    create(rekeyed, ...child),
    create(ke, ...child),
    bytesOf(Step.request, ExchangeType.IKE_AUTH, samplePayloads),
    bytesOf(Step.answer, 34, []),
    bytesOf(Step.answer, 34, child),
    bytesOf(Step.answer, 34, [notifyPayload(NotifyType.NO_PROPOSAL_CHOSEN, empty)]),
    Uint8Array.of(Step.wait, 210, 0),
    ...[0, 1, 2, 3, 4, 5].map((one) => Uint8Array.of(Step.own, one, 0)),
    concatBytes(Uint8Array.of(Step.skipped, 3, 127, 0)),
    concatBytes(Uint8Array.of(Step.raw, 0, 0), utf8('not IKE')),
  ];
  const begins = [0, 1, 2, 3].map((how) => Uint8Array.of(how));
  return begins.flatMap((how) => [
    ...steps.map((one) => writeFrames([how, one])),
    writeFrames([how, ...steps]),
    ...[1, 2].map((one) =>
      writeFrames([how, Uint8Array.of(Step.own, one, 0), steps[9]!, Uint8Array.of(Step.wait, 50, 0)]),
    ),
  ]);
}

export const ikeSession: Target = { name: 'ike-session', shape: 'frames', maxLength: 4_096, tokens: [], seeds, run };
