/** What another process needs to go on with the two halves of a CHILD SA. */
import { type Codec, double, field, record, u32 } from '../../base/record/codec.ts';
import { type SavedSaState, savedSaStateCodec } from '../../esp/record.ts';

export interface SavedEspSa {
  /** The SPI that we receive on, by which IKE's part of the record is found. */
  readonly spiIn: number;
  /** Milliseconds after the moment of the record: negative. */
  readonly installedAt: number;
  readonly received: SavedSaState;
  readonly sent: SavedSaState;
}

export const savedEspSaCodec: Codec<SavedEspSa> = record<SavedEspSa>({
  spiIn: field(1, u32),
  installedAt: field(2, double),
  received: field(3, savedSaStateCodec),
  sent: field(4, savedSaStateCodec),
});
