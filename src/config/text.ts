/** How values of a document are written in it. */
import { formatAddress } from '../base/address.ts';
import type { PeerAddress, RuleLevel } from './model.ts';

export function levelText(level: RuleLevel): string {
  return level.kind === 'unique' && level.group !== undefined ? `unique:${level.group}` : level.kind;
}

export function peerAddressText(address: PeerAddress): string {
  switch (address.kind) {
    case 'any':
      return 'any';
    case 'ip':
      return formatAddress(address.address);
    case 'fqdn':
      return address.name;
  }
}
