/**
 * The IKE endpoint (RFC 7296): all connections and IKE SAs of one host, as a machine without I/O. Bytes, the time and
 * secrets go in; datagrams, events and the next wake-up come out.
 *
 * After every call the owner drains `pollTransmit` and `pollEvent` and looks at `nextTimeout` again.
 */
import type { SocketAddress } from '../base/address.ts';
import type { ConnectionConfig } from './config.ts';
import type { IkeEvent, Path } from './events.ts';
import type { IkeEndpointOptions } from './options.ts';
import type { IkeCounters, IkeSaStatus } from './status.ts';

export interface Transmit {
  readonly path: Path;
  /** Without the non-ESP marker, which the owner puts before it on every port but 500 (RFC 7296 §2.23). */
  readonly data: Uint8Array;
  /** A NAT keepalive (RFC 3948 §4): goes out as it is, never with a marker. */
  readonly keepalive: boolean;
}

export interface InitiateOptions {
  /** Only this child; all of the connection when left out. */
  readonly child?: string | undefined;
  readonly local?: SocketAddress | undefined;
  readonly remote?: SocketAddress | undefined;
}

export class IkeEndpoint {
  constructor(_options: IkeEndpointOptions) {}

  /** @throws RangeError when the name is taken. */
  addConnection(_config: ConnectionConfig): void {}

  /** Running SAs stay as they are; what is negotiated from now on follows the new configuration. @throws RangeError */
  replaceConnection(_config: ConnectionConfig): void {}

  /** Closes its SAs and forgets it. */
  removeConnection(_now: number, _name: string): void {}

  /**
   * Brings up the IKE SA and its children, or the children that are missing when the IKE SA is up.
   * @throws RangeError for an unknown connection or child, or when there is no address to go to
   */
  initiate(_now: number, _connection: string, _options: InitiateOptions = {}): void {}

  closeConnection(_now: number, _name: string): void {}
  closeIkeSa(_now: number, _ikeSaId: number): void {}
  closeChild(_now: number, _childId: number): void {}
  rekeyIkeSa(_now: number, _ikeSaId: number): void {}
  rekeyChild(_now: number, _childId: number): void {}

  /** Takes a datagram, without its non-ESP marker, from anybody. Never throws, whatever the bytes. */
  handleDatagram(_now: number, _path: Path, _data: Uint8Array): void {}

  handleTimeout(_now: number): void {}

  /** When `handleTimeout` must be called, `undefined` when nothing is waited for. */
  nextTimeout(): number | undefined {
    return undefined;
  }

  pollTransmit(): Transmit | undefined {
    return undefined;
  }

  pollEvent(): IkeEvent | undefined {
    return undefined;
  }

  /** Answers `need-secret`; `undefined` when there is none. The bytes are not kept beyond the call. */
  answerSecret(_now: number, _requestId: number, _secret: Uint8Array | undefined): void {}

  /** ESP reports that the SA with our inbound SPI reached its soft limit of bytes or packets. */
  childSoftExpired(_now: number, _spiIn: number): void {}
  /** … its hard limit. */
  childHardExpired(_now: number, _spiIn: number): void {}
  /** ESP reports an authentic, new packet; `path` when it came by another way than the SA's. */
  childReceived(_now: number, _spiIn: number, _path?: Path): void {}

  status(): readonly IkeSaStatus[] {
    return [];
  }

  counters(): IkeCounters {
    throw new Error('bug: counters are not there yet');
  }
}
