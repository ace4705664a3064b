/** The state of an engine as a record: the SAs with which another process goes on (`docs/state.md`). */
import { ByteReader, ByteWriter } from '../../base/bytes.ts';
import { type Codec, double, field, list, record } from '../../base/record/codec.ts';
import { type SavedIkeSa, savedIkeSaCodec } from '../../ike/state/ike-sa.ts';
import { type SavedEspSa, savedEspSaCodec } from './esp-sa.ts';

export interface SavedEngine {
  /** Milliseconds of the clock of the owner, which must be that of the next one, too. */
  readonly at: number;
  readonly ikeSas: readonly SavedIkeSa[];
  readonly espSas: readonly SavedEspSa[];
}

const savedEngineCodec: Codec<SavedEngine> = record<SavedEngine>({
  at: field(1, double),
  ikeSas: field(2, list(savedIkeSaCodec)),
  espSas: field(3, list(savedEspSaCodec)),
});

/** Bytes that contain keys, in memory that can be erased. */
export function encodeState(state: SavedEngine): Uint8Array {
  const writer = new ByteWriter(4096);
  savedEngineCodec.write(writer, state);
  return writer.finish();
}

/** The keys in it are views of the bytes. @throws DecodeError for what is no record */
export function decodeState(bytes: Uint8Array): SavedEngine {
  return savedEngineCodec.read(new ByteReader(bytes));
}
