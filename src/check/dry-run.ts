/**
 * A negotiation without a network: two real IKE endpoints, one for each document, that talk in memory by a virtual
 * clock. Secrets are made up, and signatures are empty and accepted, so that the result shows whether the
 * documents fit each other.
 */
import { formatSocketAddress, type IpAddress } from '../base/address.ts';
import { fromHex } from '../base/bytes.ts';
import { utf8 } from '../base/text.ts';
import { formatSuite } from '../crypto/proposal-text.ts';
import type { CryptoProvider, RandomSource } from '../crypto/types.ts';
import type { ConnectionConfig } from '../ike/config.ts';
import { IkeEndpoint } from '../ike/endpoint.ts';
import type { ChildSa, IkeEvent, Path, SignatureAnswer, SignatureMethods } from '../ike/events.ts';
import { AuthMethodId } from '../ike/wire/iana.ts';
import { formatSelectorPair } from '../policy/selector.ts';
import type { Side } from './report.ts';

/** One end of a dry run. */
export interface DrySide {
  readonly connection: ConnectionConfig;
  /** Where it is, whatever the other calls. */
  readonly address: IpAddress;
}

export interface DryChild {
  /** The rule of each side. */
  readonly a: string;
  readonly b: string;
  readonly mode: 'tunnel' | 'transport';
  /** `aes256gcm16`, with `, ESN`. Of the first CHILD SA no group is negotiated; with others it is. */
  readonly suite: string;
  /** As A sees them. */
  readonly selectors: string;
}

export interface DryFailure {
  readonly side: Side;
  readonly reason: string;
  readonly detail: string;
}

export interface DryRun {
  readonly initiator: Side;
  /** The IKE SA and every child of the initiator came up. */
  readonly ok: boolean;
  readonly ikeSuite: string | undefined;
  readonly encapsulated: boolean;
  readonly children: readonly DryChild[];
  readonly failures: readonly DryFailure[];
}

/** Virtual milliseconds after which nothing more is waited for: longer than IKE retransmits. */
const PATIENCE = 120_000;
const DELAY = 10;
/** BOUNDED: a negotiation has a few messages for each CHILD SA. */
const MAX_STEPS = 20_000;

const SECRET = 'made up';
/** An AlgorithmIdentifier (RFC 8410): one has to be named. */
const ED25519 = fromHex('300506032b6570');

interface Host {
  readonly side: Side;
  readonly endpoint: IkeEndpoint;
  readonly config: ConnectionConfig;
  readonly address: IpAddress;
  readonly children: ChildSa[];
  readonly failures: DryFailure[];
  ikeSuite: string | undefined;
}

interface Flying {
  readonly at: number;
  readonly to: Host;
  readonly path: Path;
  readonly data: Uint8Array;
}

/** @throws RangeError when an endpoint cannot work with a connection */
export function dryRun(initiator: Side, a: DrySide, b: DrySide, crypto: CryptoProvider, random: RandomSource): DryRun {
  const [hostA, hostB] = [hostOf('a', a, crypto, random), hostOf('b', b, crypto, random)];
  const [first, second] = initiator === 'a' ? [hostA, hostB] : [hostB, hostA];
  const { name, local } = first.config;
  first.endpoint.initiate(0, name, { local: { address: first.address, port: local.port } });
  run(first, second);
  const children = paired(hostA, hostB);
  return {
    initiator,
    ok: first.ikeSuite !== undefined && children.length === first.config.children.length,
    ikeSuite: first.ikeSuite,
    encapsulated: first.children[0]?.encapsulated ?? false,
    children,
    failures: [...first.failures, ...second.failures],
  };
}

function hostOf(side: Side, { connection, address }: DrySide, crypto: CryptoProvider, random: RandomSource): Host {
  const endpoint = new IkeEndpoint({ crypto, random, rawEsp: true });
  endpoint.addConnection(connection);
  return { side, endpoint, config: connection, address, children: [], failures: [], ikeSuite: undefined };
}

