/**
 * Keeps the connections of tunnels up: negotiates them at once, for the first packet, and again when they went down, as each
 * tunnel is configured.
 *
 * `initiate` tries for ever, with back-off. `trap` negotiates when a packet needs an SA, and after a failure waits before the
 * next packet may cause an attempt. `respond` leaves it to the peer. After a dead peer, the tunnel's DPD action replaces its
 * start mode until all of it is up again.
 */
import { addressKey, formatAddress, type IpAddress } from '../base/address.ts';
import { assertNever } from '../base/assert.ts';
import type { ConnectionConfig } from '../ike/config.ts';
import type { IkeEndpoint } from '../ike/endpoint.ts';
import type { DownReason, FailureReason, IkeEvent } from '../ike/events.ts';
import type { InitiateOptions } from '../ike/initiate.ts';
import type { SelectorPair } from '../policy/selector.ts';
import type { DataPlane, PlaneReport } from './commands.ts';
import type { TunnelConfig } from './config.ts';
import type { ChildSummary, EngineEvent, LocalFailure } from './events.ts';
import { InitiationGate } from './initiation-gate.ts';
import type { ChildPlan, KeepUpMode, Tunnel } from './tunnel.ts';

type MissingSa = Extract<PlaneReport, { type: 'missing' }>;

export interface ConnectionKeeperOptions {
  readonly ike: IkeEndpoint;
  readonly plane: DataPlane;
  /** The local address from which packets to `remote` leave; asked when a connection names none. */
  readonly localAddressFor: (remote: IpAddress, vrf?: string) => IpAddress | undefined;
  readonly report: (event: EngineEvent) => void;
}

/** Replaced, or closed on request; and children that IKE reports down before it says why their IKE SA went down. */
const NO_LOSS: readonly DownReason[] = ['rekeyed', 'redundant', 'requested', 'ike-down'];

/** The peer was not reached, or was busy: packets may wait for the next attempt (RFC 4301 §5.1.1 (c)). */
const OUT_OF_REACH: readonly FailureReason[] = ['timeout', 'TEMPORARY_FAILURE'];

/** Milliseconds for which packets do not ask again for an SA that the peer refused. */
const REFUSED_FOR = 10_000;

/** SAs of one child that packets may ask for, not counting those that replace others. */
const MAX_CALLED_FOR = 256;

const MODES: Readonly<Record<TunnelConfig['start'], KeepUpMode>> = {
  initiate: 'always',
  trap: 'packet',
  respond: 'none',
};

export class ConnectionKeeper {
  readonly #options: ConnectionKeeperOptions;
  readonly #gate = new InitiationGate();

  constructor(options: ConnectionKeeperOptions) {
    this.#options = options;
  }

  /** The tunnel was started. */
  start(now: number, tunnel: Tunnel): void {
    tunnel.wanted = true;
    this.#setMode(tunnel, MODES[tunnel.config.start]);
    tunnel.retry.reset();
    if (tunnel.keepUp === 'always') this.initiateMissing(now, tunnel);
  }

  /** As if the tunnel were configured to `initiate`, until it is up. */
  bringUp(now: number, tunnel: Tunnel): void {
    tunnel.wanted = true;
    this.#setMode(tunnel, 'always');
    tunnel.retry.reset();
    this.initiateMissing(now, tunnel);
  }

  /** The tunnel is not wanted any more; the caller closes its SAs. */
  stop(tunnel: Tunnel): void {
    tunnel.wanted = false;
    for (const { name } of tunnel.config.connections) this.#gate.leave(name);
    tunnel.keepUp = 'none';
    tunnel.retry.reset();
    this.#options.plane.commandSender({ type: 'hold', tunnel: tunnel.index, hold: false, forget: true });
  }

