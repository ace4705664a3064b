/** Arbitrary messages for property tests, and helpers that both codec tests use. */
import fc from 'fast-check';
import type { IpFamily } from '../../src/base/address.ts';
import { ConfigType, ExchangeType } from '../../src/ike/wire/iana.ts';
import type { IkeHeader } from '../../src/ike/wire/message.ts';
import type { Payload } from '../../src/ike/wire/payload.ts';
import type { WireProposal } from '../../src/ike/wire/payloads/sa.ts';
import type { TrafficSelector } from '../../src/policy/selector.ts';

const bytes = (minLength: number, maxLength: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength, maxLength });
const u8 = fc.nat(0xff);
const u16 = fc.nat(0xffff);

const transform = fc.record({
  type: u8,
  id: u16,
  keyBits: fc.option(u16, { nil: undefined }),
  unknownAttributes: fc.constant(false),
});

const proposal: fc.Arbitrary<WireProposal> = fc.record({
  number: u8,
  protocol: u8,
  spi: bytes(0, 16),
  transforms: fc.array(transform, { maxLength: 12 }),
});

const selector: fc.Arbitrary<TrafficSelector> = fc
  .record({
    family: fc.constantFrom<IpFamily>(4, 6),
    protocol: u8,
    ports: fc.tuple(u16, u16),
    ends: fc.tuple(fc.bigInt(0n, 2n ** 128n - 1n), fc.bigInt(0n, 2n ** 128n - 1n)),
  })
  .map(({ family, protocol, ports, ends }) => {
    const [low, high] = ends.map((end) => (family === 4 ? end & 0xffffffffn : end)).sort((a, b) => (a < b ? -1 : 1));
    const [startPort, endPort] = protocol === 0 ? [0, 0xffff] : ports.sort((a, b) => a - b);
    return {
      protocol,
      startPort: startPort!,
      endPort: endPort!,
      range: { start: { family, value: low! }, end: { family, value: high! } },
    };
  });

const identity = fc.oneof(
  fc.record({ type: fc.constant(1), data: bytes(4, 4) }),
  fc.record({ type: fc.constant(5), data: bytes(16, 16) }),
  fc.record({ type: fc.constantFrom(2, 3, 9, 10, 11, 77), data: bytes(0, 40) }),
);

const spis = (length: number): fc.Arbitrary<Uint8Array[]> => fc.array(bytes(length, length), { maxLength: 8 });

export const payloadArbitrary: fc.Arbitrary<Payload> = fc.oneof(
  fc.record({ type: fc.constant('sa' as const), proposals: fc.array(proposal, { minLength: 1, maxLength: 6 }) }),
  fc.record({ type: fc.constant('ke' as const), group: u16, data: bytes(1, 96) }),
  fc.record({ type: fc.constantFrom('idi' as const, 'idr' as const), identity }),
  fc.record({ type: fc.constant('cert' as const), encoding: u8, data: bytes(0, 64) }),
  fc.record({ type: fc.constant('certreq' as const), encoding: fc.constant(4), authorities: bytes(20, 20) }),
  fc.record({ type: fc.constant('auth' as const), method: u8, data: bytes(0, 64) }),
  fc.record({ type: fc.constant('nonce' as const), data: bytes(16, 256) }),
  fc.record({ type: fc.constant('notify' as const), protocol: u8, spi: bytes(0, 8), notify: u16, data: bytes(0, 32) }),
  fc.record({ type: fc.constant('delete' as const), protocol: fc.constantFrom(2, 3), spis: spis(4) }),
  fc.record({ type: fc.constant('delete' as const), protocol: fc.constant(1), spis: fc.constant([]) }),
  fc.record({ type: fc.constant('vendor' as const), data: bytes(0, 64) }),
  fc.record({
    type: fc.constantFrom('tsi' as const, 'tsr' as const),
    selectors: fc.array(selector, { minLength: 1, maxLength: 6 }),
    unknown: fc.constant(0),
  }),
  fc.record({
    type: fc.constant('cp' as const),
    configType: u8,
    attributes: fc.array(
      fc.oneof(
        fc.record({ type: fc.constantFrom(1, 2, 3, 8, 10, 13, 15), data: fc.constant(new Uint8Array(0)) }),
        fc.record({ type: fc.constantFrom(1, 3, 6), data: bytes(4, 4) }),
        fc.record({ type: fc.constantFrom(8, 15), data: bytes(17, 17) }),
        fc.record({ type: fc.constantFrom(7, 25, 0x7fff), data: bytes(0, 20) }),
      ),
      { maxLength: 5 },
    ),
  }),
  fc.record({ type: fc.constant('eap' as const), code: fc.constantFrom(1, 2), identifier: u8, data: bytes(1, 40) }),
  fc.record({
    type: fc.constant('eap' as const),
    code: fc.constantFrom(3, 4),
    identifier: u8,
    data: fc.constant(new Uint8Array(0)),
  }),
  fc.record({
    type: fc.constant('unknown' as const),
    payloadType: fc.constantFrom(1, 5, 32, 49, 54, 128, 255),
    critical: fc.constant(false),
    data: bytes(0, 40),
  }),
);

