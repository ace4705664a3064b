/** Addresses, identities and errors: values that several entries speak of, and export. */
export {
  type AddressRange,
  addressFromBytes,
  addressToBytes,
  anyRange,
  formatAddress,
  formatRange,
  formatSocketAddress,
  type IpAddress,
  type IpFamily,
  parseAddress,
  prefixRange,
  type SocketAddress,
} from '../base/address.ts';
export { type ErrorCode, SectunnelError } from '../base/error.ts';
export { formatIdentity, type Identity, type IdentityTextType, identityFromText } from '../base/identity.ts';
export { utf8 } from '../base/text.ts';
