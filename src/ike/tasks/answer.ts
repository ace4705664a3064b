/** What a request is answered with, and what happens once the answer is out. */
import type { Payload } from '../wire/payload.ts';

export interface Answer {
  readonly payloads: readonly Payload[];
  /** What would send requests of its own, or end the IKE SA that the answer goes through. */
  readonly after?: (() => void) | undefined;
}
