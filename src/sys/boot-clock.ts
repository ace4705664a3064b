/**
 * The clock that counts the time that the host sleeps (CLOCK_BOOTTIME), and reports of the host waking up.
 *
 * Node's timers and `performance.now()` stand still while the host sleeps: by them an SA would outlive its lifetime, and a
 * peer that went meanwhile would be missed only after the rest of the wait.
 */
import { SystemError } from './errno.ts';
import { libc } from './libc.ts';
import { addressOf } from './native-memory.ts';
import { type Watch, watchReadable } from './poller.ts';

const CLOCK_REALTIME = 0;
const CLOCK_BOOTTIME = 7;
const TFD_NONBLOCK_CLOEXEC = 0o2004000;
const TFD_TIMER_ABSTIME = 1;
/** The kernel reports when the wall clock jumps, and it does when the host wakes up (timerfd_create(2)). */
const TFD_TIMER_CANCEL_ON_SET = 2;
/** Seconds since 1970 that are never reached. */
const NEVER = 0x7fff_ffff;
/** Milliseconds between two looks at the clocks, for kernels that do not report it. */
const LOOK = 2_000;
/** A smaller difference, in milliseconds, is the time between reading two clocks. */
const ASLEEP = 1_000;

/** Two 64-bit numbers, of which the lower halves are enough: a host does not run for 136 years. */
const timespec = new Uint32Array(4);
const timespecBytes = new Uint8Array(timespec.buffer);

/** Milliseconds since the host began, those that it slept among them. */
export function bootNow(): number {
  const calls = libc();
  if (calls.clockGettime(CLOCK_BOOTTIME, addressOf(timespecBytes)) < 0) {
    throw new SystemError('clock_gettime', calls.errno());
  }
  return timespec[0]! * 1e3 + timespec[2]! / 1e6;
}

export interface SleepWatch {
  close(): Promise<void>;
}

/** Calls `onWake` with the milliseconds that the host slept, soon after it woke up. Does not keep the process alive. */
export function watchSleep(onWake: (asleep: number) => void): SleepWatch {
  let before = bootNow() - performance.now();
  const look = (): void => {
    const now = bootNow() - performance.now();
    const asleep = now - before;
    before = now;
    if (asleep >= ASLEEP) onWake(asleep);
  };
  const timer = setInterval(look, LOOK).unref();
  const jumps = watchJumps(look);
  return {
    close: async () => {
      clearInterval(timer);
      await jumps?.close();
    },
  };
}

/** Reports jumps of the wall clock; `undefined` where the kernel does not. */
function watchJumps(onJump: () => void): SleepWatch | undefined {
  const calls = libc();
  const fd = calls.timerfdCreate(CLOCK_REALTIME, TFD_NONBLOCK_CLOEXEC);
  if (fd < 0) return undefined;
  if (!arm(fd)) {
    calls.close(fd);
    return undefined;
  }
  let watch: Watch;
  try {
    watch = watchReadable(fd, () => {
      // A jump cancels the timer: it is set anew.
      if (arm(fd)) watch.arm();
      onJump();
    });
  } catch (error) {
    calls.close(fd);
    // No descriptor is left for it: the timer compares the clocks all the same.
    if (error instanceof SystemError) return undefined;
    throw error;
  }
  watch.arm();
  return {
    close: async () => {
      await watch.close();
      calls.close(fd);
    },
  };
}

function arm(fd: number): boolean {
  const setting = new Uint8Array(32);
  new DataView(setting.buffer).setBigInt64(16, BigInt(NEVER), true);
  return libc().timerfdSettime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, setting) === 0;
}
