/**
 * What another process needs to go on with one direction of a CHILD SA: keys, the last sequence number, counters. The window of
 * anti-replay begins anew at the highest number: packets below it that are still under way count as received.
 */
import { type Codec, double, field, list, optional, record, u64 } from '../base/record/codec.ts';
import { cipherKeysCodec } from '../crypto/record.ts';
import type { CipherKeys } from '../crypto/types.ts';
import { SaCounter, type SaState } from './usage.ts';

export interface SavedSaState {
  readonly keys: CipherKeys;
  /** The last number that was used, or the highest that was authenticated. */
  readonly sequence: bigint;
  /** In the order of `SaCounter`, without `lastUsed`. */
  readonly counters: readonly number[];
  /** Milliseconds after the moment of the record: negative. */
  readonly lastUsed: number | undefined;
}

const COUNTERS = Object.values(SaCounter).filter((index) => index !== SaCounter.lastUsed);

export const savedSaStateCodec: Codec<SavedSaState> = record<SavedSaState>({
  keys: field(1, cipherKeysCodec),
  sequence: field(2, u64),
  counters: field(3, list(double)),
  lastUsed: optional(4, double),
});

/** @param at the moment of the record */
export function saveSaState({ counters, sequence }: SaState, keys: CipherKeys, at: number): SavedSaState {
  const lastUsed = counters[SaCounter.lastUsed]!;
  return {
    keys,
    sequence: (BigInt(sequence[0]!) << 32n) | BigInt(sequence[1]!),
    counters: COUNTERS.map((index) => counters[index]!),
    lastUsed: lastUsed < 0 ? undefined : lastUsed - at,
  };
}

/** Puts it into the state of an SA that is to be installed. @param at the moment of the record, on the clock of this process */
export function restoreSaState(saved: SavedSaState, { counters, sequence }: SaState, at: number): void {
  sequence[0] = Number(saved.sequence >> 32n);
  sequence[1] = Number(saved.sequence & 0xffff_ffffn);
  for (const [place, index] of COUNTERS.entries()) counters[index] = saved.counters[place] ?? 0;
  if (saved.lastUsed !== undefined) counters[SaCounter.lastUsed] = at + saved.lastUsed;
}
