/** What `status` says of the daemon itself: what runs short is said before it is refused. */
import { describe, expect, it } from 'vitest';
import { formatStatus } from '../../src/cli/format.ts';
import type { StatusResult } from '../../src/control/results.ts';

const STATUS: StatusResult = {
  version: '0.1.0',
  pid: 1,
  uptime: 1,
  crypto: 'noble',
  io: {},
  workers: { mode: 'inline', threads: [] },
  descriptors: undefined,
  tunnels: [],
  networks: [],
  counters: {},
};

describe('the descriptors of a daemon', () => {
  it.each([
    [70, 17],
    [1024, 256],
    [65_536, 256],
  ])(
    'are told when the next tunnel of a daemon with %s may be refused, and not when most are free',
    (limit, reserve) => {
      const said = (open: number): string => formatStatus({ ...STATUS, descriptors: { open, limit, reserve } });
      // A start that needs several gives back what it took when it gets the first of the reserve.
      for (const missing of [0, 1, 5])
        expect(said(limit - reserve - missing)).toMatch(
          new RegExp(
            `^file descriptors: \\d+ of ${limit} are open, and the last ${reserve} are kept for control.*LimitNOFILE`,
            'm',
          ),
        );
      expect(said(Math.floor((limit - reserve) / 2))).not.toContain('descriptors');
    },
  );

  it('are not told where they are not known', () => {
    expect(formatStatus(STATUS)).not.toContain('descriptors');
  });
});
