/** The functions of a program that has a host, so that the host can call them at any place. */
import type { IpAddress } from '../base/address.ts';
import type { EngineEvent } from '../engine/events.ts';
import { errorHandler, type OwnerErrorHandler, ownerCall } from '../tun/owner-calls.ts';
import type { HostOptions } from './options.ts';
import { withJson } from './plain-event.ts';

/** The same options, whose functions that only hear of something never throw; `onError` is always there. */
export function guarded(options: HostOptions): HostOptions & { readonly onError: OwnerErrorHandler } {
  const { onEvent, onPeerRoute, onSecretRead, onDeviceLost } = options;
  const onError = errorHandler(options.onError);
  return {
    ...options,
    onError,
    onEvent: onEvent && ownerCall('onEvent', (event: EngineEvent) => onEvent(withJson(event)), onError),
    onPeerRoute: onPeerRoute && ownerCall('onPeerRoute', onPeerRoute, onError),
    onSecretRead: onSecretRead && ownerCall('onSecretRead', onSecretRead, onError),
    onDeviceLost: onDeviceLost && ownerCall('onDeviceLost', onDeviceLost, onError),
  };
}

/** For hosts without a route look-up: the unspecified address, until a datagram of the peer shows the local one. */
export function unspecifiedFor({ family }: IpAddress): IpAddress {
  return { family, value: 0n };
}
