/** Changes an input at random: as bytes, and where a target's inputs have a structure, along that structure. */
import { concatBytes } from '../../src/base/bytes.ts';
import type { Random } from '../support/ike-pair.ts';
import { mutateDer } from './der.ts';
import { readFrames, writeFrames } from './frames.ts';
import type { Target } from './target.ts';

/** Values that lengths, counts and types go wrong at. */
const EDGES = [0, 1, 2, 3, 4, 7, 8, 0x10, 0x20, 0x29, 0x2c, 0x3f, 0x40, 0x7f, 0x80, 0x81, 0xfe, 0xff];

/** A changed copy. `others` are inputs to take parts of. */
export function mutate(random: Random, target: Target, input: Uint8Array, others: readonly Uint8Array[]): Uint8Array {
  let changed = input;
  // Mostly few changes at once: more of them rarely leave anything that is read.
  for (let n = 1 + random.below(1 + random.below(5)); n > 0; n--) changed = once(random, target, changed, others);
  return changed.subarray(0, target.maxLength);
}

function once(random: Random, target: Target, input: Uint8Array, others: readonly Uint8Array[]): Uint8Array {
  const other = others[random.below(others.length)] ?? input;
  const isStructured = random.below(4) > 0;
  if (target.shape === 'frames' && isStructured) return mutateFrames(random, target, input, other);
  if (target.shape === 'der' && isStructured && input.length > 1) {
    const der = mutateDer(random, input.subarray(1), other.subarray(1));
    return concatBytes(input.subarray(0, 1), der);
  }
  return mutateBytes(random, target, input, other);
}

function mutateFrames(random: Random, target: Target, input: Uint8Array, other: Uint8Array): Uint8Array {
  const frames = readFrames(input);
  const theirs = readFrames(other);
  const at = random.below(Math.max(1, frames.length));
  const frame = frames[at];
  const foreign = theirs[random.below(Math.max(1, theirs.length))] ?? new Uint8Array(4);
  switch (random.below(7)) {
    case 0:
      frames.splice(at, 1);
      break;
    case 1:
      frames.splice(at, 0, foreign);
      break;
    case 2:
      if (frame !== undefined) frames.splice(random.below(frames.length), 0, frame);
      break;
    case 3:
      frames.splice(at, frames.length, ...theirs.slice(random.below(Math.max(1, theirs.length))));
      break;
    default:
      if (frame !== undefined) frames[at] = mutateBytes(random, target, frame, foreign);
  }
  return writeFrames(frames);
}

function mutateBytes(random: Random, target: Target, input: Uint8Array, other: Uint8Array): Uint8Array {
  const at = random.below(input.length + 1);
  const to = Math.min(input.length, at + 1 + random.below(random.below(4) === 0 ? 64 : 8));
  const replaced = (until: number, ...parts: readonly Uint8Array[]): Uint8Array =>
    concatBytes(input.subarray(0, at), ...parts, input.subarray(until));
  const choice = random.below(9);
  if (choice === 0) return replaced(to);
  if (choice === 1) return replaced(at, random.bytes(1 + random.below(8)));
  if (choice === 2) {
    const from = random.below(other.length + 1);
    return replaced(random.below(2) === 0 ? at : to, other.subarray(from, from + 1 + random.below(64)));
  }
  if (choice === 3 && target.tokens.length > 0) {
    return replaced(random.below(2) === 0 ? at : to, target.tokens[random.below(target.tokens.length)]!);
  }
  if (choice === 4) return replaced(at, input.subarray(at, to));
  if (at === input.length) return input;
  const changed = input.slice();
  if (choice === 5) changed[at] = input[at]! ^ (1 << random.below(8));
  else if (choice === 6) changed[at] = EDGES[random.below(EDGES.length)]!;
  else if (choice === 7) changed[at] = input[at]! + random.below(9) - 4;
  else changed.fill(EDGES[random.below(EDGES.length)]!, at, Math.min(input.length, at + 1 + random.below(4)));
  return changed;
}
