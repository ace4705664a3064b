/** Configuration payload (RFC 7296 §3.15). */
import type { ByteReader, ByteWriter } from '../../../base/bytes.ts';
import { ConfigAttribute } from '../iana.ts';

export interface ConfigPayload {
  readonly type: 'cp';
  /** One of `ConfigType`, or what the peer sent. */
  readonly configType: number;
  readonly attributes: readonly ConfigAttributeValue[];
}

export interface ConfigAttributeValue {
  /** One of `ConfigAttribute`, or what the peer sent. */
  readonly type: number;
  /** Empty in a request that leaves the value to the other side. */
  readonly data: Uint8Array;
}

/** Lengths of attributes that are not empty (RFC 7296 §3.15.1); those not named here have any. */
const FIXED_LENGTH: ReadonlyMap<number, number> = new Map([
  [ConfigAttribute.INTERNAL_IP4_ADDRESS, 4],
  [ConfigAttribute.INTERNAL_IP4_NETMASK, 4],
  [ConfigAttribute.INTERNAL_IP4_DNS, 4],
  [ConfigAttribute.INTERNAL_IP4_NBNS, 4],
  [ConfigAttribute.INTERNAL_IP4_DHCP, 4],
  [ConfigAttribute.INTERNAL_IP6_ADDRESS, 17],
  [ConfigAttribute.INTERNAL_IP6_DNS, 16],
  [ConfigAttribute.INTERNAL_IP6_DHCP, 16],
  [ConfigAttribute.INTERNAL_IP4_SUBNET, 8],
  [ConfigAttribute.INTERNAL_IP6_SUBNET, 17],
]);

/** Top bit of an attribute's type is reserved and ignored (RFC 7296 §3.15.1). */
const TYPE_MASK = 0x7fff;
/** Several times what peers ask for, or are given: addresses, name servers and subnets. */
const MAX_ATTRIBUTES = 256;

export function decodeConfig(reader: ByteReader): ConfigPayload {
  const configType = reader.u8();
  reader.skip(3);
  const attributes: ConfigAttributeValue[] = [];
  while (reader.remaining > 0) {
    if (attributes.length === MAX_ATTRIBUTES) reader.fail('too-many', `more than ${MAX_ATTRIBUTES} attributes in CP`);
    const type = reader.u16() & TYPE_MASK;
    const data = reader.bytes(reader.u16());
    const fixed = FIXED_LENGTH.get(type);
    const fits =
      type === ConfigAttribute.SUPPORTED_ATTRIBUTES
        ? data.length % 2 === 0
        : fixed === undefined || data.length === 0 || data.length === fixed;
    if (!fits) reader.fail('bad-length', `${data.length} bytes in configuration attribute ${type}`);
    attributes.push({ type, data });
  }
  return { type: 'cp', configType, attributes };
}

export function encodeConfig(writer: ByteWriter, payload: ConfigPayload): void {
  writer.u8(payload.configType);
  writer.zeros(3);
  for (const attribute of payload.attributes) {
    writer.u16(attribute.type);
    writer.u16(attribute.data.length);
    writer.bytes(attribute.data);
  }
}
