/** What one tunnel has in a routing table: routes into its device, and those that refuse while there is no device. Pure. */
import { anyRange, formatAddress } from '../../base/address.ts';
import { DEVICE_GROUP, type InstalledRoute, type Link, type Route } from '../routes/routes.ts';
import { routeKey } from './compare.ts';
import type { RoutingPlan } from './plan.ts';
import { destinationRoutes, type TableRoute } from './routes.ts';
import { tableRoutes } from './rules.ts';
import { type OwnAddresses, openRoutes, unservedText } from './sources.ts';

/** Metric of the routes for when there is no device: the kernel looks at them last. */
const LAST_METRIC = 0xffff_ffff;

/** In the table of a VRF, beside the routes of others: none of these comes first, nor takes the place of ours without the device. */
const VRF_METRICS = { 4: { open: 0, closed: 1 }, 6: { open: 1, closed: 2 } } as const;

function withMetric(route: Route): Route {
  return { ...route, metric: VRF_METRICS[route.destination.address.family].open };
}

export class TableMember {
  readonly plan: RoutingPlan;
  /** Name of the tunnel's interface. */
  readonly device: string;
  readonly table: number;
  readonly routes: readonly TableRoute[];
  #own: OwnAddresses;
  #linkIndex: number | undefined;
  #openRoutes: readonly Route[] = [];
  #unserved: string | undefined;
  /** As the kernel reported last. `opening`: what it reports may be from before the device was set up. */
  #reported: 'opening' | 'up' | 'down' = 'opening';

  constructor(plan: RoutingPlan, { device, table }: Pick<TableMember, 'device' | 'table'>, own: OwnAddresses) {
    this.plan = plan;
    this.device = device;
    this.table = table;
    this.routes = plan.vrf === undefined ? tableRoutes(plan) : destinationRoutes(plan.outbound);
    this.#own = own;
    this.#unserved = unservedText(plan.outbound, own);
  }

  /** Routes that refuse or drop: always there, behind those into the device. */
  get closedRoutes(): Route[] {
    return this.routes.map(({ destination, closed }) => ({
      type: closed,
      destination,
      table: this.table,
      metric: this.plan.vrf === undefined ? LAST_METRIC : VRF_METRICS[destination.address.family].closed,
    }));
  }

  /** Routes into the device, once there is one. */
  get openRoutes(): readonly Route[] {
    return this.#openRoutes;
  }

  /** Of the device, once there is one. */
  get linkIndex(): number | undefined {
    return this.#linkIndex;
  }

  /** For which protected destinations the host has no address, in words. */
  get unserved(): string | undefined {
    return this.#unserved;
  }

  /** Whether the host has an address to send from by a route of it, as `OwnAddresses.has`. */
  addressFor({ sources, destination }: TableRoute): ReturnType<OwnAddresses['has']> {
    const [source = anyRange(destination.address.family)] = sources;
    return this.#own.has(source);
  }

  setLink(linkIndex: number): void {
    if (this.#linkIndex !== linkIndex) this.#reported = 'opening';
    this.#linkIndex = linkIndex;
    const open = openRoutes(this.routes, { table: this.table, linkIndex }, this.#own);
    this.#openRoutes = this.plan.vrf === undefined ? open : open.map(withMetric);
  }

  /** Whether its device is up and in the group of tunnels, as reported. */
  get isReportedUp(): boolean {
    return this.#reported === 'up';
  }

  /** The kernel reports its device. @returns whether routes may have gone with it, or are to come back */
  linkReported({ up, group }: Link): boolean {
    const isRight = up && group === DEVICE_GROUP;
    const isFirst = this.#reported === 'opening';
    if (isFirst && !isRight) return false;
    const before = this.#reported;
    this.#reported = isRight ? 'up' : 'down';
    return !isFirst && (before === 'down' || !isRight);
  }

  /** Whether reports of its device may be from before it was set up. */
  get isOpening(): boolean {
    return this.#reported === 'opening';
  }

  /** Its device was looked at: reports may have been lost, and no older ones come. */
  linkLooked(link: Link | undefined): void {
    if (this.#linkIndex !== undefined) this.#reported = link?.up === true ? 'up' : 'down';
  }

  /** Whether such a route of its table is to stand. */
  wants(route: InstalledRoute): boolean {
    const key = routeKey(route);
    return [...this.#openRoutes, ...this.closedRoutes].some((other) => routeKey(other) === key);
  }

  /**
   * Follows the addresses of this host.
   * @returns what changed, in words; `undefined` when nothing did
   */
  setAddresses(own: OwnAddresses): string | undefined {
    if (own.key === this.#own.key) return undefined;
    const [sources, unserved] = [this.#sources(), this.#unserved];
    this.#own = own;
    if (this.#linkIndex !== undefined) this.setLink(this.#linkIndex);
    this.#unserved = unservedText(this.plan.outbound, own);
    const now = this.#sources();
    if (now === sources && this.#unserved === unserved) return undefined;
    return `the addresses of this host changed: its own packets without a source are now sent from ${now || 'none'}, before from ${sources || 'none'}`;
  }

  /** The addresses that packets without a source are sent from, in words. */
  #sources(): string {
    const open = this.routes.filter((route) => route.open);
    const sources = open.flatMap((route) => this.#own.preferred(route.sources, route.destination.address.family) ?? []);
    return [...new Set(sources.map(formatAddress))].join(', ');
  }
}
