/** NAT detection (RFC 7296 §2.23): each side tells hashes of the end points as it sees them. */

import { addressToBytes, type SocketAddress } from '../../base/address.ts';
import { equalBytes } from '../../base/bytes.ts';
import { IKE_PORT } from '../../base/ports.ts';
import type { CryptoProvider, RandomSource } from '../../crypto/types.ts';
import { NotifyType } from './iana.ts';
import { ikeSpiBytes } from './message.ts';
import { findNotifies, findNotify, type Payload } from './payload.ts';
import { type NotifyPayload, notifyPayload } from './payloads/notify.ts';

export interface IkeSpis {
  readonly initiatorSpi: bigint;
  /** 0 in the first request, as in its header. */
  readonly responderSpi: bigint;
}

/** What the hashes of the peer say. */
export interface DetectedNat {
  /** Whether the peer sent both kinds of hash, so that NAT traversal is on. */
  readonly supported: boolean;
  /** Packets from us reach the peer with another source: we are behind a NAT and send keepalives. */
  readonly localBehindNat: boolean;
  /** Packets of the peer reach us with another source. */
  readonly remoteBehindNat: boolean;
}

export interface NatStatus extends DetectedNat {
  /** Encapsulation is forced: our source hash fits no address, so that the peer takes us to be behind a NAT. */
  readonly forced: boolean;
}

/** Of an IKE SA without NAT detection. */
export const NO_NAT: NatStatus = { supported: false, localBehindNat: false, remoteBehindNat: false, forced: false };

/** SHA-1(SPIi | SPIr | address | port) */
export function natDetectionHash(crypto: CryptoProvider, spis: IkeSpis, endPoint: SocketAddress): Uint8Array {
  const port = Uint8Array.of(endPoint.port >>> 8, endPoint.port);
  return crypto.sha1(
    ikeSpiBytes(spis.initiatorSpi),
    ikeSpiBytes(spis.responderSpi),
    addressToBytes(endPoint.address),
    port,
  );
}

const HASH_LENGTH = 20;

/**
 * The two notifies of an IKE_SA_INIT message of ours.
 * @param forced a random source when encapsulation is forced: the source hash then fits no address, so that both sides encapsulate
 */
export function natDetectionNotifies(
  crypto: CryptoProvider,
  spis: IkeSpis,
  local: SocketAddress,
  remote: SocketAddress,
  forced: RandomSource | undefined,
): NotifyPayload[] {
  const source = forced === undefined ? natDetectionHash(crypto, spis, local) : forced(HASH_LENGTH);
  return [
    notifyPayload(NotifyType.NAT_DETECTION_SOURCE_IP, source),
    notifyPayload(NotifyType.NAT_DETECTION_DESTINATION_IP, natDetectionHash(crypto, spis, remote)),
  ];
}

/** What goes out of this port, and comes in by it, is IKE alone: ESP in UDP has no place there (RFC 7296 §2.23). */
export function isIkeOnly({ port }: SocketAddress): boolean {
  return port === IKE_PORT;
}

/** Whether ESP may go in UDP: the peer has NAT traversal, as its hashes say, or our port is one for both. */
export function mayEncapsulate(localPort: number, payloads: readonly Payload[]): boolean {
  return localPort !== IKE_PORT || findNotify(payloads, NotifyType.NAT_DETECTION_SOURCE_IP) !== undefined;
}

/**
 * Compares the hashes in a message that came from `remote` to `local` with those end points. A peer with several
 * addresses sends a source hash for each; one that fits is enough.
 */
export function detectNat(
  crypto: CryptoProvider,
  spis: IkeSpis,
  local: SocketAddress,
  remote: SocketAddress,
  payloads: readonly Payload[],
): DetectedNat {
  const sources = findNotifies(payloads, NotifyType.NAT_DETECTION_SOURCE_IP);
  const destinations = findNotifies(payloads, NotifyType.NAT_DETECTION_DESTINATION_IP);
  if (sources.length === 0 || destinations.length === 0) {
    return { supported: false, localBehindNat: false, remoteBehindNat: false };
  }
  const fits = (notifies: readonly NotifyPayload[], endPoint: SocketAddress): boolean => {
    const hash = natDetectionHash(crypto, spis, endPoint);
    return notifies.some((notify) => equalBytes(notify.data, hash));
  };
  return {
    supported: true,
    localBehindNat: !fits(destinations, local),
    remoteBehindNat: !fits(sources, remote),
  };
}
