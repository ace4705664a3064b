/** The empty INFORMATIONAL exchange that asks whether the peer is still there (RFC 7296 §1.4, §2.4). */

import type { IkeSession } from '../session/session.ts';
import { ExchangeType } from '../wire/iana.ts';
import type { Payload } from '../wire/payload.ts';
import type { Task } from './task.ts';

export class LivenessTask implements Task<IkeSession> {
  readonly kind = 'liveness' as const;
  readonly exchange: ExchangeType = ExchangeType.INFORMATIONAL;

  build(): readonly Payload[] {
    return [];
  }

  /** That an authentic answer came is all there is to it; silence counts from here. */
  process(session: IkeSession, now: number): void {
    const interval = session.connectionConfig?.dpd.interval ?? 0;
    if (interval > 0 && session.state.name === 'established') session.timers.set('dpd', now + interval);
  }

  abandon(): void {}
}
