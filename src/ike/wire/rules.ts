/**
 * Which payloads may and must stand in which message: one table (RFC 7296 §1.2–1.4, §2.6, appendix C; RFC 6023).
 * The order of payloads is free (§2.5). What a payload says is not judged here.
 */
import { ExchangeType, exchangeName, isErrorNotify, NotifyType, notifyName, ProtocolId } from './iana.ts';
import { findPayload, type Payload } from './payload.ts';
import type { NotifyPayload } from './payloads/notify.ts';

/** Why a message cannot be processed. */
export interface RuleViolation {
  /** What a request is answered with; `undefined` where the message is dropped without an answer. */
  readonly notify: number | undefined;
  readonly detail: string;
}

type Kind = Exclude<Payload['type'], 'unknown'>;

/** How often a payload may stand in a message. */
interface Count {
  readonly min: number;
  readonly max: number;
  /** Answer when it is missing, if not INVALID_SYNTAX. */
  readonly missing?: number;
}

interface Shape {
  readonly name: string;
  /** Tells whether a message is meant to be of this shape; the first that says so is taken. */
  readonly when: (payloads: readonly Payload[]) => boolean;
  readonly counts: Readonly<Partial<Record<Kind, Count>>>;
  /** All of these or none. */
  readonly together?: readonly Kind[];
}

interface Row {
  readonly exchange: number;
  readonly response: boolean;
  readonly encrypted: boolean;
  readonly shapes: readonly Shape[];
}

const ONE: Count = { min: 1, max: 1 };
const OPTIONAL: Count = { min: 0, max: 1 };
const ANY: Count = { min: 0, max: Number.POSITIVE_INFINITY };
const SOME: Count = { min: 1, max: Number.POSITIVE_INFINITY };

const always = (): boolean => true;
/** Leaving AUTH out asks for EAP (RFC 7296 §2.16), which this implementation never offers: never a way around authentication. */
const AUTH_NEEDED: Count = { ...ONE, missing: NotifyType.AUTHENTICATION_FAILED };

const NEGOTIATION = { sa: ONE, ke: ONE, nonce: ONE, notify: ANY, vendor: ANY } as const;
const REFUSAL = { notify: SOME, vendor: ANY } as const;
const CHILD = {
  sa: ONE,
  nonce: ONE,
  ke: OPTIONAL,
  tsi: ONE,
  tsr: ONE,
  cp: OPTIONAL,
  notify: ANY,
  vendor: ANY,
} as const;
const CONTROL = { notify: ANY, delete: ANY, cp: OPTIONAL, vendor: ANY } as const;
const AUTHENTICATION = {
  cert: ANY,
  auth: AUTH_NEEDED,
  cp: OPTIONAL,
  sa: OPTIONAL,
  tsi: OPTIONAL,
  tsr: OPTIONAL,
  notify: ANY,
  vendor: ANY,
} as const;
/** IKE_AUTH without a child has none of them (RFC 6023; in a response also when the child failed, RFC 7296 §1.2). */
const CHILD_PARTS: readonly Kind[] = ['sa', 'tsi', 'tsr'];

const forIkeSa = (payloads: readonly Payload[]): boolean =>
  findPayload(payloads, 'sa')?.proposals.some((proposal) => proposal.protocol === ProtocolId.IKE) ?? false;
const refuses = (payloads: readonly Payload[]): boolean =>
  findPayload(payloads, 'sa') === undefined &&
  payloads.some((entry) => entry.type === 'notify' && isErrorNotify(entry.notify));
const asksForCookie = (payloads: readonly Payload[]): boolean =>
  findPayload(payloads, 'sa') === undefined &&
  payloads.some((entry) => entry.type === 'notify' && entry.notify === NotifyType.COOKIE);
const refusesAuth = (payloads: readonly Payload[]): boolean =>
  findPayload(payloads, 'auth') === undefined && refuses(payloads);

const { IKE_SA_INIT, IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL } = ExchangeType;