  /** An outbound packet needs an SA that does not exist: its negotiation begins (RFC 4301 §4.4.1). */
  packetMissesSa(now: number, tunnel: Tunnel, plan: ChildPlan, { selectors, trigger }: MissingSa): void {
    // While an attempt is planned, packets do not advance it.
    if (tunnel.keepUp === 'none' || tunnel.retry.at !== undefined) return;
    const { name } = plan.child;
    if (tunnel.sasOf(name) >= MAX_CALLED_FOR) {
      this.#refuse(tunnel, [name], selectors ?? trigger, now + REFUSED_FOR);
      return;
    }
    this.#initiate(now, tunnel, plan.connection, { child: name, selectors, trigger });
  }

  /** The wait after a failure is over. */
  retryIfDue(now: number, tunnel: Tunnel): void {
    if (tunnel.retry.take(now)) this.#attempt(now, tunnel);
  }

  initiateMissing(now: number, tunnel: Tunnel): void {
    const connections = new Set(tunnel.wantedAgain().map(({ connection }) => connection));
    for (const connection of connections) {
      if (this.#initiate(now, tunnel, connection)) tunnel.wasAskedFor(connection);
    }
  }

  /** An IKE SA of the connection is up, is closed, or could not be negotiated. */
  settled(connection: string): void {
    this.#gate.leave(connection);
  }

  /** Whether an attempt of the tunnel waits until others are over. */
  awaitsTurn(tunnel: Tunnel): boolean {
    return tunnel.config.connections.some(({ name }) => this.#gate.isWaiting(name));
  }

  /** When the next turn is due, if no attempt is over before. */
  nextDeadline(): number | undefined {
    return this.#gate.nextDeadline();
  }

  /** Begins an attempt whose turn has come. Returns whether there was one. */
  takeTurn(now: number, tunnelOf: (connection: string) => Tunnel | undefined): boolean {
    const connection = this.#gate.next(now);
    if (connection === undefined) return false;
    const tunnel = tunnelOf(connection);
    if (tunnel === undefined) this.#gate.leave(connection);
    else this.#attempt(now, tunnel);
    return true;
  }

  /** What is missing, and what packets wait for. */
  #attempt(now: number, tunnel: Tunnel): void {
    if (tunnel.keepUp === 'always') this.initiateMissing(now, tunnel);
    // A trap waits for its next packet, unless packets wait already.
    if (tunnel.held > 0) this.#options.plane.commandSender({ type: 'ask-again', tunnel: tunnel.index });
  }

  /** An SA came up. When it was the last one missing, back-off and mode are reset. */
  cameUp(tunnel: Tunnel): void {
    if (!tunnel.complete) return;
    tunnel.retry.reset();
    if (tunnel.wanted) this.#setMode(tunnel, MODES[tunnel.config.start]);
  }

  /** An attempt of ours failed. */
  failed(now: number, tunnel: Tunnel, event: Extract<IkeEvent, { type: 'failed' }>): void {
    const { child, selectors, reason, connection } = event;
    if (reason === 'SINGLE_PAIR_REQUIRED' && selectors === undefined && tunnel.keepUp !== 'none') {
      // The peer accepts an SA for the addresses of one packet.
      this.#options.plane.commandSender({ type: 'ask-again', tunnel: tunnel.index });
      return;
    }
    if (event.again && tunnel.keepUp !== 'none') {
      tunnel.retry.planNow(now);
      return;
    }
    // The refusal of one SA of a child that has several says nothing about the others.
    if (selectors === undefined) this.#planAnother(now, tunnel, child);
    if (!tunnel.wanted || OUT_OF_REACH.includes(reason)) return;
    const until = selectors === undefined ? tunnel.retry.at : now + REFUSED_FOR;
    const plans = [...tunnel.plans].filter((plan) => plan.connection.name === connection);
    const names = child === undefined ? plans.map((plan) => plan.child.name) : [child];
    const without = names.filter((name) => selectors !== undefined || tunnel.sasOf(name) === 0);
    this.#refuse(tunnel, without, selectors, until ?? now);
  }

  #planAnother(now: number, tunnel: Tunnel, child: string | undefined): void {
    this.wentDown(now, tunnel, 'failed');
    // A child that waits for packets does not count as missing, but the attempt may have failed before the child's turn.
    const called = child === undefined && tunnel.complete && tunnel.children.size === 0;
    if (tunnel.wanted && called && tunnel.keepUp !== 'none') tunnel.retry.plan(now);
  }

