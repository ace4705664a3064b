/**
 * The way of a packet through this host, in the order of the kernel's hooks: what other programs do before it is routed, the
 * route, our fences, and what other programs do after that. Whatever stops or readdresses it is an obstacle.
 */
import { type IpAddress, parseAddress, prefixRange, rangeContains, sameAddress } from '../base/address.ts';
import type { TunnelFence } from '../hostnet/fence/fence.ts';
import type { BaseChain, Hook } from '../hostnet/filters/listing.ts';
import type { Finding } from '../hostnet/filters/walk.ts';
import type { ForeignTables } from '../hostnet/foreign/tables.ts';
import { OWN_PROTOCOL } from '../hostnet/routes/routes.ts';
import type { HostView } from '../hostnet/view.ts';
import type { FilterExplanation } from './explanation.ts';
import { markOf } from './fence.ts';
import { type FencePoint, fenceObstacle, isHeldLink, keepsSource } from './fences.ts';
import { FilterPath, hookPacket, newSources, obstacleOf } from './filters.ts';
import { explainRoute, type HostRoute, isOfHost, type Origin, originOf, routeOf } from './host-route.ts';
import type { Obstacle } from './obstacle.ts';
import { type CameOut, exposure, lostSource, refusedOnward } from './onward.ts';
import { type AskedPacket, readdressed } from './packet.ts';

export interface PathQuestion {
  readonly view: HostView;
  /** `undefined` where no kernel filters packets. */
  readonly foreign: ForeignTables | undefined;
  /** The tunnel of the question, and its device while it is active. */
  readonly name: string;
  readonly device: string | undefined;
  /** For what came out of the tunnel. */
  readonly cameOut: CameOut | undefined;
  /** As it stands around the tunnel. */
  readonly fence: TunnelFence | undefined;
  readonly packet: AskedPacket;
  /** Whether the policy does with another packet what it does with this one. */
  readonly isTreatedAlike: (packet: AskedPacket) => boolean;
}

export interface Path {
  readonly route: HostRoute;
  /** The host's own, about to leave by no tunnel. */
  readonly inClear: boolean;
  /** In the order in which the packet meets them. */
  readonly obstacles: readonly Obstacle[];
  /** What certainly stops or readdresses it before it is routed. */
  readonly early: Obstacle | undefined;
  /** Changes that make no difference. */
  readonly notes: readonly string[];
  readonly otherFence: string | undefined;
  readonly filters: FilterExplanation | undefined;
}

export function tracePath(question: PathQuestion): Path {
  return new PathTracer(question).trace();
}

/** Of chains behind our own that keeps sources as they are (`TRANSLATION` in fence/nft.ts). */
const KEPT_PRIORITY = 90;

/** No link has such a name. */
const NOWHERE = '/';

class PathTracer {
  readonly #question: PathQuestion;
  readonly #origin: Origin;
  readonly #filters: FilterPath | undefined;
  readonly #obstacles: Obstacle[] = [];
  readonly #notes: string[] = [];
  /** The packet after all changes so far. */
  #packet: AskedPacket;
  /** The mark by which it is routed. */
  #mark: number;
  /** Whether its destination was replaced; `undefined`: possibly. */
  #redirected: boolean | undefined = false;
  #stopped = false;

  constructor(question: PathQuestion) {
    const { view, foreign, packet, device, cameOut } = question;
    this.#question = question;
    this.#packet = packet;
    this.#origin = originOf(view.routing, packet, cameOut && device);
    this.#filters = foreign && new FilterPath(foreign);
    this.#mark = ownMark(question);
  }

  trace(): Path {
    const { own } = this.#origin;
    // The host's own packets are routed before the output hook, and may be routed again after it.
    this.#pass(own ? 'output' : 'prerouting', own ? (this.#findRoute().link ?? '') : '');
    const route = this.#route();
    const early = this.#obstacles.find(({ certain }) => certain);
    const point = this.#pointOf(route);
    let otherFence: Obstacle | undefined;
    if (!this.#stopped && (route.toHost || route.link !== undefined)) {
      otherFence = this.#askFences(point);
      if (route.toHost && !own) this.#pass('input', '');
      if (!route.toHost && !own) this.#pass('forward', point.outputLink);
      if (!route.toHost) this.#leave(point);
    }
    this.#askOnward(route);
    return {
      route,
      inClear: point.inClear,
      obstacles: this.#obstacles,
      early,
      notes: this.#notes,
      otherFence: (otherFence ?? this.#askNetworks(route))?.verdict,
      filters: this.#filters?.explain(),
    };
  }

  get #inputLink(): string {
    return this.#origin.own ? '' : this.#origin.cameBy;
  }

  #findRoute(): HostRoute {
    const { view, device } = this.#question;
    return explainRoute(view.routing, this.#packet, this.#origin, device, this.#routeMark());
  }

