import { describe, expect, it } from 'vitest';
import { Serial } from '../../../src/base/serial.ts';
import { Gathered } from '../../../src/hostnet/fence/gathered.ts';

function gathering(refused: readonly string[] = []): { gathered: Gathered<number>; commits: string[]; serial: Serial } {
  const serial = new Serial();
  const commits: string[] = [];
  const gathered = new Gathered<number>(
    (work) => serial.run(work),
    async (values) => {
      commits.push([...values].map(([key, value]) => `${key}=${value}`).join(' '));
      const bad = [...values.keys()].find((key) => refused.includes(key));
      if (bad !== undefined) throw new Error(`${bad} is refused`);
    },
  );
  return { gathered, commits, serial };
}

describe('Gathered', () => {
  it('commits what came while it waited for its turn at once, the last value of each key', async () => {
    const { gathered, commits, serial } = gathering();
    let end = (): void => undefined;
    void serial.run(() => new Promise<void>((resolve) => (end = resolve)));
    const all = Promise.all([gathered.add('a', 1), gathered.add('b', 2), gathered.add('a', 3)]);
    await Promise.resolve();
    expect(commits).toEqual([]);
    end();
    await all;
    expect(commits).toEqual(['a=3 b=2']);
    await gathered.add('a', 4);
    expect(commits).toEqual(['a=3 b=2', 'a=4']);
  });

  it('tells the one that is refused, and commits the others', async () => {
    const { gathered, commits } = gathering(['b']);
    const all = await Promise.allSettled([gathered.add('a', 1), gathered.add('b', 2), gathered.add('c', 3)]);
    expect(all.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    expect(commits).toEqual(['a=1 b=2 c=3', 'a=1', 'b=2', 'c=3']);
  });

  it('asks for a single one only once', async () => {
    const { gathered, commits } = gathering(['a']);
    await expect(gathered.add('a', 1)).rejects.toThrow('a is refused');
    expect(commits).toEqual(['a=1']);
  });

  it('hands over so many at once, and the others in turns of their own', async () => {
    const commits: number[] = [];
    const serial = new Serial();
    const gathered = new Gathered<number>(
      (work) => serial.run(work),
      async (values) => void commits.push(values.size),
      3,
    );
    await Promise.all(Array.from({ length: 8 }, (_, at) => gathered.add(`${at}`, at)));
    expect(commits).toEqual([3, 3, 2]);
  });

  it('hands over many in few turns, and tells the ones that are refused, with the others committed', async () => {
    const { gathered, commits } = gathering(['c']);
    const values = new Map([...'abcde'].map((key, at) => [key, at]));
    const problems = await gathered.addTogether(values, 2);
    expect([...problems]).toEqual([['c', new Error('c is refused')]]);
    expect(commits).toEqual(['a=0 b=1', 'c=2 d=3', 'c=2 d=3', 'c=2', 'd=3', 'e=4']);
  });
});
