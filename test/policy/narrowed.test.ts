import { describe, expect, it } from 'vitest';
import { narrowedAway } from '../../src/policy/narrowed.ts';
import type { SelectorPair } from '../../src/policy/selector.ts';
import { sel } from './helpers.ts';

const pair = (local: string[], remote: string[]): SelectorPair => ({ local: local.map(sel), remote: remote.map(sel) });
const office = pair(['10.1.0.0/24'], ['10.2.0.0/24']);

describe('what was narrowed away', () => {
  it.each<[string, SelectorPair, string[]]>([
    ['nothing', office, []],
    ['half of a network', pair(['10.1.0.0/24'], ['10.2.0.0/25']), ['remote 10.2.0.128/25']],
    [
      'all but some addresses',
      pair(['10.1.0.4-10.1.0.7'], ['10.2.0.0/24']),
      ['local 10.1.0.0/30', 'local 10.1.0.8-10.1.0.255'],
    ],
    ['all but a protocol', pair(['10.1.0.0/24 tcp'], ['10.2.0.0/24']), ['local 10.1.0.0/24 but for 10.1.0.0/24 tcp']],
    [
      'all but ports of a part',
      pair(['10.1.0.0/24'], ['10.2.0.0/25', '10.2.0.128/25 udp 53']),
      ['remote 10.2.0.128/25 but for 10.2.0.128/25 udp 53'],
    ],
    ['nothing of what came in parts', pair(['10.1.0.0/24'], ['10.2.0.0/25', '10.2.0.128/25']), []],
  ])('%s', (_, agreed, away) => {
    expect(narrowedAway(office, agreed)).toEqual(away);
  });

  it('says nothing of selectors that fit none of the other side', () => {
    expect(narrowedAway(pair(['10.1.0.0/24', 'fd00::/64'], ['10.2.0.0/24']), office)).toEqual([]);
    expect(narrowedAway(pair(['10.1.0.0/24'], ['10.2.0.0/24', '10.3.0.0/24']), office)).toEqual(['remote 10.3.0.0/24']);
  });
});
