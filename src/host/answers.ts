/** Answers what an engine asks for: a secret, a signature, the judgement of a peer's proof. */
import { messageOf } from '../base/text.ts';
import type { ControlPlane } from '../engine/control-plane.ts';
import type { EngineEvent } from '../engine/events.ts';
import { signatureFor, verdictFor } from './authentication.ts';
import type { HostOptions } from './options.ts';
import { programBytes } from './program-bytes.ts';

export type Question = Extract<EngineEvent, { readonly type: 'need-secret' | 'need-signature' | 'need-verification' }>;

export function isQuestion(event: EngineEvent): event is Question {
  return event.type === 'need-secret' || event.type === 'need-signature' || event.type === 'need-verification';
}

/** Asks the program, and tells the engine. @param now monotonic milliseconds, when the answer is there */
export async function answerQuestion(
  question: Question,
  engine: ControlPlane,
  options: HostOptions,
  now: () => number,
): Promise<void> {
  if (question.type === 'need-secret') return answerSecret(question, engine, options, now);
  if (question.type === 'need-signature') {
    const answer = await signatureFor(question, options);
    engine.answerSignature(now(), question.requestId, answer);
  } else {
    const answer = await verdictFor(question, options);
    engine.answerVerification(now(), question.requestId, answer);
  }
}

async function answerSecret(
  question: Extract<Question, { readonly type: 'need-secret' }>,
  engine: ControlPlane,
  { secretFor, onSecretRead, onEvent }: HostOptions,
  now: () => number,
): Promise<void> {
  let given: Uint8Array | undefined;
  let secret: Uint8Array | undefined;
  try {
    given = await secretFor(question);
    secret = given === undefined ? undefined : programBytes(given, 'secretFor');
  } catch (error) {
    const text = `the secret could not be read: ${messageOf(error)}`;
    onEvent?.({ type: 'note', tunnel: question.tunnel, level: 'warn', text });
  }
  try {
    engine.answerSecret(now(), question.requestId, secret);
  } finally {
    if (secret !== undefined && given !== undefined) onSecretRead?.(given);
    secret?.fill(0);
  }
}