  #routeMark(): number | undefined {
    return this.#mark === 0 ? undefined : this.#mark;
  }

  /** Whether what came out of the tunnel, and nothing stopped, leaves in the clear; whether replies to what goes in come back. */
  #askOnward({ link, reachesTunnel }: HostRoute): void {
    const { cameOut, view, device } = this.#question;
    if (link === undefined || this.#stopped) return;
    if (cameOut === undefined) {
      const lost = reachesTunnel && !this.#origin.own ? lostSource(view.routing, this.#packet, device!) : undefined;
      if (lost !== undefined) this.#obstacles.push(lost);
      return;
    }
    const route = routeOf(view.routing, this.#packet, this.#origin, this.#routeMark());
    const found = route && exposure(view.routing, cameOut, this.#packet.destination, { route, link });
    if (found !== undefined) this.#obstacles.push(found);
  }

  /** Also for a packet that was stopped before: the answer says where it would go. */
  #route(): HostRoute {
    const route = this.#findRoute();
    const { view, packet } = this.#question;
    const off = this.#origin.own || route.toHost ? undefined : forwardingOff(view, this.#packet, this.#origin.cameBy);
    if (off !== undefined) {
      this.#stop('this host does not forward it', `this host does not forward packets that arrive on ${off}`);
      return {
        ...route,
        text: `in by ${this.#origin.cameBy}, and this host does not forward`,
        link: undefined,
        reachesTunnel: false,
      };
    }
    for (const rule of route.doubtful) {
      const verdict = 'a routing rule with a condition that is not known here may send it another way';
      this.#obstacles.push({ effect: 'lead', certain: false, verdict, warning: `${verdict}: ${rule}` });
    }
    if (route.refusedOnward) this.#refuse(refusedOnward(this.#origin.cameBy, route.rule!));
    else if (route.refusal === 'no-route' && packet.direction === 'in')
      this.#stop('no route leads on from there', route.text);
    if (route.refusal === 'source') {
      const filter = reversePathFilter(view, packet, this.#origin.cameBy);
      if (filter === undefined) this.#stop('this host accepts no packets with this source on that link', route.text);
      else
        this.#stop(
          'a reverse path filter drops it',
          `${route.text}: the route back leaves by another link (${filter})`,
        );
    }
    return route;
  }

  #pointOf({ link, toHost }: HostRoute): FencePoint {
    const { view, device } = this.#question;
    const { routing, fences = new Map() } = view;
    const index = this.#origin.inputLinkIndex;
    const { destination } = this.#packet;
    const toInputLink =
      index !== undefined && routing.addresses(index).some(({ address }) => sameAddress(address, destination));
    const outputLink = toHost ? '' : (link ?? '');
    const isHeld = outputLink === device || isHeldLink(fences, outputLink);
    const inClear = this.#origin.own && outputLink !== '' && !isHeld;
    return { inputLink: this.#inputLink, outputLink, toInputLink, inClear };
  }

  /** No fence applies to what the host sends to itself. */
  #askFences(point: FencePoint): Obstacle | undefined {
    const { view, name } = this.#question;
    if (view.fences === undefined || (point.inputLink === '' && point.outputLink === '')) return undefined;
    const found = fenceObstacle(view.fences, this.#packet, point, name);
    if (found !== undefined) this.#obstacles.push(found);
    return found;
  }

  /** What a network's fence would do with a packet that has no route. */
  #askNetworks({ link, toHost }: HostRoute): Obstacle | undefined {
    const { view, name } = this.#question;
    if (link !== undefined || toHost || this.#origin.own) return undefined;
    const networks = new Map([...(view.fences ?? [])].filter(([, { kind }]) => kind === 'bridge'));
    const point = { inputLink: this.#inputLink, outputLink: NOWHERE, toInputLink: false, inClear: false };
    return fenceObstacle(networks, this.#packet, point, name);
  }

  /** The source is translated last, and our fence checks the packet once more after it. */
  #leave(point: FencePoint): void {
    if (this.#stopped) return;
    const { fences } = this.#question.view;
    const kept = fences !== undefined && keepsSource(fences, point);
    const before = this.#packet;
    this.#pass(
      'postrouting',
      point.outputLink,
      ({ type, priority }) => !kept || type !== 'nat' || priority < KEPT_PRIORITY,
    );
    if (this.#packet !== before && !this.#stopped) this.#askFences({ ...point, inClear: false });
  }

  #pass(hook: Hook, outputLink: string, asks?: (base: BaseChain) => boolean): void {
    if (this.#filters === undefined || this.#stopped) return;
    const toHost = isOfHost(this.#question.view.routing, this.#packet.destination);
    const links = { inputLink: this.#inputLink, outputLink, mark: this.#mark, redirected: this.#redirected, toHost };
    const passage = this.#filters.pass({ hook, ...(asks && { asks }) }, hookPacket(this.#packet, links));
    for (const finding of passage.findings) this.#found(hook, finding, outputLink);
    this.#stopped ||= passage.stopped;
    if (hook !== 'output' && hook !== 'prerouting') return;
    if (passage.routeMark === undefined) this.#doubtMark(passage.findings);
    else this.#mark = passage.routeMark;
  }

  #found(hook: Hook, finding: Finding, outputLink: string): void {
    const obstacle = obstacleOf(hook, finding);
    if (obstacle === undefined) return;
    if (finding.effect === 'drop') {
      this.#obstacles.push(obstacle);
      return;
    }
    if (finding.effect === 'destination') this.#redirected = finding.certain || undefined;
    const changed = this.#readdressed(finding, outputLink);
    if (changed?.every((packet) => samePacket(packet, this.#packet)) === true) return;
    // What came out of the tunnel was checked there already.
    const isHarmless =
      this.#question.packet.direction === 'in' || changed?.every(this.#question.isTreatedAlike) === true;
    if (isHarmless) this.#notes.push(obstacle.warning);
    else this.#obstacles.push(obstacle);
    if (!finding.certain) return;
    const [only, ...others] = changed ?? [];
    if (only !== undefined && others.length === 0) this.#packet = only;
    // Its new destination is not known.
    else if (finding.effect === 'destination') this.#stopped = true;
  }

  /** The packets that it may become; `undefined` if that is not known. */
  #readdressed({ effect, to }: Finding, outputLink: string): AskedPacket[] | undefined {
    if (to !== undefined && to.family !== this.#packet.source.family) return undefined;
    if (effect === 'destination') return to && [readdressed(this.#packet, { destination: to })];
    const { routing } = this.#question.view;
    const { family } = this.#packet.source;
    const addresses = (index?: number): IpAddress[] =>
      routing
        .addresses(index)
        .flatMap(({ address }) => (address.family === family && isGlobal(address) ? [address] : []));
    const index = outputLink === '' ? undefined : routing.link(outputLink)?.index;
    const ofLink = index === undefined ? [] : addresses(index);
    const sources = newSources(to, ofLink, addresses());
    return sources.length === 0 ? undefined : sources.map((source) => readdressed(this.#packet, { source }));
  }

  /** A mark matters if a routing rule of another program matches it. */
  #doubtMark(findings: readonly Finding[]): void {
    const { family } = this.#packet.destination;
    const rules = this.#question.view.routing.seenRules(family);
    if (!rules.some(({ marked, protocol }) => marked !== undefined && protocol !== OWN_PROTOCOL)) return;
    const rule = findings.findLast(({ effect }) => effect === 'mark');
    const where = rule === undefined ? '' : `: table ${rule.table}, chain ${rule.chain}: ${rule.rule}`;
    const verdict = 'a packet mark that another program may set may send it another way';
    this.#obstacles.push({ effect: 'lead', certain: false, verdict, warning: `${verdict}${where}` });
  }

  #stop(verdict: string, warning: string): void {
    this.#refuse({ effect: 'stop', certain: true, verdict, warning });
  }

  #refuse(obstacle: Obstacle): void {
    this.#stopped = true;
    this.#obstacles.push(obstacle);
  }
}

/** The bits that our fences set before a packet is routed. */
function ownMark({ view, fence, packet }: PathQuestion): number {
  const others = [...(view.fences?.values() ?? [])].filter((part) => part.kind === 'tunnel');
  const fences = fence === undefined ? others : [fence, ...others];
  return fences.reduce((mark, part) => mark | (markOf(part, packet) ?? 0), 0);
}

export function isCertainStop({ effect, certain }: Obstacle): boolean {
  return effect === 'stop' && certain;
}

/** The setting that says so, and how to change it; `undefined` where packets that come in by the link are forwarded. */
function forwardingOff(view: HostView, { source: { family } }: AskedPacket, link: string): string | undefined {
  if (family === 4) {
    const name = `ipv4.conf.${link}.forwarding`;
    return view.sysctl(name) === '0' ? `${link} (net.${name} = 0): sysctl -w net.ipv4.ip_forward=1` : undefined;
  }
  const name = 'ipv6.conf.all.forwarding';
  if (view.sysctl(name) !== '0' || view.sysctl(`ipv6.conf.${link}.force_forwarding`) === '1') return undefined;
  return `${link} (net.${name} = 0): sysctl -w net.${name}=1`;
}

/** The setting of the filter that drops packets whose route back is by another link; `undefined` if there is none. */
function reversePathFilter(view: HostView, { source: { family } }: AskedPacket, link: string): string | undefined {
  if (family === 6) return undefined;
  const names = [`ipv4.conf.${link}.rp_filter`, 'ipv4.conf.all.rp_filter'];
  const set = names.find((name) => Number(view.sysctl(name) ?? 0) > 0);
  return set && `net.${set} = ${view.sysctl(set)}`;
}

function samePacket(a: AskedPacket, b: AskedPacket): boolean {
  return sameAddress(a.source, b.source) && sameAddress(a.destination, b.destination);
}

/** Addresses that a masquerading host uses: neither loopback nor link-local. */
function isGlobal(address: IpAddress): boolean {
  return !NOT_GLOBAL.some((range) => rangeContains(range, address));
}

const NOT_GLOBAL = (
  [
    ['127.0.0.0', 8],
    ['169.254.0.0', 16],
    ['::1', 128],
    ['fe80::', 10],
  ] as const
).map(([text, length]) => prefixRange(parseAddress(text)!, length));
