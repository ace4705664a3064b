import { describe, expect, it } from 'vitest';
import { chooseWorkers, workerChoices } from '../../../src/host/workers/choice.ts';

describe('which threads carry packets', () => {
  it('are two threads where that can be done and there are processors for them', () => {
    expect(chooseWorkers('auto', {}, 2)).toEqual({ pairs: 1, text: '1 pair' });
    expect(chooseWorkers('auto', {}, 64)).toEqual({ pairs: 1, text: '1 pair' });
    expect(chooseWorkers('auto', {}, 1)).toEqual({ pairs: 0, text: 'inline: there is one processor' });
    const whyNoWorkers = 'there is no Linux';
    expect(chooseWorkers('auto', { whyNoWorkers }, 2)).toEqual({ pairs: 0, text: `inline: ${whyNoWorkers}` });
  });

  it('is as asked for, or the daemon says why not', () => {
    expect(chooseWorkers('0', {}, 2)).toEqual({ pairs: 0, text: 'inline, as asked for' });
    expect(chooseWorkers('1', {}, 1)).toEqual({ pairs: 1, text: '1 pair' });
    expect(chooseWorkers('3', {}, 1)).toEqual({ pairs: 3, text: '3 pairs' });
    expect(() => chooseWorkers('2', { whyNoWorkers: 'there is no Linux' })).toThrow('--workers 2: there is no Linux');
    expect(workerChoices).toEqual(['auto', '0', '1', '2', '3', '4', '5', '6', '7', '8']);
  });
});
