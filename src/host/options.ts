/** What a host is made with. */
import { randomFillSync } from 'node:crypto';
import type { IpAddress } from '../base/address.ts';
import type { Identity } from '../base/identity.ts';
import { secretBytes } from '../base/secret-bytes.ts';
import type { CryptoProvider, RandomSource } from '../crypto/types.ts';
import type { EngineEvent } from '../engine/events.ts';
import type { EngineOptions } from '../engine/options.ts';
import type { Inheritance } from '../engine/state/inheritance.ts';
import type { OwnerErrorHandler } from '../tun/owner-calls.ts';
import type { UdpNetwork } from '../tun/udp/udp.ts';
import type { AuthenticationOptions } from './authentication.ts';
import type { PeerRouteReport } from './reach/peer-routes.ts';

/**
 * What a secret is looked up by. The answer must be the key of that connection. With a key that is found by the identities
 * alone, a peer could prove with the key of one connection that it is the peer of another.
 */
export interface SecretQuestion {
  readonly tunnel: string;
  /** Of the tunnel; a tunnel may have several. */
  readonly connection: string;
  readonly localId: Identity;
  /** `undefined` until the peer has sent its identity. */
  readonly remoteId: Identity | undefined;
}

/** What a `TunnelHost` is made with. `network`, `crypto` and `secretFor` are required. */
export interface HostOptions extends AuthenticationOptions {
  readonly network: UdpNetwork;
  readonly crypto: CryptoProvider;
  /**
   * The pre-shared key of a tunnel; `undefined` when there is none, and zeros are none either. May take its time. The bytes
   * stay the program's, unchanged.
   */
  readonly secretFor: (question: SecretQuestion) => Uint8Array | undefined | Promise<Uint8Array | undefined>;
  /** Called when the bytes that `secretFor` gave have been read: a program that has no more use for them erases them now. */
  readonly onSecretRead?: ((secret: Uint8Array) => void) | undefined;
  /**
   * Called for every event of the engine but those that want an answer. `JSON.stringify` takes it: addresses, identities and
   * selectors are text then, SPIs hexadecimal digits.
   */
  readonly onEvent?: ((event: EngineEvent) => void) | undefined;
  /**
   * Told what a function of the program threw, `where` being its name: it changes nothing in the host. Left out: a warning of
   * the process, one in ten seconds.
   */
  readonly onError?: OwnerErrorHandler | undefined;
  /** The device of a tunnel was taken away. Left out: the tunnel is removed, and a `note` says so. */
  readonly onDeviceLost?: ((tunnel: string, reason: Error) => void) | undefined;
  /**
   * The local address from which packets to `remote` leave, for tunnels whose local address is `any`. Left out: the system
   * chooses it for each datagram, and to the peer we seem to be behind a NAT.
   */
  readonly localAddressFor?: (remote: IpAddress, vrf?: string) => IpAddress | undefined;
  /** How large IP packets from `local` to `remote` may be, as far as the system knows. */
  readonly pathMtuFor?: (remote: IpAddress, local?: IpAddress, vrf?: string) => number | undefined;
  /**
   * By which link and router packets from `local` to `remote` leave, in words; `undefined` when they do not. Asked when
   * `TunnelHost.networkChanged` is called.
   */
  readonly routeToPeer?: (remote: IpAddress, local?: IpAddress, vrf?: string) => string | undefined;
  /** Called when the route to a peer is lost, is there again, or has changed. */
  readonly onPeerRoute?: ((report: PeerRouteReport) => void) | undefined;
  readonly random?: RandomSource;
  /** Monotonic milliseconds. */
  readonly now?: () => number;
  readonly limits?: EngineOptions['limits'];
  /** Where batches get their memory: that of the devices, which work best in it. Default: the heap. */
  readonly allocate?: ((bytes: number) => Uint8Array) | undefined;
  readonly retransmit?: EngineOptions['retransmit'];
  /**
   * Packets are carried by worker threads, which open `crypto` again by its name (as `selectCrypto` made it): takes devices
   * and sockets of Linux's own. Left out: in the event loop.
   */
  readonly workers?: { readonly pairs: number } | undefined;
  /** Keys are kept for `handOver`. @internal */
  readonly resumable?: boolean | undefined;
  /** What the process before this one handed over. @internal */
  readonly inheritance?: (() => Inheritance | undefined) | undefined;
}

/** The part of it that the engine is made with. @internal */
export function engineOptions(
  { crypto, random = systemRandom, network, allocate, limits, retransmit, resumable = false }: HostOptions,
  localAddressFor: NonNullable<EngineOptions['localAddressFor']>,
): EngineOptions {
  return {
    ...{ crypto, random, localAddressFor, allocate, resumable },
    rawEsp: network.rawEsp !== undefined,
    ...(limits === undefined ? {} : { limits }),
    ...(retransmit === undefined ? {} : { retransmit }),
  };
}

/** Of the operating system, in memory that can be erased. */
export function systemRandom(length: number): Uint8Array {
  return randomFillSync(secretBytes(length));
}
