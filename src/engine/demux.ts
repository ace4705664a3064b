/** IKE and ESP on one UDP port, told apart by the first bytes (RFC 3948 §2); without a port there is ESP alone. */

import { NO_PORT } from '../base/address.ts';
import { concatBytes, readI32 } from '../base/bytes.ts';
import { IKE_PORT } from '../base/ports.ts';

const NON_ESP_MARKER: Uint8Array = new Uint8Array(4);
/** A NAT keepalive is one byte of this value (RFC 3948 §2.3). */
const KEEPALIVE = 0xff;

export type DatagramKind = 'empty' | 'keepalive' | 'ike' | 'esp';

/** What a datagram to a local port carries. */
export function classify(localPort: number, data: Uint8Array): DatagramKind {
  if (data.length === 0) return 'empty';
  if (localPort === IKE_PORT) return 'ike';
  if (localPort === NO_PORT) return 'esp';
  if (data.length === 1 && data[0] === KEEPALIVE) return 'keepalive';
  return hasMarker(data) ? 'ike' : 'esp';
}

/** The IKE message in a datagram. */
export function stripMarker(localPort: number, data: Uint8Array): Uint8Array {
  return localPort === IKE_PORT ? data : data.subarray(NON_ESP_MARKER.length);
}

/** The datagram for an IKE message. */
export function addMarker(localPort: number, message: Uint8Array): Uint8Array {
  return localPort === IKE_PORT ? message : concatBytes(NON_ESP_MARKER, message);
}

function hasMarker(data: Uint8Array): boolean {
  return data.length >= NON_ESP_MARKER.length && readI32(data, 0) === 0;
}
