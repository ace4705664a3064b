/** Policies of the tests of the fence: entries between 10.1.0.0/24, fd01::/64 here and 10.2.0.0/24, fd02::/64 there. */
import type { PolicyEntry } from '../../../src/policy/database.ts';
import type { TrafficSelector } from '../../../src/policy/selector.ts';
import { sel } from '../../policy/helpers.ts';

export const LOCAL: readonly string[] = ['10.1.0.0/24', 'fd01::/64'];
export const REMOTE: readonly string[] = ['10.2.0.0/24', 'fd02::/64'];

export interface Words {
  readonly action?: PolicyEntry['action'];
  /** `udp`, `udp 7007`, `icmp type 8`; behind it the ports of the local side. */
  readonly upper?: string;
  readonly localUpper?: string;
  readonly families?: readonly (4 | 6)[];
  readonly local?: readonly string[];
  readonly remote?: readonly string[];
}

/** Both directions; earlier ones come first. */
export function policy(...list: readonly Words[]): PolicyEntry[] {
  return list.flatMap(
    ({ action = 'protect', upper = 'any', localUpper, families = [4, 6], local = LOCAL, remote = REMOTE }, index) => {
      const fitting = (ranges: readonly string[], words: string): TrafficSelector[] =>
        ranges.filter((text) => families.includes(text.includes(':') ? 6 : 4)).map((text) => sel(`${text} ${words}`));
      const [protocol] = upper.split(' ');
      const icmp = upper.includes('type');
      const selectors = {
        local: fitting(local, localUpper ?? (icmp ? upper : protocol!)),
        remote: fitting(remote, upper),
      };
      const entry = { name: `e${index}`, action, priority: -index, selectors, level: 'require' as const, child: 'c' };
      return [
        { ...entry, direction: 'in' as const },
        { ...entry, direction: 'out' as const },
      ];
    },
  );
}
