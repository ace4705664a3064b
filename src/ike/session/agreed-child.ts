/** A CHILD SA with its keys, as an exchange made it, before the owner has it. */

import type { ChildKeys, Nonces } from '../keys/keys.ts';
import type { ChildFacts } from './child.ts';

export interface AgreedChild {
  readonly facts: ChildFacts;
  readonly keys: ChildKeys;
  /** Whether we began the exchange, which says whose keys are whose (RFC 7296 §2.17). */
  readonly initiator: boolean;
  readonly nonces: Nonces;
}
