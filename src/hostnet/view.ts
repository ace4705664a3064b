/** What of a network namespace decides about packets there: it is looked at for explanations, and nothing is changed. */
import type { FencePart } from './fence/fence.ts';
import type { ForeignTables } from './foreign/tables.ts';
import type { HostNetwork } from './routes/routes.ts';

/** Links, addresses, routes and rules. */
export type Routing = Pick<
  HostNetwork,
  'addresses' | 'link' | 'vrfs' | 'routes' | 'routeTo' | 'routeFor' | 'refusalOf' | 'rules' | 'seenRules'
>;

export interface HostView {
  readonly routing: Routing;
  /** Parts of our fence there, by their keys; left out where there is none. */
  readonly fences?: ReadonlyMap<string, FencePart> | undefined;
  /** Names of the bridges of guests that are fenced there. */
  readonly bridges?: readonly string[] | undefined;
  /** Of `net`: `ipv4.conf.eth0.forwarding`. `undefined` for one that is not there. */
  sysctl(name: string): string | undefined;
  /** Tables of other programs; left out where no kernel looks at packets. */
  foreignTables?(): Promise<ForeignTables>;
}
