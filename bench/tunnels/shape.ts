/**
 * What the tunnels between two gateways join. Each has a number; what is its own is derived from that.
 *
 * - `hub`: the left side is the head office with one network for all tunnels, the right side stands for all its branches: a
 *   network of its own for each tunnel.
 * - `pairs`: both sides have a network of their own for each tunnel, as a provider that joins sites of many customers.
 */
import type { Side, Tunnel, TunnelEnd } from '../../test/support/lab/tunnel.ts';
import { UsageError } from '../row.ts';

export const SIDES = ['left', 'right'] as const;
export const OUTER: Readonly<Record<Side, string>> = { left: '192.0.2.1', right: '192.0.2.2' };

export interface Shape {
  readonly name: string;
  /** What figures call the sides. The left one waits for the right one to initiate. */
  readonly sides: Readonly<Record<Side, string>>;
  /** Whether the tunnels of a side have one network in common. */
  readonly common: Readonly<Record<Side, boolean>>;
}

const SHAPES: readonly Shape[] = [
  { name: 'hub', sides: { left: 'hub', right: 'spokes' }, common: { left: true, right: false } },
  { name: 'pairs', sides: { left: 'left', right: 'right' }, common: { left: false, right: false } },
];

export const DEFAULT_SHAPE = 'hub';

/** @throws UsageError */
export function shapeNamed(name: string): Shape {
  const found = SHAPES.find((shape) => shape.name === name);
  if (found !== undefined) return found;
  throw new UsageError(`--shape ${name}: expected one of: ${SHAPES.map((shape) => shape.name).join(', ')}`);
}

/** First octets of the protected addresses. */
const FIRST_OCTET: Readonly<Record<Side, number>> = { left: 10, right: 11 };
/** Addresses of a tunnel's own network, a /30. */
const OWN = 4;
const COMMON_PREFIX = 24;
const OWN_PREFIX = 30;

/** The network that a tunnel protects at a side. */
export function network({ common }: Shape, side: Side, tunnel: number): string {
  return common[side] ? `${address(side, 0)}/${COMMON_PREFIX}` : `${address(side, tunnel * OWN)}/${OWN_PREFIX}`;
}

/** The gateway's own address in that network. */
export function innerAddress({ common }: Shape, side: Side, tunnel: number): string {
  return address(side, common[side] ? 1 : tunnel * OWN + 1);
}

function address(side: Side, value: number): string {
  return [FIRST_OCTET[side], value >> 16, (value >> 8) & 0xff, value & 0xff].join('.');
}

/** Of all tunnels. */
export const PSK = 'kX3vQ9dLw7-a-key-for-benchmarks-alone-Tz81';

export function tunnelsOf(shape: Shape, count: number): Tunnel[] {
  return Array.from({ length: count }, (_, number) => ({
    name: `site${number}`,
    left: endOf(shape, 'left', number),
    right: endOf(shape, 'right', number),
    ike: { encryption: 'aes128gcm16', prf: 'sha256', dh: 'x25519' },
    esp: { encryption: 'aes128gcm16', esn: 'no' },
  }));
}

function endOf(shape: Shape, side: Side, number: number): TunnelEnd {
  return {
    address: OUTER[side],
    id: { type: 'fqdn', value: `site${number}.${side}.example.org` },
    inner: [network(shape, side, number)],
    psk: PSK,
  };
}
