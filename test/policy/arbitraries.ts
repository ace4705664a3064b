/** Random selectors whose few distinct values lie at the ends and close together, so that they meet at their edges. */
import fc from 'fast-check';
import { type AddressRange, anyRange, type IpAddress } from '../../src/base/address.ts';
import type { PolicyEntry } from '../../src/policy/database.ts';
import {
  ANY_PORTS,
  makeSelector,
  OPAQUE_PORTS,
  type PortRange,
  type TrafficSelector,
} from '../../src/policy/selector.ts';
import type { Packet } from './reference.ts';

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

const PROTOCOLS = [1, 6, 17, 17, 47, 58, 132, 135];
const PORTS = [0, 1, 80, 0x0800, 0x0801, 0x08ff, 5000, 65534, 65535];
/** Those whose packets show ports, or a type and code. */
const WITH_PORTS = [1, 6, 17, 58, 132, 135];

export const smallProtocol: fc.Arbitrary<number> = fc.constantFrom(...PROTOCOLS);
export const smallPort: fc.Arbitrary<number> = fc.constantFrom(...PORTS);

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

/** The same, many times faster, by the thousand: drawn from a fixed sequence. */
export class Draw {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  below(limit: number): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * limit);
  }

  of<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!;
  }

  entry(): PolicyEntry {
    const family = this.of([4, 4, 6] as const);
    const side = (): TrafficSelector[] =>
      Array.from({ length: this.below(8) === 0 ? 2 : 1 }, () => this.#selector(this.below(16) === 0 ? 4 : family));
    return {
      name: 'random',
      direction: this.of(['in', 'out'] as const),
      action: this.of(['protect', 'bypass', 'bypass', 'discard'] as const),
      priority: this.below(4),
      selectors: { local: side(), remote: side() },
      level: 'require',
    };
  }

  packet(): Packet {
    const family = this.of([4, 4, 6] as const);
    const [src, dst] = [this.#address(family), this.#address(family)];
    const protocol = this.of(PROTOCOLS);
    const stray = this.below(4) === 0;
    const port = this.of(PORTS);
    const other = protocol === 6 || protocol === 17 || protocol === 132 ? this.of(PORTS) : port;
    return { src, dst, protocol, stray, ports: stray || !WITH_PORTS.includes(protocol) ? undefined : [port, other] };
  }

  #selector(family: 4 | 6): TrafficSelector {
    const ports = this.below(7);
    const [a, b] = [this.of(PORTS), this.of(PORTS)];
    const range = { startPort: Math.min(a, b), endPort: Math.max(a, b) };
    const [first, last] = [this.#address(family), this.#address(family)];
    const addresses = first.value <= last.value ? { start: first, end: last } : { start: last, end: first };
    return makeSelector(
      this.below(3) === 0 ? anyRange(family) : addresses,
      this.below(2) === 0 ? 0 : this.of(PROTOCOLS),
      ports < 3 ? ANY_PORTS : ports === 3 ? OPAQUE_PORTS : range,
    );
  }

  #address(family: 4 | 6): IpAddress {
    return { family, value: this.of(family === 4 ? V4_VALUES : V6_VALUES) };
  }
}
