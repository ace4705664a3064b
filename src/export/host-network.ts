/**
 * The tunnel as part of the host's own network configuration: files for systemd-networkd, NetworkManager and ifupdown that
 * bring its interface up with the host.
 *
 * The device is always the daemon's: it exists while the tunnel runs, and no network service can make it in the daemon's
 * place. What the files do is start the tunnel when the host wants its interface, and keep those services from changing
 * what the daemon set up. With `<device routes='none'>` the routes are theirs.
 */

import { formatAddress, rangeToPrefixes } from '../base/address.ts';
import { assertNever } from '../base/assert.ts';
import { SectunnelError } from '../base/error.ts';
import type { SectunnelDocument } from '../config/model.ts';
import { toChildren } from '../config/selectors.ts';
import type { ExportFormat } from './formats.ts';

export interface ExportedFile {
  /** Where the host looks for it. */
  readonly path: string;
  readonly content: string;
}

export interface HostNetworkFiles {
  readonly files: readonly ExportedFile[];
  /** What is left to do, as commands and remarks, a line each. */
  readonly steps: readonly string[];
}

/** The first line of each file: by it a file is known to be ours to replace. */
export const EXPORT_MARK = "# Written by 'sectunnel export'.";

/** @throws SectunnelError (`unsupported`) when the document cannot be part of that configuration, with what to change */
export function exportHostNetwork(document: SectunnelDocument, format: ExportFormat): HostNetworkFiles {
  const { netns, vrf, name } = document.device;
  if (vrf !== undefined) {
    throw new SectunnelError(
      'unsupported',
      `the device ${name} is in the VRF '${vrf}', which these files cannot say; use 'sectunnel autostart ${document.name}'`,
    );
  }
  if (netns !== undefined) {
    throw new SectunnelError(
      'unsupported',
      `the device ${name} is in the network namespace '${netns}', where the host's network configuration does not reach; ` +
        `use 'sectunnel autostart ${document.name}'`,
    );
  }
  switch (format) {
    case 'networkd':
      return networkd(document);
    case 'networkmanager':
      return networkManager(document);
    case 'ifupdown':
      return ifupdown(document);
    default:
      return assertNever(format, 'export format');
  }
}

function networkd(document: SectunnelDocument): HostNetworkFiles {
  const { name, device } = document;
  const routes = routesToSet(document);
  const table = device.table === undefined ? [] : [`Table=${device.table}`];
  const link =
    routes === undefined
      ? ['[Link]', 'Unmanaged=yes']
      : [
          '[Link]',
          'RequiredForOnline=no',
          '',
          '[Network]',
          'ConfigureWithoutCarrier=yes',
          'LinkLocalAddressing=no',
          'IPv6AcceptRA=no',
          'KeepConfiguration=static',
          ...routes.flatMap((destination) => ['', '[Route]', `Destination=${destination}`, 'Scope=link', ...table]),
        ];
  const said =
    routes === undefined ? 'sets its routes and rules: networkd leaves both alone.' : 'leaves routes to you.';
  const network = [
    EXPORT_MARK,
    `# sectunneld makes the device of tunnel ${name} and ${said}`,
    '[Match]',
    `Name=${device.name}`,
    '',
    ...link,
  ];
  const global = [
    EXPORT_MARK,
    '# Without this networkd removes rules and routes that others made when it starts, on every link: those of tunnels, which',
    '# keep packets from leaving in the clear, are among them.',
    '[Network]',
    'ManageForeignRoutes=no',
    'ManageForeignRoutingPolicyRules=no',
  ];
  return {
    // Before the files that match every link: the first one that matches is taken.
    files: [
      file(`/etc/systemd/network/10-sectunnel-${name}.network`, network),
      file('/etc/systemd/networkd.conf.d/10-sectunnel.conf', global),
    ],
    steps: ['systemctl restart systemd-networkd.service', ...startWithSystemd(document)],
  };
}

function networkManager(document: SectunnelDocument): HostNetworkFiles {
  const { name, device } = document;
  if (routesToSet(document) !== undefined) {
    throw new SectunnelError(
      'unsupported',
      `<device routes='none'>: NetworkManager sets no routes for devices that others make; write routes='auto' to have ` +
        'the daemon set them',
    );
  }
  const configuration = [
    EXPORT_MARK,
    `# sectunneld makes the device of tunnel ${name} and sets its routes and rules: NetworkManager leaves both alone.`,
    `[device-sectunnel-${name}]`,
    `match-device=interface-name:=${device.name}`,
    'managed=0',
  ];
  return {
    files: [file(`/etc/NetworkManager/conf.d/10-sectunnel-${name}.conf`, configuration)],
    steps: ['systemctl reload NetworkManager.service', ...startWithSystemd(document)],
  };
}

function ifupdown(document: SectunnelDocument): HostNetworkFiles {
  const { name, device } = document;
  const table = device.table === undefined ? '' : ` table ${device.table}`;
  const routes = (routesToSet(document) ?? []).map(
    (destination) => `    up ip route replace ${destination} dev $IFACE${table}`,
  );
  const stanza = [
    EXPORT_MARK,
    `# sectunneld makes the device of tunnel ${name}, and is to run before: its unit for systemd sees to that.`,
    `auto ${device.name}`,
    `iface ${device.name} inet manual`,
    `    pre-up sectunnel start ${name}`,
    ...routes,
    `    post-down sectunnel destroy ${name}`,
  ];
  // Names with other characters are left out by 'source-directory'.
  const fileName = `sectunnel-${name.replace(/[^A-Za-z0-9_-]/g, '_')}`;
  return {
    files: [file(`/etc/network/interfaces.d/${fileName}`, stanza)],
    steps: [...notTwice(document), `ifup ${device.name}`],
  };
}

/** A unit's name takes fewer characters than a tunnel's. */
function startWithSystemd(document: SectunnelDocument): string[] {
  const { name } = document;
  if (name.includes('+')) {
    throw new SectunnelError(
      'unsupported',
      `the name '${name}': names of units of systemd have no +; give the tunnel another name`,
    );
  }
  return [...notTwice(document), `systemctl enable --now sectunnel@${name}.service`];
}

/** Started by the host and with the daemon, it would be there already the second time. */
function notTwice({ name }: SectunnelDocument): string[] {
  return [`sectunnel autostart --disable ${name}`];
}

/** Destinations whose routes are the host's to set; `undefined` where the daemon sets them. */
function routesToSet(document: SectunnelDocument): string[] | undefined {
  if (document.device.routes === 'auto') return undefined;
  const destinations = new Set<string>();
  for (const { mode, selectors } of toChildren(document)) {
    if (mode === 'transport') continue;
    for (const { range } of selectors.remote) {
      for (const { address, prefixLength } of rangeToPrefixes(range)) {
        if (prefixLength === 0) throw everything(document);
        destinations.add(`${formatAddress(address)}/${prefixLength}`);
      }
    }
  }
  return [...destinations];
}

/** Such a route would take in the tunnel's own packets too. */
function everything({ device }: SectunnelDocument): SectunnelError {
  return new SectunnelError(
    'unsupported',
    `<device routes='none'> with a tunnel for all destinations: its own packets would be routed into ${device.name}; ` +
      "write routes='auto' to have the daemon keep them out, or narrow <dst_range>",
  );
}

function file(path: string, lines: readonly string[]): ExportedFile {
  return { path, content: `${lines.join('\n')}\n` };
}
