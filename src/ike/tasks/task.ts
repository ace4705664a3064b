/**
 * What an exchange that we begin is: a task, which builds a request and processes its response. Tasks of an IKE SA run
 * one after the other, as its window of one allows. The other half of an exchange, answering the peer's, is a function
 * beside the task in the same file.
 */
import type { ChildRecord } from '../session/child.ts';
import { ExchangeType } from '../wire/iana.ts';
import type { Payload } from '../wire/payload.ts';

export type TaskKind =
  | 'init'
  | 'auth'
  | 'create-child'
  | 'rekey-child'
  | 'rekey-ike'
  | 'delete-child'
  | 'delete-ike'
  | 'liveness'
  | 'take-over';

/** @typeParam S the IKE SA, whose class keeps tasks */
export interface Task<S> {
  readonly kind: TaskKind;
  readonly exchange: ExchangeType;
  /** The request's payloads; `undefined` when there is nothing to do any more. */
  build(session: S, now: number): readonly Payload[] | undefined;
  /** Takes the authentic response. */
  process(session: S, now: number, payloads: readonly Payload[]): void;
  /** The IKE SA went away, or took the task off, before the response came. Frees what the task holds. */
  abandon(): void;
  /** The peer deleted a CHILD SA that we do not know, by its SPI: it may be the one that this exchange makes. */
  peerDeleted?(spi: number): void;
  /** Whether the peer replaced the CHILD SA while our request to do so was out. */
  isReplaced?(child: ChildRecord): boolean;
}

/** Takes the task out of a queue whose turn it is; while SAs settle, the first that makes none. */
export function takeNext<S>(queue: Task<S>[], { isSettling }: { readonly isSettling: boolean }): Task<S> | undefined {
  if (!isSettling) return queue.shift();
  const at = queue.findIndex(({ exchange }) => exchange !== ExchangeType.CREATE_CHILD_SA);
  return at < 0 ? undefined : queue.splice(at, 1)[0];
}
