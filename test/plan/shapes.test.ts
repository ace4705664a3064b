/**
 * What is kept of each tunnel has the same hidden class in V8 for all of them. An object literal that begins with a spread and
 * goes on with other properties has one of its own, from the ninth on: 340 bytes more, and each use of it is slower.
 */
import { setFlagsFromString } from 'node:v8';
import { expect, it } from 'vitest';
import { parseDocument } from '../../src/config/parse.ts';
import { toPolicy } from '../../src/config/selectors.ts';
import { tunnelFence } from '../../src/hostnet/steering/tunnel-fence.ts';
import { unresolvedDevicePlan } from '../../src/plan/device.ts';
import { tunnelDocument } from '../support/daemon.ts';

setFlagsFromString('--allow-natives-syntax');
const haveSameMap = new Function('one', 'other', 'return %HaveSameMap(one, other)') as (
  one: unknown,
  other: unknown,
) => boolean;

const COUNT = 60;

/** How many different ones the last of many have. */
function shapesOf(make: (number: number) => object): number {
  const last = Array.from({ length: COUNT }, (_, number) => make(number)).slice(COUNT / 2);
  const known: object[] = [];
  for (const one of last) if (!known.some((other) => haveSameMap(one, other))) known.push(one);
  return known.length;
}

const documents = Array.from({ length: COUNT }, (_, number) =>
  parseDocument(tunnelDocument({ name: `t${number}`, inner: ['10.1.0.0', `10.2.${number}.0`] })),
);
const routing = (number: number): NonNullable<ReturnType<typeof unresolvedDevicePlan>['routing']> =>
  unresolvedDevicePlan(documents[number]!).routing!;

it.each<[string, (number: number) => object]>([
  ['a document', (number) => documents[number]!],
  ['an entry of the policy', (number) => toPolicy(documents[number]!).entries[0]!],
  ['the plan of a device', (number) => unresolvedDevicePlan(documents[number]!)],
  ['a box of the policy routing', (number) => routing(number).outbound[0]!],
  ['an entry of the fence', (number) => tunnelFence(routing(number), 'hub').outbound[0]!],
])('%s', (_, make) => {
  expect(shapesOf(make)).toBe(1);
});
