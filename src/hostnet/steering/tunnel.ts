/**
 * The rules and routes that one tunnel wants: from its policy, the addresses of this host, the SAs that are up, and the
 * device once there is one. Asks the system nothing.
 */
import { formatAddress } from '../../base/address.ts';
import { formatPrefix, type Prefix, type Route, type Rule } from '../routes/routes.ts';
import {
  findOnward,
  type Guarded,
  type LocalNetworks,
  localNetworks,
  lostText,
  type MainTable,
  type Onward,
  onwardRules,
} from './onward.ts';
import type { RoutingPlan } from './plan.ts';
import { type Block, placed } from './priorities.ts';
import type { TableRoute } from './routes.ts';
import { type RoutingRules, routingRules } from './rules.ts';
import { type OwnAddresses, openRoutes, unservedText } from './sources.ts';

/** Metric of the routes for when there is no device: the kernel looks at them last. */
const LAST_METRIC = 0xffff_ffff;

export class TunnelRouting implements Block {
  readonly plan: RoutingPlan;
  /** How many priorities it takes, whatever addresses the host has. */
  readonly size: number;
  /** The local networks that packets out of the tunnel are for, by family. */
  readonly networks: LocalNetworks;
  readonly #device: string;
  readonly #routes: readonly TableRoute[];
  #block = 0;
  /** With priorities from 0 on until `place` is called. */
  #rules: readonly Rule[];
  #own: OwnAddresses;
  /** Children of level `use` that have an SA. */
  #up: ReadonlySet<string> = new Set();
  /** Of the device, once there is one. */
  #linkIndex: number | undefined;
  #openRoutes: readonly Route[] = [];
  #unserved: string | undefined;
  #onward: Onward = { guarded: [], lost: [], links: new Set() };
  #onwardRules: readonly Rule[] = [];
  #lost: string | undefined;

  constructor(plan: RoutingPlan, device: string, own: OwnAddresses) {
    this.plan = plan;
    this.networks = localNetworks(plan);
    this.#device = device;
    this.#own = own;
    const { rules, size, routes } = this.#compile();
    this.size = size;
    this.#routes = routes;
    this.#rules = rules;
    this.#unserved = unservedText(plan.outbound, own);
  }

  /** The first of its priorities. */
  get block(): number {
    return this.#block;
  }

  get rules(): readonly Rule[] {
    return [...this.#rules, ...this.#onwardRules];
  }

  get device(): string {
    return this.#device;
  }

  get linkIndex(): number | undefined {
    return this.#linkIndex;
  }

  /** Routes that refuse or drop: always there, behind those into the device. */
  get closedRoutes(): Route[] {
    return this.#routes.map((route) => closedRoute(route, this.plan.table));
  }

  /** Routes into the device, once there is one. */
  get openRoutes(): readonly Route[] {
    return this.#openRoutes;
  }

  /** The links by which packets out of the tunnel go on. */
  get onwardLinks(): ReadonlySet<number> {
    return this.#onward.links;
  }

  get guarded(): readonly Prefix[] {
    return this.#onward.guarded.map(({ network }) => network);
  }

  /** What the host lacks, in words: an address for its own packets, routes for what comes out of the tunnel. */
  get lacks(): readonly string[] {
    return [this.#unserved, this.#lost].filter((text) => text !== undefined);
  }

  /** Gives the rules their priorities, from `block` on. */
  place(block: number): void {
    this.#rules = this.#rules.map((rule) => placed(rule, block - this.#block, this.plan.table));
    this.#block = block;
  }

  setLink(linkIndex: number): void {
    this.#linkIndex = linkIndex;
    this.#openInto(linkIndex);
  }

  setUp(up: ReadonlySet<string>): void {
    this.#up = up;
    this.#recompile();
  }

  /**
   * Follows the addresses of this host.
   * @returns what changed, in words; `undefined` when nothing did
   */
  setAddresses(own: OwnAddresses): string | undefined {
    if (own.key === this.#own.key) return undefined;
    const [sources, unserved] = [this.#sources(), this.#unserved];
    this.#own = own;
    this.#recompile();
    if (this.#linkIndex !== undefined) this.#openInto(this.#linkIndex);
    this.#unserved = unservedText(this.plan.outbound, own);
    const now = this.#sources();
    if (now === sources && this.#unserved === unserved) return undefined;
    return `the addresses of this host changed: its own packets without a source are now sent from ${now || 'none'}, before from ${sources || 'none'}`;
  }

  /**
   * Follows the routes by which packets out of the tunnel go on.
   *
   * @param known networks that once had a route
   * @param isReached whether a packet out of the tunnel has one, for networks where `main` has none
   * @returns what changed, in words; `undefined` when nothing did
   */
  setOnward(known: readonly Prefix[], main: MainTable, isReached: (network: Guarded) => boolean): string | undefined {
    const before = this.guarded.map(formatPrefix);
    this.#onward = findOnward(this.networks, this.plan.own.peer, known, main);
    this.#onwardRules = onwardRules(this.#onward.guarded, this.#device, this.plan.table);
    this.#lost = lostText(this.#onward.lost.filter((network) => !isReached(network)));
    const now = this.guarded.map(formatPrefix);
    if (now.join() === before.join()) return undefined;
    return `packets out of the tunnel reach ${now.join(', ') || 'no network'} by routes of these networks only, and never by the default route`;
  }

  #compile(): RoutingRules {
    return routingRules(this.plan, {
      device: this.#device,
      hasAddressIn: (range) => this.#own.has(range),
      isUp: (child) => this.#up.has(child),
    });
  }

  #recompile(): void {
    this.#rules = this.#compile().rules.map((rule) => placed(rule, this.#block, this.plan.table));
  }

  #openInto(linkIndex: number): void {
    this.#openRoutes = openRoutes(this.#routes, { table: this.plan.table, linkIndex }, this.#own);
  }

  /** The addresses that packets without a source are sent from, in words. */
  #sources(): string {
    const open = this.#routes.filter((route) => route.open);
    const sources = open.flatMap((route) => this.#own.preferred(route.sources, route.destination.address.family) ?? []);
    return [...new Set(sources.map(formatAddress))].join(', ');
  }
}

function closedRoute({ destination, closed }: TableRoute, table: number): Route {
  return { type: closed, destination, table, metric: LAST_METRIC };
}
