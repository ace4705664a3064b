/** Asks the system where packets go on that came out of tunnels: `onward.ts` says what follows from the answers. */
import type { IpFamily } from '../../base/address.ts';
import { type HostNetwork, type InstalledRoute, type InterfaceAddress, MAIN_TABLE } from '../routes/routes.ts';
import { type Guarded, type MainTable, NETWORK_PROTOCOLS, sampleOf, sourceOf } from './onward.ts';
import type { RoutingTable } from './table.ts';

/** What of the main table decides. Routes and addresses are listed when they are asked for. */
export function mainTableOf(network: HostNetwork): MainTable {
  // BOUNDED: by the two families.
  const listed = new Map<IpFamily, readonly InstalledRoute[]>();
  const list = (family: IpFamily): readonly InstalledRoute[] =>
    NETWORK_PROTOCOLS.flatMap((protocol) => network.routes({ family, table: MAIN_TABLE, protocol }));
  const routes = (family: IpFamily): readonly InstalledRoute[] => {
    const known = listed.get(family) ?? list(family);
    listed.set(family, known);
    return known;
  };
  let addresses: readonly InterfaceAddress[] | undefined;
  return {
    routes,
    get addresses() {
      addresses ??= network.addresses();
      return addresses;
    },
  };
}

/** Whether there is a route to a network for what came out of a tunnel of the table. */
export function isReached(
  network: HostNetwork,
  table: RoutingTable,
  guarded: Guarded,
  { addresses }: MainTable,
): boolean {
  const [first] = table.members;
  const inputLinkIndex = first && network.link(first.device)?.index;
  const source = first && sourceOf(guarded, first.plan.inbound);
  if (inputLinkIndex === undefined || source === undefined) return false;
  return network.refusalOf({ destination: sampleOf(guarded, addresses), source, inputLinkIndex }) !== 'no-route';
}
