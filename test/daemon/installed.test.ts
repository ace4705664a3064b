/** For how long what stands beside a tunnel's device does stand. */
import { describe, expect, it, vi } from 'vitest';
import { parseDocument } from '../../src/config/parse.ts';
import { Installed } from '../../src/daemon/installed.ts';
import type { Platform } from '../../src/host/platform.ts';
import { type LogLine, recordingLog, tunnelDocument } from '../support/daemon.ts';

interface Recorded {
  readonly installed: Installed;
  readonly done: string[];
  readonly lines: LogLine[];
}

function installed(change: Partial<Platform> = {}): Recorded {
  const done: string[] = [];
  const lines: LogLine[] = [];
  const platform: Partial<Platform> = {
    raise: async ({ tunnel }) => void done.push(`raise ${tunnel}`),
    release: async (tunnel) => void done.push(`release ${tunnel}`),
    reconcile: async (tunnels) => void done.push(`keep ${tunnels.map(({ tunnel }) => tunnel).join()}`),
    fenceDrops: () => ({ 'clear-out': 3, 'clear-in': 0 }),
    ...change,
  };
  return { installed: new Installed(platform as Platform, recordingLog(lines)), done, lines };
}

const document = parseDocument(tunnelDocument());

describe('what is installed beside the device of a tunnel', () => {
  it('goes when a tunnel could not start, unless it is to run again', async () => {
    const { installed: one, done } = installed();
    await one.failed('net');
    one.keepForRetry('net');
    await one.failed('net');
    one.started('net');
    await one.failed('net');
    expect(done).toEqual(['release net', 'release net']);
    await one.close();
  });

  it('is there before a tunnel that starts unasked, and stays when the daemon ends', async () => {
    const { installed: one, done, lines } = installed();
    await one.raise(document);
    await one.failed('net');
    expect(one.isRetrying('net')).toBe(true);
    await one.close();
    expect(done).toEqual(['raise net']);
    expect(lines).toMatchObject([{ level: 'info', fields: { tunnels: ['net'] } }]);
  });

  it('is taken over from a daemon that died; what cannot be checked is logged', async () => {
    const { installed: one, done } = installed();
    one.expect(['net']);
    await one.reconcile([document, parseDocument(tunnelDocument({ name: 'own', extra: "<device routes='none'/>" }))]);
    await one.failed('net');
    expect(done).toEqual(['keep net']);
    await one.close();
    const fail = (): Promise<void> => Promise.reject(new Error('no permission'));
    const { installed: other, lines } = installed({ reconcile: fail, raise: fail, look: fail });
    await other.reconcile([]);
    await other.raise(document);
    await other.look('everything');
    expect(lines.map(({ level, text }) => `${level}: ${text}`)).toEqual([
      'warn: what an earlier daemon installed could not be checked: no permission',
      'warn: fence and rules could not be installed completely: no permission',
      'warn: the fence could not be checked: no permission',
    ]);
    await other.close();
  });

  it('is removed later when it cannot be removed now, and only if it is still not to run', async () => {
    const broken = new Set(['net', 'other']);
    const done: string[] = [];
    const release = async (tunnel: string): Promise<void> => {
      if (broken.has(tunnel)) throw new Error('no descriptors');
      done.push(tunnel);
    };
    const { installed: one, lines } = installed({ release });
    for (const name of broken) {
      await expect(one.release(name)).rejects.toThrow(
        `the fence and rules of tunnel ${name} could not be removed: no descriptors. What remains drops the packets that its policy protects`,
      );
    }
    await one.repeat([]);
    one.keepForRetry('other');
    broken.clear();
    await one.repeat([]);
    await one.repeat([]);
    expect(done).toEqual(['net']);
    expect(lines.map(({ text }) => text)).toEqual(['fence and rules are removed now']);
    await one.close();
    expect(done).toEqual(['net']);
  });

  it('leads nothing of level use any more when the tunnel stops and is to run again', async () => {
    const up: string[] = [];
    const { installed: one } = installed({ childrenUp: (tunnel, names) => void up.push(`${tunnel}: ${names.size}`) });
    one.keepForRetry('net');
    expect(up).toEqual(['net: 0']);
    await one.close();
  });

  it('stays of a tunnel whose documents cannot be read', async () => {
    const kept: unknown[] = [];
    const { installed: one } = installed({ reconcile: async (tunnels) => void kept.push(...tunnels) });
    one.expect(['net', 'lost']);
    await one.reconcile([document], ['lost']);
    expect(kept).toMatchObject([{ tunnel: 'net' }, { tunnel: 'lost', routing: undefined }]);
    expect(one.isRetrying('lost')).toBe(true);
    await one.close();
  });

  it('is tried once more at the end', async () => {
    const done: string[] = [];
    let isBroken = true;
    const { installed: one } = installed({
      release: async (tunnel) => {
        if (isBroken) throw new Error('no descriptors');
        done.push(tunnel);
      },
    });
    await expect(one.release('net')).rejects.toThrow('could not be removed');
    isBroken = false;
    await one.close();
    expect(done).toEqual(['net']);
  });

  it('of a daemon that died is looked through later when it cannot be now', async () => {
    const kept: string[] = [];
    let isBroken = true;
    const { installed: one } = installed({
      reconcile: async (tunnels) => {
        if (isBroken) throw new Error('no descriptors');
        kept.push(tunnels.map(({ tunnel }) => tunnel).join());
      },
    });
    one.expect(['net']);
    await one.reconcile([document]);
    await one.repeat([document]);
    isBroken = false;
    await one.repeat([document, parseDocument(tunnelDocument({ name: 'runs' }))]);
    await one.repeat([document]);
    expect(kept).toEqual(['net']);
    await one.close();
  });

  it('counts what it dropped', async () => {
    const { installed: one } = installed();
    expect(one.drops('net')).toEqual({ 'fence-clear-out': 3 });
    await one.close();
  });

  it('is compared every half minute, and less often where that takes long', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    try {
      let takes = 100;
      const looks: number[] = [];
      const look = async (): Promise<void> => {
        looks.push(performance.now());
        await new Promise((resolve) => setTimeout(resolve, takes));
      };
      const began = performance.now();
      const { installed: one } = installed({ look });
      await vi.advanceTimersByTimeAsync(61_000);
      expect(looks.map((at) => at - began)).toEqual([30_000, 60_100]);
      takes = 1_000;
      await vi.advanceTimersByTimeAsync(30_000);
      expect(looks).toHaveLength(3);
      await vi.advanceTimersByTimeAsync(199_000);
      expect(looks).toHaveLength(3);
      await vi.advanceTimersByTimeAsync(3_000);
      expect(looks).toHaveLength(4);
      takes = 60_000;
      await one.close();
      await vi.advanceTimersByTimeAsync(400_000);
      expect(looks).toHaveLength(4);
    } finally {
      vi.useRealTimers();
    }
  });
});
