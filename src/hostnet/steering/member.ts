/** What one tunnel has in a routing table: routes into its device, and those that refuse while there is no device. Pure. */
import { formatAddress } from '../../base/address.ts';
import type { Route } from '../routes/routes.ts';
import type { RoutingPlan } from './plan.ts';
import type { TableRoute } from './routes.ts';
import { tableRoutes } from './rules.ts';
import { type OwnAddresses, openRoutes, unservedText } from './sources.ts';

/** Metric of the routes for when there is no device: the kernel looks at them last. */
const LAST_METRIC = 0xffff_ffff;

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

  constructor(plan: RoutingPlan, { device, table }: Pick<TableMember, 'device' | 'table'>, own: OwnAddresses) {
    this.plan = plan;
    this.device = device;
    this.table = table;
    this.routes = tableRoutes(plan);
    this.#own = own;
    this.#unserved = unservedText(plan.outbound, own);
  }

  /** Routes that refuse or drop: always there, behind those into the device. */
  get closedRoutes(): Route[] {
    return this.routes.map(({ destination, closed }) => ({
      type: closed,
      destination,
      table: this.table,
      metric: LAST_METRIC,
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

  setLink(linkIndex: number): void {
    this.#linkIndex = linkIndex;
    this.#openRoutes = openRoutes(this.routes, { table: this.table, linkIndex }, this.#own);
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
