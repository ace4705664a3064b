import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { ServiceManager } from '../../src/daemon/notify.ts';
import { temporaryFolder } from '../support/folder.ts';
import { NotifySocket } from '../support/notify-socket.ts';

afterEach(() => void vi.useRealTimers());

function manager(environment: Record<string, string>, errors: string[] = []): ServiceManager | undefined {
  return ServiceManager.fromEnvironment(environment, (error) => errors.push(error.message));
}

describe.skipIf(process.platform !== 'linux')('ServiceManager', () => {
  it.each(['path', 'abstract'])(
    'says that it is ready and that it ends, to a socket with a name that is %s',
    (kind) => {
      const name = kind === 'path' ? join(temporaryFolder(), 'notify') : `@sectunnel-test-${process.pid}`;
      const socket = NotifySocket.open(name);
      const told = manager({ NOTIFY_SOCKET: name })!;
      expect(socket.receive()).toEqual([]);
      told.ready();
      told.stopping();
      told.close();
      expect(socket.receive()).toEqual(['READY=1', 'STOPPING=1']);
    },
  );

  it('feeds the watchdog twice in its time, from when it is ready until it is closed', () => {
    vi.useFakeTimers();
    const name = join(temporaryFolder(), 'notify');
    const socket = NotifySocket.open(name);
    const told = manager({ NOTIFY_SOCKET: name, WATCHDOG_USEC: '10000000', WATCHDOG_PID: String(process.pid) })!;
    vi.advanceTimersByTime(20_000);
    expect(socket.receive()).toEqual([]);
    told.ready();
    vi.advanceTimersByTime(10_000);
    expect(socket.receive()).toEqual(['READY=1', 'WATCHDOG=1', 'WATCHDOG=1']);
    told.close();
    vi.advanceTimersByTime(20_000);
    expect(socket.receive()).toEqual([]);
  });

  it.each([
    ['of another process', { WATCHDOG_USEC: '1000', WATCHDOG_PID: '1' }],
    ['without a time', { WATCHDOG_PID: String(process.pid) }],
    ['with nonsense for a time', { WATCHDOG_USEC: 'soon' }],
  ])('feeds no watchdog %s', (_what, watchdog) => {
    vi.useFakeTimers();
    const name = join(temporaryFolder(), 'notify');
    const socket = NotifySocket.open(name);
    const told = manager({ NOTIFY_SOCKET: name, ...watchdog })!;
    told.ready();
    vi.advanceTimersByTime(60_000);
    expect(socket.receive()).toEqual(['READY=1']);
    told.close();
  });

  it('takes what it was told out of the environment', () => {
    const environment: Record<string, string> = {
      NOTIFY_SOCKET: '',
      WATCHDOG_USEC: '1',
      WATCHDOG_PID: '1',
      OTHER: 'x',
    };
    expect(manager(environment)).toBeUndefined();
    expect(environment).toEqual({ OTHER: 'x' });
    expect(manager({})).toBeUndefined();
  });

  it.each([
    ['/nowhere/notify', /connect\(\/nowhere\/notify\).*ENOENT/],
    ['relative', /expected a path from \/ on/],
    [`/${'x'.repeat(200)}`, /at most 107 bytes/],
  ])('does without a manager that cannot be reached at %s, and says so', (name, message) => {
    const errors: string[] = [];
    expect(manager({ NOTIFY_SOCKET: name }, errors)).toBeUndefined();
    expect(errors).toEqual([expect.stringMatching(message)]);
  });

  it('is not blocked by a manager that does not read, and reports one that is gone', () => {
    const name = join(temporaryFolder(), 'notify');
    const socket = NotifySocket.open(name);
    const errors: string[] = [];
    const told = manager({ NOTIFY_SOCKET: name }, errors)!;
    for (let i = 0; i < 5_000; i++) told.stopping();
    expect(errors).toEqual([]);
    socket.close();
    told.stopping();
    expect(errors).toEqual([expect.stringMatching(/send\(.*ECONNREFUSED.*It was not told STOPPING=1/)]);
    told.close();
  });
});
