/** Whether a host's peers can be reached, as far as the host can tell: routes to them, refused datagrams, silence of IKE or ESP. */
import { setImmediate } from 'node:timers/promises';
import type { IpAddress, SocketAddress } from '../../base/address.ts';
import { messageOf } from '../../base/text.ts';
import type { ControlPlane } from '../../engine/control-plane.ts';
import type { EngineEvent } from '../../engine/events.ts';
import type { UdpNetwork, UdpSendError } from '../../tun/udp/udp.ts';
import type { HostOptions } from '../options.ts';
import { BareChildren } from './bare-children.ts';
import { BareEsp } from './bare-esp.ts';
import { childTargets, notePeerRoute, peerRouteTargets, sendTargets } from './peer-route-targets.ts';
import { type PeerRouteReport, PeerRoutes } from './peer-routes.ts';
import { SendRefusals, type SendTarget } from './send-refusals.ts';
import { SilentPeers } from './silent-peers.ts';
import { type ChildTarget, type NewestChildren, newest, UnheardChildren } from './unheard-children.ts';

/** Milliseconds between two checks for silence. */
const LOOK = 2_500;
/** The least pause after a check, as a multiple of how long it took. */
const PAUSE_FACTOR = 200;
/** Tunnels that are looked at before the event loop has its turn. */
const TUNNELS_PER_TURN = 250;

export interface ReachOptions {
  readonly routeToPeer: HostOptions['routeToPeer'];
  readonly onPeerRoute: HostOptions['onPeerRoute'];
  readonly engine: ControlPlane;
  /** Names of the tunnels that run. */
  readonly tunnels: () => Iterable<string>;
  readonly now: () => number;
  /** Makes the counters of CHILD SAs up to date. */
  readonly refresh: () => void;
  readonly rawEsp: UdpNetwork['rawEsp'];
  /** Carries out what the engine wants done. */
  readonly drain: () => void;
  readonly sourceFor: (remote: IpAddress) => IpAddress | undefined;
  /** The system could not be asked. */
  readonly onRefused: (text: string) => void;
}

export class Reach {
  readonly #options: ReachOptions;
  /** `undefined` where the platform cannot be asked for routes. */
  readonly #routes: PeerRoutes | undefined;
  readonly #refusals: SendRefusals;
  readonly #silent: SilentPeers;
  readonly #unheard: UnheardChildren;
  readonly #bareChildren: BareChildren;
  readonly #bare: BareEsp<ChildTarget>;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: ReachOptions) {
    this.#options = options;
    this.#routes = this.#watchPeerRoutes();
    this.#refusals = new SendRefusals({
      targets: () => sendTargets(options.engine, options.tunnels()),
      now: options.now,
      probe: (ikeSa) => this.#act((now) => options.engine.probeIkeSa(now, ikeSa)),
      report: (report) => options.onPeerRoute?.(report),
    });
    this.#silent = new SilentPeers({
      report: (report) => options.onPeerRoute?.(report),
      explained: (tunnel) => this.#explained(tunnel).length > 0,
    });
    const children = {
      targets: (tunnel: string) => childTargets(options.engine, [tunnel]),
      report: (report: PeerRouteReport) => options.onPeerRoute?.(report),
    };
    this.#bareChildren = new BareChildren(children);
    this.#unheard = new UnheardChildren({
      ...children,
      explained: (tunnel) => this.degraded(tunnel).length > 0,
    });
    this.#bare = new BareEsp(options.rawEsp, (child: ChildTarget) => this.#unheard.cameBare(child));
    this.#planLook(LOOK);
  }

  /** Addresses, links or routes of the system changed. */
  networkChanged(): void {
    this.#routes?.changed();
  }

  /** A datagram of IKE or ESP was refused. */
  refused(remote: SocketAddress, error: UdpSendError): void {
    this.#refusals.refused(remote, error);
  }

  added(tunnel: string): void {
    if (this.#routes === undefined) return;
    for (const target of peerRouteTargets(this.#options.engine, [tunnel])) this.#routes.note(target);
  }

  happened(event: EngineEvent): void {
    if (this.#routes !== undefined) notePeerRoute(this.#routes, this.#options.engine, event);
  }

  forget(tunnel: string): void {
    this.#routes?.forget(tunnel);
    this.#refusals.forget(tunnel);
    this.#silent.forget(tunnel);
  }

  /** What keeps a tunnel from its peers, or its packets, a sentence each. */
  degraded(tunnel: string): string[] {
    return [...this.#explained(tunnel), ...this.#silent.degraded(tunnel), ...this.#bareChildren.degraded(tunnel)];
  }

  /** CHILD SAs of a tunnel by which packets are sent and none has come, a sentence each. */
  nothingReceived(tunnel: string): string[] {
    return this.#unheard.of(tunnel);
  }

  #planLook(pause: number): void {
    this.#timer = setTimeout(() => void this.#look(), pause).unref();
  }

  /** Of many tunnels, in slices and less often: it never takes more than a two-hundredth of the time. */
  async #look(): Promise<void> {
    const { engine, tunnels, refresh } = this.#options;
    let took = 0;
    const timed = (work: () => void): void => {
      const began = performance.now();
      work();
      took += performance.now() - began;
    };
    const now = this.#options.now();
    const peers: SendTarget[] = [];
    const children: ChildTarget[] = [];
    timed(refresh);
    const names = [...tunnels()];
    for (let at = 0; at < names.length; at += TUNNELS_PER_TURN) {
      if (at > 0) await setImmediate();
      if (this.#closed) return;
      timed(() => {
        const some = names.slice(at, at + TUNNELS_PER_TURN);
        peers.push(...sendTargets(engine, some));
        children.push(...childTargets(engine, some));
      });
    }
    timed(() => this.#check(now, peers, newest(children)));
    this.#planLook(Math.max(LOOK, took * PAUSE_FACTOR));
  }

  #check(now: number, peers: readonly SendTarget[], children: NewestChildren): void {
    this.#silent.check(now, peers);
    this.#unheard.check(now, children);
    this.#bareChildren.check(children);
    this.#bare.watch(this.#unheard.missing(children));
  }

  #explained(tunnel: string): string[] {
    return [...(this.#routes?.degraded(tunnel) ?? []), ...this.#refusals.degraded(tunnel)];
  }

  close(): void {
    this.#routes?.close();
    this.#refusals.close();
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#bare.close();
  }

  #watchPeerRoutes(): PeerRoutes | undefined {
    const { engine, tunnels, routeToPeer, sourceFor, onPeerRoute, onRefused } = this.#options;
    if (routeToPeer === undefined) return undefined;
    return new PeerRoutes({
      targets: () => peerRouteTargets(engine, tunnels()),
      routeToPeer,
      sourceFor,
      probe: (ikeSa) => this.#act((now) => engine.probeIkeSa(now, ikeSa)),
      restart: (ikeSa, detail) => this.#act((now) => engine.pathLost(now, ikeSa, detail)),
      retry: (tunnel) => this.#act((now) => engine.retryNow(now, tunnel)),
      report: (report) => onPeerRoute?.(report),
      refused: (error) => onRefused(`the system could not be asked for a route: ${messageOf(error)}`),
    });
  }

  #act(action: (now: number) => void): void {
    action(this.#options.now());
    this.#options.drain();
  }
}
