/** The names of devices that documents leave to us: short, and of different tunnels different. */
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { defaultDeviceName } from '../../src/config/defaults.ts';

const COUNT = 100_000;

/** Of version 4 and the same in each run. */
function uuidOf(number: number): string {
  const hex = createHash('sha256').update(`tunnel ${number}`).digest('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), `4${hex.slice(13, 16)}`, `a${hex.slice(17, 20)}`, hex.slice(20, 32)].join(
    '-',
  );
}

const hex = (number: number, digits: number): string => number.toString(16).padStart(digits, '0');

/** Ways in which people and programs name tunnels and make UUIDs. */
const WAYS: readonly (readonly [what: string, name: (n: number) => string, uuid: (n: number) => string])[] = [
  ['short names', (n) => `t${n}`, uuidOf],
  ['long names and random UUIDs', (n) => `customer-${n}.branch`, uuidOf],
  ['names that an interface cannot have', (n) => `a+${n}`, uuidOf],
  ['names that look like what follows from a UUID', (n) => hex(n, 10).toUpperCase(), uuidOf],
  ['UUIDs that are numbered by hand', (n) => `branch-office-${n}`, (n) => `11111111-2222-4333-8444-${hex(n, 12)}`],
  [
    'UUIDs that are made one after another (version 7)',
    (n) => `branch-office-${n}`,
    (n) =>
      `0199${hex(0xf000_0000 + (n >> 8), 8).slice(0, 4)}-${hex(n >> 8, 4)}-7${hex(n & 0xff, 3)}-${uuidOf(n).slice(19)}`,
  ],
];

describe(`the devices of ${COUNT} tunnels`, () => {
  it.each(WAYS)('have different names that the kernel takes: %s', (_what, name, uuid) => {
    const names = Array.from({ length: COUNT }, (_, n) => defaultDeviceName(name(n), uuid(n)));
    expect(names.filter((device) => !/^stun-[\w.-]{1,10}$/.test(device))).toEqual([]);
    expect(new Set(names).size).toBe(COUNT);
  });

  it('are never called after a name what another is called after its UUID', () => {
    const uuid = uuidOf(1);
    const device = defaultDeviceName('a name that is too long', uuid);
    const other = defaultDeviceName(device.slice('stun-'.length), uuidOf(2));
    expect(other).not.toBe(device);
  });
});
