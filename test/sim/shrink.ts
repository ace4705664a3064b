/** Makes a scenario that fails smaller, as long as it fails: fewer spokes, fewer things that happen, better weather. */
import { CALM, type Scenario } from './scenario.ts';
import { simulate } from './world.ts';

/** BOUNDED: runs; each takes some tens of milliseconds. */
const MAX_RUNS = 400;

/** @param onTry is told of each run: how many actions are left @returns one that fails too, perhaps in another way */
export function shrink(scenario: Scenario, onTry: (actions: number) => void = () => undefined): Scenario {
  let best = scenario;
  let runs = 0;
  const isWorse = (candidate: Scenario): boolean => {
    if (runs++ >= MAX_RUNS || simulate(candidate).failure === undefined) return false;
    best = candidate;
    onTry(best.actions.length);
    return true;
  };
  // Chunks of actions, from halves down to single ones.
  for (let size = Math.ceil(best.actions.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < best.actions.length; ) {
      const actions = [...best.actions.slice(0, at), ...best.actions.slice(at + size)];
      if (!isWorse({ ...best, actions })) at += size;
    }
  }
  while (best.setups.length > 1 && isWorse(withoutLastSpoke(best)));
  isWorse({ ...best, weather: CALM });
  return best;
}

function withoutLastSpoke(scenario: Scenario): Scenario {
  const last = `s${scenario.setups.length}`;
  return {
    ...scenario,
    setups: scenario.setups.slice(0, -1),
    actions: scenario.actions.filter((action) => !Object.values(action).includes(last)),
  };
}
