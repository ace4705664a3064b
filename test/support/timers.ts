import { onTestFinished, vi } from 'vitest';

/**
 * Until the test is over, time passes for timers only where it says so: on a busy machine an answer may take long. Mind that
 * `expect.poll` says so too.
 */
export function timersByHand(): void {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  onTestFinished(() => void vi.useRealTimers());
}
