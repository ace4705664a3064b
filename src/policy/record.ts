/** Traffic selectors as they stand in records (`base/record/codec.ts`). */
import type { AddressRange } from '../base/address.ts';
import { type Codec, field, list, record, u16 } from '../base/record/codec.ts';
import { addressCodec } from '../base/record/values.ts';
import type { SelectorPair, TrafficSelector } from './selector.ts';
import type { HostPair, TransportHosts } from './transport.ts';

const selectorCodec: Codec<TrafficSelector> = record<TrafficSelector>({
  protocol: field(1, u16),
  startPort: field(2, u16),
  endPort: field(3, u16),
  range: field(4, record<AddressRange>({ start: field(1, addressCodec), end: field(2, addressCodec) })),
});

export const selectorPairCodec: Codec<SelectorPair> = record<SelectorPair>({
  local: field(1, list(selectorCodec)),
  remote: field(2, list(selectorCodec)),
});

const hostFields = { local: field(1, addressCodec), remote: field(2, addressCodec) };

/** The hosts of an SA in transport mode. */
export const transportHostsCodec: Codec<TransportHosts> = record<TransportHosts>({
  ...hostFields,
  asPeerHasThem: field(3, record<HostPair>(hostFields)),
});