  /** Packets for these children do not wait until then. */
  #refuse(tunnel: Tunnel, children: readonly string[], selectors: SelectorPair | undefined, until: number): void {
    if (children.length > 0) {
      this.#options.plane.commandSender({ type: 'refuse', tunnel: tunnel.index, children, selectors, until });
    }
  }

  /** A CHILD SA went down, perhaps the only one for its part of the child's packets. */
  childWentDown(now: number, tunnel: Tunnel, reason: DownReason, child: ChildSummary): void {
    const isLoss = tunnel.wanted && !NO_LOSS.includes(reason);
    if (isLoss && tunnel.keepUp === 'always' && tunnel.losesPart(child)) tunnel.retry.plan(now);
    this.wentDown(now, tunnel, reason);
  }

  /** An SA went down. */
  wentDown(now: number, tunnel: Tunnel, reason: DownReason): void {
    if (!tunnel.wanted || NO_LOSS.includes(reason) || tunnel.complete) return;
    if (reason === 'peer-dead') this.#setMode(tunnel, afterDeadPeer(tunnel));
    if (reason === 'path-lost' && tunnel.keepUp === 'always') tunnel.retry.planNow(now);
    else if (tunnel.keepUp === 'always' || (tunnel.keepUp === 'packet' && reason === 'failed')) tunnel.retry.plan(now);
  }

  /** Packets wait for an SA as long as this end will negotiate one. */
  #setMode(tunnel: Tunnel, mode: KeepUpMode): void {
    const hold = mode !== 'none';
    if (hold !== (tunnel.keepUp !== 'none')) {
      this.#options.plane.commandSender({ type: 'hold', tunnel: tunnel.index, hold, forget: false });
    }
    tunnel.keepUp = mode;
  }

  /**
   * Negotiates one child, or all that the connection lacks, when it is its turn. IKE ignores a call for what is under
   * negotiation already. Returns false when it could not begin.
   */
  #initiate(
    now: number,
    tunnel: Tunnel,
    connection: ConnectionConfig,
    what: Pick<InitiateOptions, 'child' | 'selectors' | 'trigger'> = {},
  ): boolean {
    const { ike, localAddressFor, report } = this.#options;
    const { address } = connection.remote;
    if (address === undefined) return false;
    const fail = (reason: LocalFailure, detail: string): false => {
      const remote = { address, port: connection.remote.port };
      report({ type: 'failed', tunnel: tunnel.config.name, child: what.child, reason, detail, remote });
      this.#gate.leave(connection.name);
      tunnel.retry.plan(now);
      return false;
    };
    const { port, vrf } = connection.local;
    const source = connection.local.address ?? localAddressFor(address, vrf);
    if (source === undefined) {
      return fail('no-route', `this host has no route to ${formatAddress(address)}`);
    }
    // One that is up, or coming up, needs no new IKE SA.
    const isNew = ike.status(connection.name).length === 0;
    if (isNew && !this.#gate.enter(now, connection.name, addressKey(address))) return true;
    try {
      ike.initiate(now, connection.name, { ...what, local: { address: source, port, vrf } });
    } catch (error) {
      // The table of IKE SAs is full, or the families of the addresses differ: other tunnels go on.
      if (!(error instanceof RangeError)) throw error;
      return fail('not-possible', error.message);
    }
    return true;
  }
}

/** As the tunnel was started, unless its document says otherwise. */
function afterDeadPeer({ config, keepUp }: Tunnel): KeepUpMode {
  switch (config.dpdAction) {
    case 'restart':
      return 'always';
    case 'trap':
      return 'packet';
    case 'clear':
      return keepUp === 'always' ? 'none' : keepUp;
    default:
      return assertNever(config.dpdAction, 'DPD action');
  }
}