/** Lets the two talk until nothing is under way any more. */
function run(first: Host, second: Host): void {
  const flying: Flying[] = [];
  let now = 0;
  const drain = (host: Host, peer: Host): void => {
    for (let event = host.endpoint.pollEvent(); event !== undefined; event = host.endpoint.pollEvent()) {
      note(host, now, event);
    }
    for (let out = host.endpoint.pollTransmit(); out !== undefined; out = host.endpoint.pollTransmit()) {
      if (!out.keepalive && listens(peer, out.path.remote.port)) {
        flying.push({ at: now + DELAY, to: peer, path: arriving(out.path, host, peer), data: out.data.slice() });
      }
    }
  };
  drain(first, second);
  for (let step = 0; step < MAX_STEPS && !finished(first); step++) {
    const due = [flying[0]?.at, first.endpoint.nextTimeout(), second.endpoint.nextTimeout()];
    const next = Math.min(...due.map((at) => at ?? Number.POSITIVE_INFINITY));
    if (next > PATIENCE) return;
    now = Math.max(now, next);
    const arrived = flying[0] !== undefined && flying[0].at <= now ? flying.shift() : undefined;
    arrived?.to.endpoint.handleDatagram(now, arrived.path, arrived.data);
    for (const host of [first, second]) {
      if ((host.endpoint.nextTimeout() ?? Number.POSITIVE_INFINITY) <= now) host.endpoint.handleTimeout(now);
    }
    drain(first, second);
    drain(second, first);
  }
}

/** Everything that was wanted is up, or was refused: the IKE SA, or child by child. */
function finished({ config, children, failures, ikeSuite }: Host): boolean {
  return ikeSuite === undefined ? failures.length > 0 : children.length + failures.length >= config.children.length;
}

function listens({ config: { local } }: Host, port: number): boolean {
  return port === local.port || port === local.natPort;
}

/** As the receiver sees it: the sender is where the receiver believes it is, as if a NAT saw to it. */
function arriving({ local, remote }: Path, sender: Host, receiver: Host): Path {
  const from = receiver.config.remote.address ?? sender.address;
  return { local: { address: receiver.address, port: remote.port }, remote: { address: from, port: local.port } };
}

function note(host: Host, now: number, event: IkeEvent): void {
  const { endpoint, side } = host;
  switch (event.type) {
    case 'ike-up':
      host.ikeSuite = event.ikeSa.suite;
      return;
    case 'child-up':
      host.children.push(event.child);
      return;
    case 'failed': {
      const where = event.reason === 'timeout' ? ` (${formatSocketAddress(event.remote)})` : '';
      host.failures.push({ side, reason: event.reason, detail: `${event.detail}${where}` });
      return;
    }
    case 'need-secret':
      endpoint.answerSecret(now, event.requestId, utf8(SECRET));
      return;
    case 'need-signature':
      endpoint.answerSignature(now, event.requestId, unsigned(event.accepted));
      return;
    case 'need-verification':
      endpoint.answerVerification(now, event.requestId, { ok: true });
      return;
    default:
      return;
  }
}

function unsigned({ authMethods: [authMethod = AuthMethodId.DIGITAL_SIGNATURE] }: SignatureMethods): SignatureAnswer {
  const algorithm = authMethod === AuthMethodId.DIGITAL_SIGNATURE ? ED25519 : undefined;
  return { ok: true, authMethod, algorithm, signature: new Uint8Array(64), certificates: [] };
}

/** The CHILD SAs that both sides have. */
function paired(a: Host, b: Host): DryChild[] {
  return a.children.flatMap((ours) => {
    const theirs = b.children.find(({ spiIn }) => spiIn === ours.spiOut);
    if (theirs === undefined) return [];
    const suite = formatSuite(ours.suite);
    const grouped = ours.dhGroup === undefined ? suite : `${suite}-${ours.dhGroup}`;
    return {
      a: ours.config.name,
      b: theirs.config.name,
      mode: ours.mode,
      suite: ours.esn ? `${grouped}, ESN` : grouped,
      selectors: formatSelectorPair(ours.selectors),
    };
  });
}