export const headerArbitrary: fc.Arbitrary<IkeHeader> = fc.record({
  initiatorSpi: fc.bigInt(1n, 2n ** 64n - 1n),
  responderSpi: fc.bigInt(0n, 2n ** 64n - 1n),
  exchange: u8,
  initiator: fc.boolean(),
  response: fc.boolean(),
  messageId: fc.nat(0xffffffff),
});

export const someHeader: IkeHeader = {
  initiatorSpi: 0x0102030405060708n,
  responderSpi: 0n,
  exchange: ExchangeType.IKE_SA_INIT,
  initiator: true,
  response: false,
  messageId: 0,
};

/** Bytes 1, 2, 3 … */
export function counting(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => index + 1);
}

/** One of every payload. */
export const samplePayloads: readonly Payload[] = [
  {
    type: 'sa',
    proposals: [
      {
        number: 1,
        protocol: 1,
        spi: new Uint8Array(0),
        transforms: [
          { type: 1, id: 20, keyBits: 256, unknownAttributes: false },
          { type: 2, id: 6, keyBits: undefined, unknownAttributes: false },
          { type: 4, id: 31, keyBits: undefined, unknownAttributes: false },
        ],
      },
      {
        number: 2,
        protocol: 3,
        spi: counting(4),
        transforms: [
          { type: 1, id: 12, keyBits: 128, unknownAttributes: false },
          { type: 3, id: 12, keyBits: undefined, unknownAttributes: false },
          { type: 5, id: 0, keyBits: undefined, unknownAttributes: false },
        ],
      },
    ],
  },
  { type: 'ke', group: 31, data: counting(32) },
  { type: 'idi', identity: { type: 2, data: counting(7) } },
  { type: 'idr', identity: { type: 1, data: counting(4) } },
  { type: 'cert', encoding: 4, data: counting(9) },
  { type: 'certreq', encoding: 4, authorities: counting(40) },
  { type: 'auth', method: 2, data: counting(32) },
  { type: 'nonce', data: counting(32) },
  { type: 'notify', protocol: 3, spi: counting(4), notify: 16393, data: counting(3) },
  { type: 'delete', protocol: 3, spis: [counting(4), counting(4)] },
  { type: 'vendor', data: counting(5) },
  {
    type: 'tsi',
    selectors: [
      {
        protocol: 17,
        startPort: 5000,
        endPort: 5000,
        range: { start: { family: 4, value: 0x0a010000n }, end: { family: 4, value: 0x0a0100ffn } },
      },
      {
        protocol: 6,
        startPort: 0xffff,
        endPort: 0,
        range: { start: { family: 4, value: 0n }, end: { family: 4, value: 0xffffffffn } },
      },
    ],
    unknown: 0,
  },
  {
    type: 'tsr',
    selectors: [
      {
        protocol: 0,
        startPort: 0,
        endPort: 0xffff,
        range: { start: { family: 6, value: 1n }, end: { family: 6, value: 2n ** 128n - 1n } },
      },
    ],
    unknown: 0,
  },
  {
    type: 'cp',
    configType: ConfigType.REQUEST,
    attributes: [
      { type: 1, data: new Uint8Array(0) },
      { type: 8, data: counting(17) },
    ],
  },
  { type: 'eap', code: 1, identifier: 7, data: counting(3) },
  { type: 'unknown', payloadType: 200, critical: false, data: counting(6) },
];
