/** Random selectors whose few distinct values lie at the ends and close together, so that they meet at their edges. */
import fc from 'fast-check';
import { type AddressRange, anyRange, type IpAddress } from '../../src/base/address.ts';
import {
  ANY_PORTS,
  makeSelector,
  OPAQUE_PORTS,
  type PortRange,
  type TrafficSelector,
} from '../../src/policy/selector.ts';

const V4_VALUES = [0n, 1n, 2n, 3n, 0x7fffffffn, 0x80000000n, 0x80000001n, 0xfffffffen, 0xffffffffn];
const V6_VALUES = [
  0n,
  1n,
  0xffffffffn,
  1n << 32n,
  (1n << 64n) - 1n,
  1n << 64n,
  1n << 127n,
  (1n << 128n) - 2n,
  (1n << 128n) - 1n,
];

export const smallFamily: fc.Arbitrary<4 | 6> = fc.constantFrom(4, 4, 6);

export function smallAddress(family: 4 | 6): fc.Arbitrary<IpAddress> {
  return fc.constantFrom(...(family === 4 ? V4_VALUES : V6_VALUES)).map((value) => ({ family, value }));
}

export const smallProtocol: fc.Arbitrary<number> = fc.constantFrom(1, 6, 17, 17, 47, 58, 132, 135);
export const smallPort: fc.Arbitrary<number> = fc.constantFrom(0, 1, 80, 0x0800, 0x0801, 0x08ff, 5000, 65534, 65535);

const portRange: fc.Arbitrary<PortRange> = fc.oneof(
  { weight: 3, arbitrary: fc.constant(ANY_PORTS) },
  { weight: 1, arbitrary: fc.constant(OPAQUE_PORTS) },
  {
    weight: 3,
    arbitrary: fc.tuple(smallPort, smallPort).map(([a, b]) => ({ startPort: Math.min(a, b), endPort: Math.max(a, b) })),
  },
);

function addressRange(family: 4 | 6): fc.Arbitrary<AddressRange> {
  return fc.oneof(
    fc.constant(anyRange(family)),
    fc
      .tuple(smallAddress(family), smallAddress(family))
      .map(([a, b]) => (a.value <= b.value ? { start: a, end: b } : { start: b, end: a })),
  );
}

export const smallSelector: fc.Arbitrary<TrafficSelector> = smallFamily.chain((family) =>
  fc
    .tuple(addressRange(family), fc.oneof(fc.constant(0), smallProtocol), portRange)
    .map(([range, protocol, ports]) => makeSelector(range, protocol, ports)),
);
