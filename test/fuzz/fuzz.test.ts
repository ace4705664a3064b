/** What was kept of searches, a few executions more, and that a search finds what is wrong. `npm run fuzz` searches on. */
import { describe, expect, it, onTestFinished } from 'vitest';
import { derChildren, derElement } from '../../src/base/asn1/der.ts';
import { fromHex, toHex } from '../../src/base/bytes.ts';
import { Random } from '../support/ike-pair.ts';
import { corpusOf } from './corpus.ts';
import { Coverage } from './coverage.ts';
import { mutateDer } from './der.ts';
import { execute, kindOf } from './execute.ts';
import { readFrames, writeFrames } from './frames.ts';
import { Fuzzer } from './fuzzer.ts';
import { mutate } from './mutate.ts';
import { shrink } from './shrink.ts';
import { holds, type Target } from './target.ts';
import { TARGETS } from './targets.ts';

const MAX_CORPUS = 200 * 1024;
/** Of each test run: about a second of processor time each. */
const EXECUTIONS: Readonly<Record<string, number>> = {
  'ike-codec': 20_000,
  'ike-session': 600,
  esp: 5_000,
  policy: 10_000,
  filters: 60,
  document: 1_500,
  pki: 4_000,
  control: 10_000,
  libvirt: 15_000,
};

describe.each(TARGETS)('$name', (target) => {
  const corpus = corpusOf(target);

  it('holds its seeds, and what was kept', async () => {
    const wrong: string[] = [];
    for (const [at, input] of target.seeds().entries()) {
      const problem = await execute(target, input);
      if (problem !== undefined) wrong.push(`seed ${at}: ${problem}`);
    }
    for (const [file, input] of corpus) {
      const problem = await execute(target, input);
      if (problem !== undefined)
        wrong.push(`npm run fuzz -- ${target.name} test/fuzz/corpus/${target.name}/${file}: ${problem}`);
    }
    expect(wrong).toEqual([]);
  });

  it('holds what is made of them, the same each time', async () => {
    const inputs = [...target.seeds(), ...corpus.values()];
    const random = new Random(14);
    const wrong = new Map<string, string>();
    for (let n = 0; n < EXECUTIONS[target.name]!; n++) {
      const input = mutate(random, target, inputs[random.below(inputs.length)]!, inputs);
      const problem = await execute(target, input);
      if (problem !== undefined) wrong.set(kindOf(problem), `${toHex(input)}: ${problem}`);
    }
    expect([...wrong.values()]).toEqual([]);
  }, 120_000);
});

it('keeps little', () => {
  const sizes = TARGETS.flatMap((target) => [...corpusOf(target).values()].map(({ length }) => length));
  expect(sizes.reduce((sum, length) => sum + length, 0)).toBeLessThan(MAX_CORPUS);
});

/** Three steps, each of which only the one before it leads to. */
const planted: Target = {
  name: 'planted',
  shape: 'bytes',
  maxLength: 64,
  tokens: [],
  seeds: () => [new Uint8Array(16)],
  run(input) {
    if (input[3] !== 0x81) return;
    if (input[5] !== 0x7f) return;
    holds(input[9] !== 0xfe, 'the last of 3 steps was reached');
  },
};

describe('a search', () => {
  it('is led by coverage to what chance alone does not find, and makes it smaller', async () => {
    const coverage = new Coverage(/fuzz\.test/);
    coverage.start();
    onTestFinished(() => coverage.stop());
    const fuzzer = new Fuzzer(planted, 1, coverage);
    await fuzzer.begin(planted.seeds());
    for (let n = 0; n < 5_000 && fuzzer.findings.size === 0; n++) await fuzzer.batch();
    const [[kind, { input, problem }]] = [...fuzzer.findings] as [[string, { input: Uint8Array; problem: string }]];
    expect(problem).toMatch(/^Broken: the last of 3 steps was reached/);
    expect(fuzzer.inputs.length).toBeGreaterThanOrEqual(3);
    expect(await shrink(planted, input, kind)).toHaveLength(10);
  }, 60_000);

  it('finds what takes too long, and what is thrown that is no error', async () => {
    const slow: Target = {
      ...planted,
      run() {
        const from = process.cpuUsage();
        while (process.cpuUsage(from).user < 100_000) new Uint8Array(65_536).fill(1);
      },
    };
    expect(await execute(slow, new Uint8Array(1), 50)).toMatch(/^took \d+ ms of processor time$/);
    const thrown: Target = { ...planted, run: () => Promise.reject('a text') };
    expect(await execute(thrown, new Uint8Array(1))).toBe('threw a text');
  });

  it('tells findings apart by what and where, not by numbers', () => {
    const trace = (text: string, line: number): string => `Error: ${text}\n    at f (file:///a/src/b.js:${line}:7)`;
    expect(kindOf(trace("5 of 'a'", 9))).toBe(kindOf(trace("67 of 'b'", 9)));
    expect(kindOf(trace('5', 9))).not.toBe(kindOf(trace('5', 10)));
  });
});

describe('a change', () => {
  it('leaves frames that are read as they were written, and takes any bytes for frames', () => {
    const frames = [new Uint8Array(0), fromHex('01'), new Uint8Array(300)];
    expect(readFrames(writeFrames(frames))).toEqual(frames);
    expect(readFrames(fromHex('ffff01'))).toEqual([fromHex('01')]);
  });

  it('of DER leaves lengths that are right', () => {
    const random = new Random(3);
    const tree = derElement(
      0x30,
      derElement(0x30, derElement(0x02, fromHex('05'))),
      derElement(0x04, new Uint8Array(200)),
    );
    const seen = new Set<string>();
    for (let n = 0; n < 300; n++) {
      const changed = mutateDer(random, tree, tree);
      seen.add(toHex(changed));
      expect(() => derChildren(derElement(0x30, changed), 0x30)).not.toThrow();
    }
    expect(seen.size).toBeGreaterThan(100);
  });
});
