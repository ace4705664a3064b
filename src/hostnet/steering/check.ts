/** What a plan may not ask of the kernel. */
import { formatAddress, sameAddress } from '../../base/address.ts';
import type { HostNetwork } from '../routes/routes.ts';
import type { RoutingPlan } from './plan.ts';

/** The local table, that of the main routes, and the default one. */
export const SYSTEM_TABLES: readonly number[] = [253, 254, 255];

/**
 * @param others plans of tunnels that stand
 * @throws Error saying what is wrong and what to do
 */
export function checkPlan(
  { tunnel, table, host }: RoutingPlan,
  others: readonly RoutingPlan[],
  network: Pick<HostNetwork, 'addresses'>,
): void {
  if (host !== undefined && !network.addresses().some(({ address }) => sameAddress(address, host))) {
    throw new Error(
      `transport mode is for packets of ${formatAddress(host)}, which is not an address of this host: add it, or correct the document`,
    );
  }
  const other = others.find((plan) => plan.table === table && plan.tunnel !== tunnel);
  if (other !== undefined) {
    throw new Error(
      `routing table ${table} is that of another tunnel, ${other.tunnel}: give this one a <device table='…'>`,
    );
  }
  if (SYSTEM_TABLES.includes(table)) {
    throw new Error(`routing table ${table} is one of the system's: give the tunnel one of its own, or leave it out`);
  }
}
