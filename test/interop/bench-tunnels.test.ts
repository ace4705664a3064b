/** The benchmark of many tunnels, as small as it can be: whether it measures all that it is to measure. */
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import type { BenchOptions } from '../../bench/row.ts';
import { shapeNamed } from '../../bench/tunnels/shape.ts';
import type { TunnelsSystem } from '../../bench/tunnels/system.ts';
import { Turn } from '../../bench/tunnels/turn.ts';
import { tunnelsBench } from '../../bench/tunnels.ts';
import { run } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';

const OPTIONS: BenchOptions = {
  ...{ count: 3, quick: true, shape: 'hub', shared: false, only: [] },
  ...{ rounds: 1, minutes: 1, seeds: 1 },
};

let steps: string[] = [];

beforeEach(() => {
  steps = [];
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => steps.push(String(text)) > 0);
});

afterEach(async () => {
  vi.restoreAllMocks();
  const { stdout } = await run(['ip', 'netns', 'list']);
  expect(stdout).not.toContain(`stunlab-${process.pid}-`);
});

const SIDES = { hub: ['hub', 'spokes'], pairs: ['left', 'right'] } as const;
const BOTH = ['define', 'start', 'cpu-each', 'latency-worst', 'latency-99', 'idle', 'memory', 'memory-each', 'stop'];

/** Figures that compare one with many. */
const compared = (what: string): string[] => ['one', 'many', 'ratio'].map((of) => `${what}/${of}`);

describeInterop('the benchmark of many tunnels', ['namespaces', 'iperf3', 'strongswan', 'build'], () => {
  it.each([
    ['sectunnel', 'hub'],
    ['sectunnel-shared', 'pairs'],
    ['strongswan', 'hub'],
  ] as const)('has all figures of %s in the shape %s', async (system, shape) => {
    const { rows, failures, conditions } = await tunnelsBench({
      ...OPTIONS,
      shape,
      shared: system === 'sectunnel-shared',
      only: [system],
    });
    expect(failures).toEqual([]);
    const prefix = `tunnels/${shape}/${system}/3/`;
    const values = new Map(rows.map(({ name, value }) => [name, value]));
    const sided = SIDES[shape].flatMap((side) => [
      ...BOTH.filter((what) => what !== 'start' || system !== 'strongswan').map((what) => `${what}/${side}`),
      ...compared(`unconcerned/${side}`),
    ]);
    for (const what of ['reached', 'up', ...compared('tcp'), ...compared('ping'), ...sided]) {
      expect(values.get(prefix + what), what).toSatisfy(Number.isFinite);
    }
    expect(values.get(`${prefix}reached`)).toBe(3);
    expect(conditions).toMatchObject({
      shape,
      [`${system}, slowest answers, ${SIDES[shape][0]}`]: expect.stringMatching(/ site1 [\d.,]+ ms \(.*\), /),
    });
    expect(steps.join('')).toContain(`${system}, 3 tunnels: starting at the right side\n`);
  });

  it('tells that a system fails, and leaves nothing of it', async () => {
    const failing: TunnelsSystem = {
      name: 'failing',
      obstacles: [],
      start: () => Promise.reject(new Error('it cannot start\nand says why')),
    };
    const turn = new Turn(failing, shapeNamed('hub'), { count: 3, rounds: 1, seconds: 1, idle: 1 });
    await turn.take();
    expect(turn.failures).toEqual(['failing, the run: it cannot start']);
    expect(turn.rows).toEqual([]);
  });
});
