/** Documents whose device is in a VRF: what cannot be said of them, as there the destination alone decides what is routed into it. */
import type { SectunnelDocument } from '../config/model.ts';
import { toPolicy } from '../config/selectors.ts';
import { isTransport } from './transport.ts';

/** Why a document cannot be carried out; `undefined` when it can, or its device is in no VRF. */
export function vrfRefusal(document: SectunnelDocument): string | undefined {
  const { device, sa } = document;
  if (device.vrf === undefined || device.routes === 'none') return undefined;
  const what = `<device vrf='${device.vrf}'/>`;
  if (device.table !== undefined) {
    return `${what} with table='${device.table}'; the routes stand in the table of the VRF: leave 'table' out`;
  }
  if (sa.redundancy !== undefined) {
    return `${what} with <redundancy/> on line ${sa.redundancy.line}; two tunnels of a VRF cannot have the same destination: leave one of them out, or write routes='none' and choose the route yourself`;
  }
  if (isTransport(document)) return `${what} with <rule mode='transport'>; write mode='tunnel', or leave 'vrf' out`;
  const use = toPolicy(document).entries.find(({ action, level }) => action === 'protect' && level === 'use');
  if (use !== undefined) {
    return `${what} with level='use' in <sp name='${use.name}'>; write level='require', or leave 'vrf' out`;
  }
  return undefined;
}
