/**
 * Opens protected messages of a known IKE SA (RFC 7296 §3.14, RFC 7383 §2.6): gathers fragments, verifies, decrypts,
 * decodes, checks the rules.
 */
import { DecodeError } from '../../base/bytes.ts';
import type { IkeCrypto } from '../keys/ike-crypto.ts';
import type { IkeSession } from '../session/session.ts';
import { NotifyType } from '../wire/iana.ts';
import { decodeMessage, type IkeHeader } from '../wire/message.ts';
import { decodePayloads, findNotify, type Payload, type ProtectedPart, RefusedMessageError } from '../wire/payload.ts';
import { checkRules, isUnprotectedHint } from '../wire/rules.ts';
import { openPart } from './protect.ts';
import { FRAGMENTS_TIMEOUT } from './reassembly.ts';

export type Opened = {
  /** The datagram by which a retransmission is known: the message itself, or its first fragment. */
  readonly first: Uint8Array;
} & (
  | { readonly kind: 'payloads'; readonly payloads: readonly Payload[] }
  /** Authentic, and wrong: the peer itself sent it. */
  | { readonly kind: 'malformed'; readonly notify: number; readonly data: Uint8Array; readonly detail: string }
);

/** What SK held, or the fragments together. */
interface Content {
  readonly bytes: Uint8Array;
  readonly start: number;
  readonly end: number;
  readonly firstPayload: number;
  readonly first: Uint8Array;
}

/**
 * `undefined` when the message is not the peer's, which was counted, or not complete yet.
 * @throws DecodeError for a malformed message that is not authentic
 */
export function open(
  session: IkeSession,
  now: number,
  crypto: IkeCrypto,
  header: IkeHeader,
  datagram: Uint8Array,
): Opened | undefined {
  const { env } = session;
  const { payloads, protectedPart } = decodeMessage(datagram, header);
  if (protectedPart === undefined) {
    // RFC 7296 §2.21.4: a hint without proof. Alone it ends nothing; a peer that answers nothing else is given up sooner.
    const hint = isUnprotectedHint(payloads);
    env.count(hint ? 'unauthenticated-notify' : 'rule-violation');
    const answersUs = header.response && session.window.expectsResponse(header.messageId);
    if (hint && answersUs && findNotify(payloads, NotifyType.INVALID_IKE_SPI)) session.window.doubt();
    return undefined;
  }
  let first = datagram;
  try {
    const content =
      protectedPart.fragment === undefined
        ? openWhole(session, crypto, protectedPart, datagram)
        : gather(session, now, crypto, { header, part: protectedPart, datagram });
    if (content === undefined) return undefined;
    first = content.first;
    return judge(session, header, content);
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error;
    env.count(`malformed-${error.code}`);
    return error instanceof RefusedMessageError
      ? { kind: 'malformed', notify: error.notify, data: error.notifyData, detail: error.message, first }
      : malformed(NotifyType.INVALID_SYNTAX, error.message, first);
  }
}

function openWhole(
  session: IkeSession,
  crypto: IkeCrypto,
  part: ProtectedPart,
  datagram: Uint8Array,
): Content | undefined {
  const opened = openPart(datagram, part, crypto.inbound);
  if (opened === undefined) {
    session.env.count('bad-sk');
    return undefined;
  }
  const { message, start, end } = opened;
  return { bytes: message, start, end, firstPayload: part.firstPayload, first: datagram };
}

interface Fragment {
  readonly header: IkeHeader;
  readonly part: ProtectedPart;
  readonly datagram: Uint8Array;
}

/** Keeps a fragment; returns the content of all when it was the last that was missing. */
function gather(
  session: IkeSession,
  now: number,
  crypto: IkeCrypto,
  { header, part, datagram }: Fragment,
): Content | undefined {
  const { env, fragments } = session;
  const place = part.fragment!;
  if (!fragments.supported) {
    env.count('fragment-refused');
    return undefined;
  }
  const kind = header.response ? 'response' : 'request';
  const reassembly = fragments.of(kind);
  const verdict = reassembly.judge(header, place);
  if (verdict !== 'new') {
    env.count(verdict === 'known' ? 'fragment-ignored' : 'fragment-refused');
    return undefined;
  }
  const opened = openPart(datagram, part, crypto.inbound);
  if (opened === undefined) {
    env.count('bad-sk');
    return undefined;
  }
  // The others may take their time, but not for ever.
  session.timers.set('fragments', now + FRAGMENTS_TIMEOUT);
  const piece = opened.message.subarray(opened.start, opened.end);
  const whole = reassembly.add(header, place, part.firstPayload, piece, datagram);
  if (whole === 'full') {
    env.count('fragment-refused');
    session.dropFragments(kind);
    return undefined;
  }
  if (whole === undefined) return undefined;
  const { content, firstPayload, first } = whole;
  fragments.learn(first);
  return { bytes: content, start: 0, end: content.length, firstPayload, first };
}

function judge(session: IkeSession, header: IkeHeader, content: Content): Opened {
  const { bytes, start, end, firstPayload, first } = content;
  const { payloads } = decodePayloads(bytes, start, end, firstPayload);
  const violation = checkRules({ ...header, encrypted: true }, payloads);
  if (violation === undefined) return { kind: 'payloads', payloads, first };
  session.env.count('rule-violation');
  return malformed(violation.notify ?? NotifyType.INVALID_SYNTAX, violation.detail, first);
}

function malformed(notify: number, detail: string, first: Uint8Array): Opened {
  return { kind: 'malformed', notify, data: new Uint8Array(0), detail, first };
}

/** Whether a datagram is the first fragment of a message that the peer sent, and not a forged one. @throws DecodeError */
export function isFirstFragment(
  session: IkeSession,
  crypto: IkeCrypto,
  header: IkeHeader,
  datagram: Uint8Array,
): boolean {
  const { protectedPart } = decodeMessage(datagram, header);
  if (!session.fragments.supported || protectedPart?.fragment?.number !== 1) return false;
  return openPart(datagram, protectedPart, crypto.inbound) !== undefined;
}
