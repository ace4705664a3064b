/**
 * The payloads of a message: their union, the walk along the chain of generic headers (RFC 7296 §3.2), the rules of the
 * critical bit (§2.5). What a payload looks like inside stands in its own file under `payloads/`.
 */
import { assertNever, invariant } from '../../base/assert.ts';
import { ByteReader, type ByteWriter, DecodeError, type DecodeErrorCode } from '../../base/bytes.ts';
import { NotifyType, PayloadType, payloadName } from './iana.ts';
import { type AuthPayload, decodeAuth, encodeAuth } from './payloads/auth.ts';
import { type CertPayload, decodeCert, encodeCert } from './payloads/cert.ts';
import { type CertReqPayload, decodeCertReq, encodeCertReq } from './payloads/certreq.ts';
import { type ConfigPayload, decodeConfig, encodeConfig } from './payloads/config.ts';
import { type DeletePayload, decodeDelete, encodeDelete } from './payloads/delete.ts';
import { decodeEap, type EapPayload, encodeEap } from './payloads/eap.ts';
import { decodeId, encodeId, type IdPayload } from './payloads/id.ts';
import { decodeKe, encodeKe, type KePayload } from './payloads/ke.ts';
import { decodeNonce, encodeNonce, type NoncePayload } from './payloads/nonce.ts';
import { decodeNotify, encodeNotify, type NotifyPayload } from './payloads/notify.ts';
import { decodeSa, encodeSa, type SaPayload } from './payloads/sa.ts';
import { decodeTs, encodeTs, type TsPayload } from './payloads/ts.ts';
import { decodeVendor, encodeVendor, type VendorPayload } from './payloads/vendor.ts';

/** A payload of a type that we do not know, passed over because its critical bit was clear. */
export interface UnknownPayload {
  readonly type: 'unknown';
  readonly payloadType: number;
  readonly critical: boolean;
  readonly data: Uint8Array;
}

/** Every payload that has a meaning of its own; SK and SKF are containers and stand in `ProtectedPart`. */
export type Payload =
  | SaPayload
  | KePayload
  | IdPayload
  | CertPayload
  | CertReqPayload
  | AuthPayload
  | NoncePayload
  | NotifyPayload
  | DeletePayload
  | VendorPayload
  | TsPayload
  | ConfigPayload
  | EapPayload
  | UnknownPayload;

/** Where the SK or SKF payload (RFC 7296 §3.14, RFC 7383 §2.5) lies in the message. It reaches to the message's end. */
export interface ProtectedPart {
  readonly kind: 'sk' | 'skf';
  /** Type of the first payload inside. */
  readonly firstPayload: number;
  /** Offset of the IV: all before it is associated data. */
  readonly ivAt: number;
  /** End of the ICV. */
  readonly end: number;
  /** SKF only: number from 1 to total. */
  readonly fragment: { readonly number: number; readonly total: number } | undefined;
}

export interface PayloadChain {
  readonly payloads: readonly Payload[];
  readonly protectedPart: ProtectedPart | undefined;
}

/** A decoding error that RFC 7296 has an error notify of its own for. */
export class RefusedMessageError extends DecodeError {
  /** INVALID_MAJOR_VERSION or UNSUPPORTED_CRITICAL_PAYLOAD. */
  readonly notify: number;
  readonly notifyData: Uint8Array;

  constructor(code: DecodeErrorCode, offset: number, detail: string, notify: number, notifyData: Uint8Array) {
    super(code, offset, detail);
    this.notify = notify;
    this.notifyData = notifyData;
  }
}

const GENERIC_HEADER = 4;
const CRITICAL = 0x80;
/** More than any exchange has a use for; stops chains of empty payloads. */
export const MAX_PAYLOADS = 128;

/**
 * How many parts the payloads of a kind may have in one message, all together: what one payload can have of them, or for
 * selectors what TSi and TSr can. Others have none, or are bounded by themselves.
 */
const MAX_PARTS: Readonly<Partial<Record<Payload['type'], number>>> = {
  sa: 8_192,
  delete: 16_384,
  tsi: 512,
  tsr: 512,
};