const TABLE: readonly Row[] = [
  {
    exchange: IKE_SA_INIT,
    response: false,
    encrypted: false,
    shapes: [{ name: 'request', when: always, counts: NEGOTIATION }],
  },
  {
    exchange: IKE_SA_INIT,
    response: true,
    encrypted: false,
    shapes: [
      { name: 'refusal', when: refuses, counts: REFUSAL },
      { name: 'demand for a cookie', when: asksForCookie, counts: REFUSAL },
      { name: 'response', when: always, counts: { ...NEGOTIATION, certreq: ANY } },
    ],
  },
  {
    exchange: IKE_AUTH,
    response: false,
    encrypted: true,
    shapes: [
      {
        name: 'request',
        when: always,
        counts: { ...AUTHENTICATION, idi: ONE, idr: OPTIONAL, certreq: ANY },
        together: CHILD_PARTS,
      },
    ],
  },
  {
    exchange: IKE_AUTH,
    response: true,
    encrypted: true,
    shapes: [
      { name: 'refusal', when: refusesAuth, counts: { ...REFUSAL, idr: OPTIONAL, cert: ANY } },
      { name: 'response', when: always, counts: { ...AUTHENTICATION, idr: ONE }, together: CHILD_PARTS },
    ],
  },
  {
    exchange: CREATE_CHILD_SA,
    response: false,
    encrypted: true,
    shapes: [
      { name: 'request to replace the IKE SA', when: forIkeSa, counts: NEGOTIATION },
      { name: 'request for a CHILD SA', when: always, counts: CHILD },
    ],
  },
  {
    exchange: CREATE_CHILD_SA,
    response: true,
    encrypted: true,
    shapes: [
      { name: 'refusal', when: refuses, counts: REFUSAL },
      { name: 'response about the IKE SA', when: forIkeSa, counts: NEGOTIATION },
      { name: 'response about a CHILD SA', when: always, counts: CHILD },
    ],
  },
  {
    exchange: INFORMATIONAL,
    response: false,
    encrypted: true,
    shapes: [{ name: 'request', when: always, counts: CONTROL }],
  },
  {
    exchange: INFORMATIONAL,
    response: true,
    encrypted: true,
    shapes: [{ name: 'response', when: always, counts: CONTROL }],
  },
];

/** What a notify must look like where its meaning rests on it. */
interface NotifyRule {
  readonly max: number;
  /** Bytes of notification data. */
  readonly data: readonly [min: number, max: number];
  /** Speaks of a CHILD SA: an ESP or AH SPI of four bytes. */
  readonly childSpi: boolean;
}

const NOTIFY_RULES: ReadonlyMap<number, NotifyRule> = new Map([
  [NotifyType.REKEY_SA, { max: 1, data: [0, 0xffff], childSpi: true }],
  [NotifyType.COOKIE, { max: 1, data: [1, 64], childSpi: false }], // RFC 7296 §2.6
  [NotifyType.INVALID_KE_PAYLOAD, { max: 1, data: [2, 2], childSpi: false }], // §1.3
  [NotifyType.SET_WINDOW_SIZE, { max: 1, data: [4, 4], childSpi: false }], // §2.3
  [NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD, { max: 1, data: [1, 1], childSpi: false }], // §3.10.1
]);

/** Error notifies that may come outside of SK (RFC 7296 §1.5, §2.21): hints, which by themselves end nothing. */
const UNPROTECTED_HINTS: readonly number[] = [
  NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD,
  NotifyType.INVALID_IKE_SPI,
  NotifyType.INVALID_MAJOR_VERSION,
  NotifyType.INVALID_SYNTAX,
  NotifyType.INVALID_SPI,
];

/** What decides which payloads a message may have. */
export interface MessageKind {
  readonly exchange: number;
  readonly response: boolean;
  readonly encrypted: boolean;
}

/**
 * Checks all payloads of a message against the table: those inside SK when `encrypted`, else those that stand openly.
 * `undefined` when they fit. A known payload where it has no place is refused, an unknown one passed over (§2.5).
 */
