/** The simulator: what once failed, a number of seeds, and that it sees what is wrong. `npm run sim` explores more. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseEspProposalString } from '../../src/crypto/proposal-text.ts';
import { type Action, CALM, drawScenario, type Scenario, type Setup } from './scenario.ts';
import { Seals } from './seals.ts';
import { shrink } from './shrink.ts';
import { simulate } from './world.ts';

const CORPUS = join(import.meta.dirname, 'corpus');
/** Of each test run. */
const SEEDS = 120;

// It computes and waits for nothing: how long is a matter of what else the machine does.
describe('the simulator', { timeout: 240_000 }, () => {
  it.each(readdirSync(CORPUS))('holds what failed once: %s', (file) => {
    const scenario = JSON.parse(readFileSync(join(CORPUS, file), 'utf8')) as Scenario;
    expect(simulate(scenario).failure).toBeUndefined();
  });

  it.each([0, 1, 2, 3])(`holds ${SEEDS} seeds, part %i of 4`, (part) => {
    const seeds = Array.from({ length: SEEDS / 4 }, (_, at) => 1 + 4 * at + part);
    const failed = seeds.flatMap((seed) => {
      const { failure } = simulate(drawScenario(seed));
      return failure === undefined ? [] : [`npm run sim -- ${seed}: ${failure}`];
    });
    expect(failed).toEqual([]);
  });

  const scenario = (seed: number, change: (drawn: Scenario) => Partial<Scenario>): Scenario => {
    const drawn = drawScenario(seed);
    return { ...drawn, ...change(drawn) };
  };
  const setUp =
    (change: Partial<Setup>) =>
    (drawn: Scenario): Partial<Scenario> => ({
      actions: [],
      setups: drawn.setups.map((setup) => ({ ...setup, nat: false, ...change })),
    });

  it.each<[what: string, Scenario, RegExp]>([
    [
      'packets that are lost where none may be',
      scenario(2, (drawn) => ({
        ...setUp({ start: { hub: 'respond', spoke: 'initiate' } })(drawn),
        ...{ lossless: true, weather: CALM },
        actions: [
          { at: 5_000, type: 'weather', weather: { ...CALM, loss: 0.5 } },
          { at: 6_000, type: 'packets', from: 's1', to: 'hub', count: 50, every: 10 },
        ],
      })),
      /^\d+ packets were lost, the first at /,
    ],
    [
      'a tunnel that nobody brings up',
      scenario(2, setUp({ start: { hub: 'respond', spoke: 'respond' } })),
      /^not at rest .*: tunnel s1 has 0 IKE SAs, 0 CHILD SAs at the hub/,
    ],
    [
      'a peer that lost its memory, which nobody notices',
      scenario(2, (drawn) => ({
        ...setUp({
          ...{ start: { hub: 'initiate', spoke: 'respond' }, dpd: 0 },
          ...{ childLifetime: 600_000, ikeLifetime: 600_000 },
        })(drawn),
        actions: [{ at: 20_000, type: 'restart', host: 's1' }],
      })),
      /^not at rest .* at the hub, 0 IKE SAs/,
    ],
  ])('finds %s', (_what, broken, failure) => {
    expect(simulate(broken).failure).toMatch(failure);
  });

  it('makes smaller what fails, and it fails still', () => {
    const broken = scenario(4, (drawn) => ({
      lossless: true,
      actions: [...drawn.actions, { at: 59_000, type: 'weather', weather: { ...CALM, loss: 1 } }] as Action[],
      setups: drawn.setups.map((setup) => ({ ...setup, start: { hub: 'respond', spoke: 'respond' } })),
    }));
    const small = shrink(broken);
    expect(small.actions.length).toBeLessThan(broken.actions.length / 2);
    expect(simulate(small).failure).toBeDefined();
  });

  it('sees a counter that is used twice with a key', () => {
    const watched = new Seals();
    const keys = { encryption: new Uint8Array(20).fill(7), integrity: new Uint8Array(0) };
    const suite = { encryption: parseEspProposalString('aes128gcm16').encryption[0]!, integrity: undefined };
    const [one, again] = [1, 2].map(() => watched.provider.packetCipher(suite, keys));
    for (const [cipher, counter] of [
      [one!, 1],
      [one!, 2],
      [again!, 3],
      [again!, 2],
    ] as const) {
      cipher.seal(new Uint8Array(200), 0, 8, 64, 0, counter, -1);
    }
    expect(watched.repeated).toEqual(['counter 2 with a key of aes128gcm16']);
  });

  it('is the same each time', () => {
    const [one, two] = [1, 2].map(() => simulate(drawScenario(2), { chart: true }));
    expect(one!.lines.length).toBeGreaterThan(100);
    expect(one).toEqual(two);
  });
});