/** Transforms and proposals, SPIs, selectors. */
function partsOf(payload: Payload): number {
  switch (payload.type) {
    case 'sa':
      return payload.proposals.reduce((sum, { transforms }) => sum + 1 + transforms.length, 0);
    case 'delete':
      return payload.spis.length;
    case 'tsi':
    case 'tsr':
      return payload.selectors.length + payload.unknown;
    default:
      return 0;
  }
}

/** Counts the parts of the payloads of one message. */
class PartCounts {
  readonly #counts = new Map<Payload['type'], number>();

  add(reader: ByteReader, payload: Payload): void {
    const most = MAX_PARTS[payload.type];
    if (most === undefined) return;
    const count = (this.#counts.get(payload.type) ?? 0) + partsOf(payload);
    if (count > most) reader.fail('too-many', `more than ${most} parts in payloads of type ${payload.type}`);
    this.#counts.set(payload.type, count);
  }
}

/**
 * Walks a chain that must fill `buffer` from `start` to `end`.
 * @param mayProtect an SK or SKF payload may stand last: in a message, not in an SK payload
 * @throws DecodeError for malformed bytes, RefusedMessageError for an unknown payload with the critical bit.
 */
export function decodePayloads(
  buffer: Uint8Array,
  start: number,
  end: number,
  firstPayload: number,
  { mayProtect = false }: { readonly mayProtect?: boolean } = {},
): PayloadChain {
  const reader = new ByteReader(buffer, start, end);
  const payloads: Payload[] = [];
  const parts = new PartCounts();
  let type = firstPayload;
  while (type !== PayloadType.NONE) {
    if (payloads.length === MAX_PAYLOADS) reader.fail('too-many', `more than ${MAX_PAYLOADS} payloads`);
    const next = reader.u8();
    const critical = (reader.u8() & CRITICAL) !== 0;
    const length = reader.u16();
    if (length < GENERIC_HEADER) reader.fail('bad-length', `length ${length} of payload ${payloadName(type)}`);
    const body = reader.sub(length - GENERIC_HEADER);
    if (type === PayloadType.SK || type === PayloadType.SKF) {
      if (!mayProtect) reader.fail('bad-order', `${payloadName(type)} payload inside SK`);
      reader.expectEnd(`message behind its ${payloadName(type)} payload`);
      return { payloads, protectedPart: decodeProtected(body, type, next, end) };
    }
    const payload = decodePayload(body, type, critical);
    parts.add(reader, payload);
    payloads.push(payload);
    type = next;
  }
  reader.expectEnd('message behind its last payload');
  return { payloads, protectedPart: undefined };
}

function decodeProtected(reader: ByteReader, type: number, firstPayload: number, end: number): ProtectedPart {
  if (type === PayloadType.SK) return { kind: 'sk', firstPayload, ivAt: reader.position, end, fragment: undefined };
  const number = reader.u16();
  const total = reader.u16();
  if (number === 0 || number > total) reader.fail('bad-value', `fragment ${number} of ${total}`);
  return { kind: 'skf', firstPayload, ivAt: reader.position, end, fragment: { number, total } };
}

/** RFC 7296 §2.5: the critical bit matters only where the type is unknown. */
function decodePayload(reader: ByteReader, type: number, critical: boolean): Payload {
  switch (type) {
    case PayloadType.SA:
      return decodeSa(reader);
    case PayloadType.KE:
      return decodeKe(reader);
    case PayloadType.IDi:
      return decodeId(reader, 'idi');
    case PayloadType.IDr:
      return decodeId(reader, 'idr');
    case PayloadType.CERT:
      return decodeCert(reader);
    case PayloadType.CERTREQ:
      return decodeCertReq(reader);
    case PayloadType.AUTH:
      return decodeAuth(reader);
    case PayloadType.NONCE:
      return decodeNonce(reader);
    case PayloadType.NOTIFY:
      return decodeNotify(reader);
    case PayloadType.DELETE:
      return decodeDelete(reader);
    case PayloadType.VENDOR:
      return decodeVendor(reader);
    case PayloadType.TSi:
      return decodeTs(reader, 'tsi');
    case PayloadType.TSr:
      return decodeTs(reader, 'tsr');
    case PayloadType.CP:
      return decodeConfig(reader);
    case PayloadType.EAP:
      return decodeEap(reader);
    default:
      if (critical) {
        throw new RefusedMessageError(
          'bad-value',
          reader.position - GENERIC_HEADER,
          `critical payload of unknown type ${type}`,
          NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD,
          Uint8Array.of(type),
        );
      }
      return { type: 'unknown', payloadType: type, critical, data: reader.rest() };
  }
}

/** Writes the chain; returns the type of its first payload, for the header that stands before it. */
export function encodePayloads(writer: ByteWriter, payloads: readonly Payload[]): number {
  for (const [index, payload] of payloads.entries()) {
    const start = writer.length;
    const next = payloads[index + 1];
    writer.u8(next === undefined ? PayloadType.NONE : payloadTypeOf(next));
    writer.u8(payload.type === 'unknown' && payload.critical ? CRITICAL : 0);
    writer.u16(0);
    encodePayload(writer, payload);
    const length = writer.length - start;
    invariant(length <= 0xffff, `payload ${payload.type} of ${length} bytes does not fit its length field`);
    writer.patchU16(start + 2, length);
  }
  return payloads[0] === undefined ? PayloadType.NONE : payloadTypeOf(payloads[0]);
}

function encodePayload(writer: ByteWriter, payload: Payload): void {
  switch (payload.type) {
    case 'sa':
      encodeSa(writer, payload);
      break;
    case 'ke':
      encodeKe(writer, payload);
      break;
    case 'idi':
    case 'idr':
      encodeId(writer, payload);
      break;
    case 'cert':
      encodeCert(writer, payload);
      break;
    case 'certreq':
      encodeCertReq(writer, payload);
      break;
    case 'auth':
      encodeAuth(writer, payload);
      break;
    case 'nonce':
      encodeNonce(writer, payload);
      break;
    case 'notify':
      encodeNotify(writer, payload);
      break;
    case 'delete':
      encodeDelete(writer, payload);
      break;
    case 'vendor':
      encodeVendor(writer, payload);
      break;
    case 'tsi':
    case 'tsr':
      encodeTs(writer, payload);
      break;
    case 'cp':
      encodeConfig(writer, payload);
      break;
    case 'eap':
      encodeEap(writer, payload);
      break;
    case 'unknown':
      writer.bytes(payload.data);
      break;
    default:
      assertNever(payload, 'encodePayload');
  }
}

const TYPE_NUMBERS: Readonly<Record<Exclude<Payload['type'], 'unknown'>, number>> = {
  sa: PayloadType.SA,
  ke: PayloadType.KE,
  idi: PayloadType.IDi,
  idr: PayloadType.IDr,
  cert: PayloadType.CERT,
  certreq: PayloadType.CERTREQ,
  auth: PayloadType.AUTH,
  nonce: PayloadType.NONCE,
  notify: PayloadType.NOTIFY,
  delete: PayloadType.DELETE,
  vendor: PayloadType.VENDOR,
  tsi: PayloadType.TSi,
  tsr: PayloadType.TSr,
  cp: PayloadType.CP,
  eap: PayloadType.EAP,
};

function payloadTypeOf(payload: Payload): number {
  return payload.type === 'unknown' ? payload.payloadType : TYPE_NUMBERS[payload.type];
}

type Typed<P, T> = P extends { readonly type: infer Types } ? (T extends Types ? P : never) : never;

/** The members of the union whose `type` can be `T`; some have two. */
type PayloadOf<T extends Payload['type']> = Typed<Payload, T>;

/** The first payload of a kind. */
export function findPayload<T extends Payload['type']>(
  payloads: readonly Payload[],
  type: T,
): PayloadOf<T> | undefined {
  return payloads.find((payload): payload is PayloadOf<T> => payload.type === type);
}

/** The first notify of a type. */
export function findNotify(payloads: readonly Payload[], notify: number): NotifyPayload | undefined {
  return payloads.find((payload): payload is NotifyPayload => payload.type === 'notify' && payload.notify === notify);
}

/** All notifies of a type. */
export function findNotifies(payloads: readonly Payload[], notify: number): NotifyPayload[] {
  return payloads.filter((payload): payload is NotifyPayload => payload.type === 'notify' && payload.notify === notify);
}
