/** Which of two exchanges that both sides began at the same time loses (RFC 7296 §2.8.1, §2.8.2). */
import { compareBytes } from '../../base/bytes.ts';
import type { Nonces } from '../keys/keys.ts';

/** Whether the exchange with nonces `a` loses against the one with `b`: it has the lowest of the four. */
export function losesAgainst(a: Nonces, b: Nonces): boolean {
  return compareBytes(lowest(a), lowest(b)) < 0;
}

function lowest({ initiator, responder }: Nonces): Uint8Array {
  return compareBytes(initiator, responder) < 0 ? initiator : responder;
}
