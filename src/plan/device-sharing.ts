/** Whether documents that name the same device can share it, in words. */
import { defaultDeviceName } from '../config/defaults.ts';
import type { DeviceSettings, SectunnelDocument } from '../config/model.ts';

/** What all documents of a device say alike: attributes of `<device>`. */
const ALIKE = ['mtu', 'table', 'netns', 'vrf', 'routes', 'ipv6'] as const satisfies readonly (keyof DeviceSettings)[];

export function namesSameDevice(one: SectunnelDocument, other: SectunnelDocument): boolean {
  return one.name !== other.name && one.device.name === other.device.name;
}

/** Why two tunnels cannot have one device, whatever their policies; `undefined` when they can. Both name the same. */
export function deviceConflict(one: SectunnelDocument, other: SectunnelDocument): string | undefined {
  const { device } = one;
  if (hasDefaultName(one) || hasDefaultName(other)) {
    const whose = hasDefaultName(one)
      ? `this tunnel has by default, and ${other.name} too`
      : `tunnel ${other.name} has by default`;
    return `device ${device.name} is the one that ${whose}: give one of them another name; tunnels that are to share a device name it alike in both documents, as in <device name='hub'/>`;
  }
  const different = ALIKE.find((attribute) => device[attribute] !== other.device[attribute]);
  if (different !== undefined) {
    const text = ({ [different]: value }: DeviceSettings): string =>
      value === undefined ? `no ${different}` : `${different}='${value}'`;
    return `device ${device.name} has ${text(device)} in the document of ${one.name} and ${text(other.device)} in that of ${other.name}: tunnels that share a device say the same of it in <device>, or have devices of different names`;
  }
  const group = one.sa.redundancy?.group;
  if (group === undefined || group !== other.sa.redundancy?.group) return undefined;
  return `tunnels ${one.name} and ${other.name} are of the redundancy group ${group}, of which each needs a device of its own, and both name ${device.name}: give one of them another name in <device>`;
}

function hasDefaultName({ name, uuid, device }: SectunnelDocument): boolean {
  return device.name === defaultDeviceName(name, uuid);
}
