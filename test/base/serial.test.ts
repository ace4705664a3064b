import { expect, it } from 'vitest';
import { Serial } from '../../src/base/serial.ts';

it('begins each piece of work after the end of the one before, also when that fails', async () => {
  const serial = new Serial();
  const steps: string[] = [];
  const work = (name: string, fails = false) =>
    serial.run(async () => {
      steps.push(`${name} begins`);
      await new Promise((resolve) => setTimeout(resolve, 2));
      steps.push(`${name} ends`);
      if (fails) throw new Error(name);
      return name;
    });
  const [first, second] = [work('first', true), work('second')];
  await expect(first).rejects.toThrow('first');
  expect(await second).toBe('second');
  expect(steps).toEqual(['first begins', 'first ends', 'second begins', 'second ends']);
});

it('gives the result of work that is not asynchronous, and its error', async () => {
  const serial = new Serial();
  expect(await serial.run(() => 7)).toBe(7);
  await expect(
    serial.run(() => {
      throw new Error('no');
    }),
  ).rejects.toThrow('no');
});
