/** The empty INFORMATIONAL exchange that asks whether the peer is still there (RFC 7296 §1.4, §2.4). */

import type { IkeSession } from '../session/session.ts';
import { ExchangeType } from '../wire/iana.ts';
import type { Payload } from '../wire/payload.ts';
import type { Task } from './task.ts';

export class LivenessTask implements Task<IkeSession> {
  readonly kind = 'liveness' as const;
  readonly exchange: ExchangeType = ExchangeType.INFORMATIONAL;
  readonly #isReported: boolean;
  #begunAt = 0;

  /** @param isReported the owner is told how long the answer took */
  constructor({ isReported = false }: { readonly isReported?: boolean } = {}) {
    this.#isReported = isReported;
  }

  build(_session: IkeSession, now: number): readonly Payload[] {
    this.#begunAt = now;
    return [];
  }

  /** That an authentic answer came is all there is to it; silence counts from here. */
  process(session: IkeSession, now: number): void {
    const interval = session.connectionConfig?.dpd.interval ?? 0;
    if (interval > 0 && session.state.name === 'established') session.timers.set('dpd', now + interval);
    if (!this.#isReported) return;
    const { id: ikeSaId, connectionName: connection } = session;
    session.env.emit({ type: 'alive', ikeSaId, connection, after: now - this.#begunAt });
  }

  abandon(): void {}
}
