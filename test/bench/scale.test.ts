import { expect, it } from 'vitest';
import { ScaleEngines } from '../../bench/scale/engines.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';

it('many SAs each carry the packets of their policy, in whatever order they come', () => {
  const engines = new ScaleEngines(200, nodeProvider);
  engines.install();
  // What is not delivered, or comes by another's SA, is an error.
  for (const spread of ['one', 'runs', 'even'] as const) expect(engines.carry(spread, 92, 8)).toBeGreaterThan(0);
});