export function checkRules(
  { exchange, response, encrypted }: MessageKind,
  payloads: readonly Payload[],
): RuleViolation | undefined {
  const where = `${exchangeName(exchange)} ${response ? 'response' : 'request'}`;
  const row = TABLE.find((entry) => entry.exchange === exchange && entry.response === response);
  if (row === undefined) return { notify: NotifyType.INVALID_SYNTAX, detail: `${where} is not supported` };
  if (row.encrypted !== encrypted) {
    return { notify: undefined, detail: `${where} ${encrypted ? 'in' : 'outside of'} an SK payload` };
  }
  const shape = row.shapes.find((entry) => entry.when(payloads))!;
  const violation = checkCounts(shape, payloads) ?? checkTogether(shape, payloads) ?? checkNotifies(payloads);
  return violation && { notify: violation.notify, detail: `${violation.detail} in ${where} (${shape.name})` };
}

function syntax(detail: string): RuleViolation {
  return { notify: NotifyType.INVALID_SYNTAX, detail };
}

/** Whether an unprotected message outside of IKE_SA_INIT is a mere error report, to be taken as a hint (RFC 7296 §1.5). */
export function isUnprotectedHint(payloads: readonly Payload[]): boolean {
  const notifies = payloads.filter((entry): entry is NotifyPayload => entry.type === 'notify');
  const others = payloads.some(
    (entry) => entry.type !== 'notify' && entry.type !== 'vendor' && entry.type !== 'unknown',
  );
  return !others && notifies.length > 0 && notifies.every((entry) => UNPROTECTED_HINTS.includes(entry.notify));
}

function checkCounts(shape: Shape, payloads: readonly Payload[]): RuleViolation | undefined {
  const found = countKinds(payloads);
  for (const [kind, count] of found) {
    const max = shape.counts[kind]?.max ?? 0;
    if (count > max) return syntax(max === 0 ? `${kind} payload out of place` : `${count} ${kind} payloads`);
  }
  for (const [kind, { min, missing }] of Object.entries(shape.counts)) {
    if ((found.get(kind as Kind) ?? 0) >= min) continue;
    return { notify: missing ?? NotifyType.INVALID_SYNTAX, detail: `no ${kind} payload` };
  }
  return undefined;
}

function checkTogether(shape: Shape, payloads: readonly Payload[]): RuleViolation | undefined {
  const together = shape.together ?? [];
  const absent = together.filter((kind) => findPayload(payloads, kind) === undefined);
  if (absent.length === 0 || absent.length === together.length) return undefined;
  return syntax(`no ${absent.join(' and ')} payload beside those that belong to it`);
}

function countKinds(payloads: readonly Payload[]): Map<Kind, number> {
  const found = new Map<Kind, number>();
  for (const { type } of payloads) {
    if (type !== 'unknown') found.set(type, (found.get(type) ?? 0) + 1);
  }
  return found;
}

function checkNotifies(payloads: readonly Payload[]): RuleViolation | undefined {
  const seen = new Map<number, number>();
  for (const payload of payloads) {
    if (payload.type !== 'notify') continue;
    const rule = NOTIFY_RULES.get(payload.notify);
    if (rule === undefined) continue;
    const name = notifyName(payload.notify);
    const count = (seen.get(payload.notify) ?? 0) + 1;
    seen.set(payload.notify, count);
    if (count > rule.max) return syntax(`${count} ${name} notifies`);
    const [min, max] = rule.data;
    if (payload.data.length < min || payload.data.length > max)
      return syntax(`${name} with ${payload.data.length} bytes of data`);
    if (rule.childSpi && !isChildSpi(payload)) return syntax(`${name} without the SPI of a CHILD SA`);
  }
  return undefined;
}

function isChildSpi({ protocol, spi }: NotifyPayload): boolean {
  return (protocol === ProtocolId.ESP || protocol === ProtocolId.AH) && spi.length === 4;
}
