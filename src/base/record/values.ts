/** Addresses and identities as they stand in records (`codec.ts`). */
import { addressFromBytes, addressToBytes, type IpAddress, type SocketAddress } from '../address.ts';
import type { Identity } from '../identity.ts';
import { bytes, type Codec, field, optional, record, text, u16 } from './codec.ts';

/** 4 or 16 bytes. */
export const addressCodec: Codec<IpAddress> = {
  write: (writer, address) => writer.bytes(addressToBytes(address)),
  read: (reader) => {
    const value = reader.rest();
    if (value.length !== 4 && value.length !== 16) reader.fail('bad-length', `an address of ${value.length} bytes`);
    return addressFromBytes(value);
  },
};

export const socketAddressCodec: Codec<SocketAddress> = record<SocketAddress>({
  address: field(1, addressCodec),
  port: field(2, u16),
  vrf: optional(3, text),
});

export const identityCodec: Codec<Identity> = record<Identity>({ type: field(1, u16), data: field(2, bytes) });
