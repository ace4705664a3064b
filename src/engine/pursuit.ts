/**
 * Bringing tunnels up: at once, for the first packet, and again when they went down, as each is configured.
 *
 * `initiate` is pursued for ever, with back-off. `trap` negotiates for a packet, and after a failure waits before the next
 * packet may ask again. `respond` is left to the peer.
 */
import { formatAddress, type IpAddress } from '../base/address.ts';
import type { ConnectionConfig } from '../ike/config.ts';
import type { IkeEndpoint } from '../ike/endpoint.ts';
import type { DownReason } from '../ike/events.ts';
import type { EngineEvent } from './events.ts';
import type { ChildPlan, Tunnel } from './tunnel.ts';

export interface PursuitOptions {
  readonly ike: IkeEndpoint;
  /** The local address from which packets to `remote` leave; asked when a connection names none. */
  readonly localAddressFor: (remote: IpAddress) => IpAddress | undefined;
  readonly report: (event: EngineEvent) => void;
}

/** Replaced, or as we asked; and what IKE reports of the children before it says why the IKE SA went down. */
const NO_LOSS: readonly DownReason[] = ['rekeyed', 'redundant', 'requested', 'ike-down'];

export class Pursuit {
  readonly #options: PursuitOptions;

  constructor(options: PursuitOptions) {
    this.#options = options;
  }

  /** The tunnel was started. */
  begin(now: number, tunnel: Tunnel): void {
    tunnel.wanted = true;
    tunnel.retry.reset();
    if (tunnel.config.start === 'initiate') this.initiateMissing(now, tunnel);
  }

  /** The tunnel is wanted no more; its SAs are the caller's to close. */
  end(tunnel: Tunnel): void {
    tunnel.wanted = false;
    tunnel.retry.reset();
    tunnel.hold.clear();
  }

  /** An outbound packet needs an SA that is not there: it waits, and the negotiation begins (RFC 4301 §4.4.1). */
  packetMissesSa(now: number, tunnel: Tunnel, { connection, child }: ChildPlan, packet: Uint8Array): void {
    const { start } = tunnel.config;
    if (!tunnel.wanted || start === 'respond') return;
    tunnel.hold.add(now, packet);
    if (start === 'trap' && tunnel.retry.at === undefined) this.#initiate(now, tunnel, connection, child.name);
  }

  /** The wait after a failure is over. */
  retryIfDue(now: number, tunnel: Tunnel): void {
    if (tunnel.retry.take(now) && this.#goesOn(tunnel)) this.initiateMissing(now, tunnel);
  }

  initiateMissing(now: number, tunnel: Tunnel): void {
    const connections = new Set(tunnel.missing().map(({ connection }) => connection));
    for (const connection of connections) this.#initiate(now, tunnel, connection);
  }

  /** An SA went down, or did not come up. */
  wentDown(now: number, tunnel: Tunnel, reason: DownReason): void {
    if (!tunnel.wanted || NO_LOSS.includes(reason)) return;
    const { start, dpdAction } = tunnel.config;
    if (reason === 'peer-dead') {
      if (dpdAction === 'restart') tunnel.retry.plan(now);
    } else if (start === 'initiate' || (start === 'trap' && reason === 'failed')) {
      tunnel.retry.plan(now);
    }
  }

  /** A trap waits for its next packet, unless packets wait already or a dead peer is to be called again. */
  #goesOn({ config, hold }: Tunnel): boolean {
    return config.start === 'initiate' || config.dpdAction === 'restart' || hold.length > 0;
  }

  /** One child, or all that the connection lacks. IKE takes another call for what is under negotiation as the same. */
  #initiate(now: number, tunnel: Tunnel, connection: ConnectionConfig, child?: string): void {
    const { ike, localAddressFor, report } = this.#options;
    const { address } = connection.remote;
    if (address === undefined) return;
    const source = connection.local.address ?? localAddressFor(address);
    if (source !== undefined) {
      ike.initiate(now, connection.name, { child, local: { address: source, port: connection.local.port } });
      return;
    }
    report({
      type: 'failed',
      tunnel: tunnel.config.name,
      child,
      reason: 'no-route',
      detail: `this host has no route to ${formatAddress(address)}`,
      remote: { address, port: connection.remote.port },
    });
    tunnel.retry.plan(now);
  }
}
