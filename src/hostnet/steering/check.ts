/** Refuses a plan that the kernel could not carry out, or that would take what is not its own. */

import { formatAddress, sameAddress } from '../../base/address.ts';
import { SectunnelError } from '../../base/error.ts';
import type { HostNetwork } from '../routes/routes.ts';
import type { RoutingPlan } from './plan.ts';
import { UNBOUND_TABLES } from './unbound.ts';

/** The tables default, main and local. */
export const SYSTEM_TABLES: readonly number[] = [253, 254, 255];

/**
 * @param otherIn a tunnel that has the table and cannot share it with this one
 * @throws Error saying what is wrong and what to do
 */
export function checkPlan(
  { table, host }: RoutingPlan,
  otherIn: (table: number) => string | undefined,
  network: Pick<HostNetwork, 'addresses'>,
): void {
  if (host !== undefined && !network.addresses().some(({ address }) => sameAddress(address, host))) {
    throw new SectunnelError(
      'system',
      `transport mode protects packets of ${formatAddress(host)}, which is not an address of this host: add the address, or correct the document`,
    );
  }
  if (table === undefined) return;
  const other = otherIn(table);
  if (other !== undefined) {
    throw new SectunnelError(
      'system',
      `routing table ${table} belongs to another tunnel, ${other}: give this one a table of its own, <device table='…'>; tunnels on one device share a table where their local addresses are the same, and destinations alone tell their packets apart`,
    );
  }
  if (UNBOUND_TABLES.includes(table)) {
    throw new SectunnelError(
      'system',
      `routing table ${table} is what packets without a source of many tunnels are routed by: give the tunnel a table of its own, or leave the attribute out`,
    );
  }
  if (SYSTEM_TABLES.includes(table)) {
    throw new SectunnelError(
      'system',
      `routing table ${table} belongs to the system: give the tunnel a table of its own, or leave the attribute out`,
    );
  }
}
