import { expect, it } from 'vitest';
import { addCounters, counterCount, writeCounters } from '../../src/tun/counters.ts';
import { newDeviceCounters } from '../../src/tun/device.ts';
import { newUdpCounters } from '../../src/tun/udp/udp.ts';

it.each([newDeviceCounters, newUdpCounters])('what one thread writes down, another adds up', (fresh) => {
  const numbers = Array.from({ length: counterCount(fresh()) }, (_, i) => i + 1);
  const counters = fresh();
  addCounters(Float64Array.from(numbers), counters);
  const written = new Float64Array(numbers.length);
  writeCounters(counters, written);
  expect([...written]).toEqual(numbers);
  addCounters(written, counters);
  writeCounters(counters, written);
  expect([...written]).toEqual(numbers.map((number) => 2 * number));
});
