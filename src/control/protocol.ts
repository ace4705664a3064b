/**
 * The control protocol between `sectunnel` and `sectunneld`: JSON objects, one per line, over a Unix socket.
 *
 * A request is `{"id": 1, "verb": "start", "params": {…}}`, its reply `{"id": 1, "result": …}` or
 * `{"id": 1, "error": {"code": …, "message": …}}`. Before its reply there may be lines with its id: `{"id": 1, "progress": {…}}`
 * of a change of many tunnels, and `{"id": 1, "part": {"tunnels": […]}}` with elements of a long array, which go before those in
 * the result. After the verb `event` the daemon also sends lines `{"event": {…}}` until the connection closes. No line
 * contains the value of a secret (`hand-over.ts`). `verbs.ts` says what each verb takes and gives.
 *
 * An id is an integer that a double holds exactly. A connection's requests are carried out one after another, and the
 * replies come in the same order. An error with the id 0 is about a line without a readable id, or gives the reason why
 * the daemon closes the connection. A line that is refused does not end the connection.
 */
import type { ErrorObject, Progress, TunnelEvent } from './results.ts';

/** The name of the daemon's socket in its run folder. */
export const CONTROL_SOCKET = 'sectunneld.sock';

/** Longest request in bytes: a document may have 1 MiB, escaped. */
export const MAX_LINE: number = 4 * 1024 * 1024;

/** Longest reply in bytes: the status of ten thousand tunnels. */
export const MAX_REPLY: number = 16 * 1024 * 1024;

/** Of a result that is sent in several lines: elements of its arrays, which go before those that the result has. */
export type ResultPart = Readonly<Record<string, readonly unknown[]>>;

/** Sent about a request before its reply. */
export type Interim = { readonly progress: Progress } | { readonly part: ResultPart };

export type Reply =
  | ({ readonly id: number } & Interim)
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: ErrorObject }
  | { readonly event: TunnelEvent };
