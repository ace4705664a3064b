import { describe, expect, it } from 'vitest';
import { deferred } from '../../src/base/deferred.ts';
import { Turns } from '../../src/base/turns.ts';

/** Work that runs until it is ended. */
class Scene {
  readonly turns: Turns;
  readonly running = new Set<string>();
  readonly begun: string[] = [];
  readonly #ends = new Map<string, () => void>();

  constructor(limit: number) {
    this.turns = new Turns(limit);
  }

  readonly work = (name: string) => async (): Promise<string> => {
    this.begun.push(name);
    this.running.add(name);
    const { promise, resolve } = deferred();
    this.#ends.set(name, resolve);
    await promise;
    this.running.delete(name);
    return name;
  };

  async end(name: string): Promise<void> {
    this.#ends.get(name)!();
    await settled();
  }
}

async function settled(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

describe('turns', () => {
  it('run different things at the same time, and one thing in order', async () => {
    const scene = new Scene(4);
    void scene.turns.run('a', scene.work('a1'));
    void scene.turns.run('a', scene.work('a2'));
    void scene.turns.run('b', scene.work('b1'));
    await settled();
    expect(scene.begun).toEqual(['a1', 'b1']);
    await scene.end('b1');
    expect(scene.begun).toEqual(['a1', 'b1']);
    await scene.end('a1');
    expect(scene.begun).toEqual(['a1', 'b1', 'a2']);
  });

  it('run so many at the same time, those first that came first', async () => {
    const scene = new Scene(2);
    for (const name of ['a', 'b', 'c', 'd']) void scene.turns.run(name, scene.work(name));
    await settled();
    expect(scene.begun).toEqual(['a', 'b']);
    await scene.end('b');
    expect(scene.begun).toEqual(['a', 'b', 'c']);
  });

  it('run alone what concerns all: after everything before it, and before everything after it', async () => {
    const scene = new Scene(4);
    void scene.turns.run('a', scene.work('a1'));
    void scene.turns.run('a', scene.work('a2'));
    void scene.turns.alone(scene.work('all'));
    void scene.turns.run('b', scene.work('b1'));
    await settled();
    expect(scene.begun).toEqual(['a1']);
    await scene.end('a1');
    expect(scene.begun).toEqual(['a1', 'a2']);
    await scene.end('a2');
    expect([...scene.running]).toEqual(['all']);
    await scene.end('all');
    expect([...scene.running]).toEqual(['b1']);
  });

  it('give what the work gives, and go on after a failure', async () => {
    const turns = new Turns(1);
    const failed = turns.run('a', () => {
      throw new Error('no');
    });
    const next = turns.run('a', () => 7);
    await expect(failed).rejects.toThrow('no');
    expect(await next).toBe(7);
    await expect(turns.alone(() => Promise.reject(new Error('never')))).rejects.toThrow('never');
    expect(await turns.alone(() => 'all')).toBe('all');
  });
});
