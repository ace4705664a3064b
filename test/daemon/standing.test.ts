/** For how long what stands beside a tunnel's device does stand. */
import { describe, expect, it } from 'vitest';
import { parseDocument } from '../../src/config/parse.ts';
import type { Platform } from '../../src/daemon/platform.ts';
import { Standing } from '../../src/daemon/standing.ts';
import { type LogLine, recordingLog, tunnelDocument } from '../support/daemon.ts';

interface Recorded {
  readonly standing: Standing;
  readonly done: string[];
  readonly lines: LogLine[];
}

function standing(change: Partial<Platform> = {}): Recorded {
  const done: string[] = [];
  const lines: LogLine[] = [];
  const platform: Partial<Platform> = {
    raise: async ({ tunnel }) => void done.push(`raise ${tunnel}`),
    release: async (tunnel) => void done.push(`release ${tunnel}`),
    reconcile: async (tunnels) => void done.push(`keep ${tunnels.map(({ tunnel }) => tunnel).join()}`),
    fenceDrops: () => ({ 'clear-out': 3, 'clear-in': 0 }),
    ...change,
  };
  return { standing: new Standing(platform as Platform, recordingLog(lines)), done, lines };
}

const document = parseDocument(tunnelDocument());

describe('what stands beside the device of a tunnel', () => {
  it('goes when a tunnel could not start, unless it is to run again', async () => {
    const { standing: one, done } = standing();
    await one.failed('net');
    one.hold('net');
    await one.failed('net');
    one.started('net');
    await one.failed('net');
    expect(done).toEqual(['release net', 'release net']);
    await one.close();
  });

  it('is there before a tunnel that starts unasked, and goes at the end if it never did', async () => {
    const { standing: one, done } = standing();
    await one.raise(document);
    await one.failed('net');
    await one.close();
    expect(done).toEqual(['raise net', 'release net']);
  });

  it('is taken over from a daemon that died; what cannot be looked at is told', async () => {
    const { standing: one, done } = standing();
    await one.reconcile([document, parseDocument(tunnelDocument({ name: 'own', extra: "<device routes='none'/>" }))]);
    await one.failed('net');
    expect(done).toEqual(['keep net']);
    await one.close();
    const fail = (): Promise<void> => Promise.reject(new Error('no permission'));
    const { standing: other, lines } = standing({ reconcile: fail, raise: fail, look: fail });
    await other.reconcile([]);
    await other.raise(document);
    await other.look(true);
    expect(lines.map(({ level, text }) => `${level}: ${text}`)).toEqual([
      'warn: what a daemon before this one set up could not be looked through: no permission',
      'warn: no fence could be put up: no permission',
      'warn: the fence could not be looked at: no permission',
    ]);
    await other.close();
  });

  it('counts what it dropped', async () => {
    const { standing: one } = standing();
    expect(one.drops('net')).toEqual({ 'fence-clear-out': 3 });
    await one.close();
  });
});
