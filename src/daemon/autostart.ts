/**
 * Starts tunnels without a request of a user, and retries those that cannot start: at boot an address or a name may not
 * exist yet.
 */

import { SectunnelError } from '../base/error.ts';
import type { Logger } from '../base/log.ts';
import { messageOf } from '../base/text.ts';
import type { TunnelStatus } from '../host/status.ts';

/** Milliseconds: the first wait, doubled up to the longest. */
const FIRST_WAIT = 2_000;
const LONGEST_WAIT = 60_000;

interface Attempt {
  readonly timer: NodeJS.Timeout;
  /** Of the failure and of the next attempt, in milliseconds of `performance.now()`. */
  readonly failedAt: number;
  readonly retryAt: number;
  readonly detail: string;
}

/** Up to a quarter less, so that tunnels which failed together are not tried again together. */
function jittered(wait: number): number {
  return wait * (1 - Math.random() / 4);
}

export class Autostart {
  readonly #start: (name: string) => Promise<unknown>;
  readonly #log: Logger;
  // BOUNDED: the tunnels that are defined.
  readonly #waiting = new Map<string, Attempt>();
  #closed = false;

  /** @param start starts a tunnel, does nothing for one that runs or is gone, and throws when it cannot start */
  constructor(start: (name: string) => Promise<unknown>, log: Logger) {
    this.#start = start;
    this.#log = log;
  }

  async begin(name: string, wait: number = FIRST_WAIT): Promise<void> {
    try {
      await this.#start(name);
    } catch (error) {
      if (this.#closed) return;
      const why = messageOf(error);
      const pause = jittered(wait);
      const seconds = Math.round(pause / 100) / 10;
      this.#log.error({ tunnel: name, retryIn: seconds }, `not started, another try in ${seconds} s: ${why}`);
      const failedAt = performance.now();
      const again = (): void => {
        this.#waiting.delete(name);
        void this.begin(name, Math.min(2 * wait, LONGEST_WAIT));
      };
      this.#waiting.set(name, { timer: setTimeout(again, pause), failedAt, retryAt: failedAt + pause, detail: why });
    }
  }

  /**
   * For a caller that waits at most `patience` milliseconds. One that cannot start yet is tried again, and as
   * good as one whose peer does not answer yet: at boot names may not be known, and libvirt gives no secrets before it has
   * started its networks, which wait for us.
   *
   * @throws SectunnelError when it can never start as it is
   */
  async attempt(name: string, patience: number): Promise<void> {
    if (this.status(name) !== undefined) return;
    const attempt = this.#start(name);
    const late = new Promise<'late'>((resolve) => setTimeout(resolve, patience, 'late').unref());
    try {
      if ((await Promise.race([attempt, late])) !== 'late') return;
      attempt.catch(() => undefined);
    } catch (error) {
      if (!(error instanceof SectunnelError) || error.code !== 'system') throw error;
    }
    void this.begin(name);
  }

  /** What kept a tunnel from starting may be mended: it is tried now, if it is to be tried at all. */
  hurry(name: string): void {
    if (this.cancel(name)) void this.begin(name);
  }

  /** The tunnel was started, stopped or changed by hand: it is no longer tried. False when it was not. */
  cancel(name: string): boolean {
    clearTimeout(this.#waiting.get(name)?.timer);
    return this.#waiting.delete(name);
  }

  /** What `status` shows of a tunnel that could not be started yet. */
  status(name: string): Pick<TunnelStatus, 'lastFailure' | 'retryIn'> | undefined {
    const attempt = this.#waiting.get(name);
    if (attempt === undefined) return undefined;
    const now = performance.now();
    return {
      lastFailure: {
        secondsAgo: (now - attempt.failedAt) / 1000,
        reason: 'not-started',
        detail: attempt.detail,
        inDocument: [],
      },
      retryIn: Math.max(0, attempt.retryAt - now) / 1000,
    };
  }

  close(): void {
    this.#closed = true;
    for (const name of [...this.#waiting.keys()]) this.cancel(name);
  }
}
