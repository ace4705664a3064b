/** What the lab needs of the machine, and what of it is missing. */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { hasNewerLibvirt, NEWER_LIBVIRT_FOLDER } from './libvirt-release.ts';
import { builtProgram } from './root.ts';

export type Need =
  | 'namespaces'
  | 'strongswan'
  | 'libreswan'
  | 'openiked'
  | 'uml'
  | 'openssl'
  | 'tcpdump'
  | 'tshark'
  | 'nftables'
  | 'libvirt'
  | 'newer-libvirt'
  | 'systemd'
  | 'ifupdown'
  | 'iperf3'
  | 'wireguard-go'
  | 'build';

/** Where `scripts/setup.sh` unpacks Debian's packages. */
export const LIBRESWAN = '/var/cache/sectunnel-tests/libreswan';
export const OPENIKED = '/var/cache/sectunnel-tests/openiked';

function onPath(program: string): boolean {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return folders.some((folder) => existsSync(join(folder, program)));
}

function programs(names: readonly string[], debianPackage: string): string[] {
  const missing = names.filter((name) => !onPath(name));
  return missing.length === 0 ? [] : [`no ${missing.join(', ')} (Debian package ${debianPackage})`];
}

function namespaces(): string[] {
  if (process.platform !== 'linux') return [`network namespaces need Linux, this is ${process.platform}`];
  if (process.getuid?.() !== 0) return ['network namespaces need root'];
  const missing = [
    ...programs(['ip'], 'iproute2'),
    ...programs(['nft'], 'nftables'),
    ...programs(['setpriv'], 'util-linux'),
    ...programs(['ping'], 'iputils-ping'),
  ];
  if (missing.length > 0) return missing;
  try {
    accessSync('/dev/net/tun', constants.R_OK | constants.W_OK);
  } catch {
    missing.push('/dev/net/tun cannot be opened');
  }
  const probe = spawnSync('unshare', ['--net', 'true']);
  if (probe.status !== 0) missing.push('network namespaces cannot be created here (CAP_SYS_ADMIN)');
  return missing;
}

const CHECKS: Readonly<Record<Need, () => string[]>> = {
  namespaces,
  strongswan: () => [
    ...programs(['charon-systemd'], 'charon-systemd'),
    ...programs(['swanctl'], 'strongswan-swanctl'),
    ...(existsSync('/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so')
      ? []
      : ['no plugin kernel-libipsec (Debian package libcharon-extra-plugins)']),
  ],
  libreswan: () => [
    ...(existsSync(join(LIBRESWAN, 'usr/libexec/ipsec/pluto'))
      ? []
      : [`no libreswan in ${LIBRESWAN} (sh scripts/setup.sh test)`]),
    ...programs(['certutil'], 'libnss3-tools'),
  ],
  openiked: () =>
    existsSync(join(OPENIKED, 'usr/sbin/iked')) ? [] : [`no OpenIKED in ${OPENIKED} (sh scripts/setup.sh test)`],
  uml: () => [
    ...programs(['linux.uml'], 'user-mode-linux'),
    ...programs(['modprobe'], 'kmod'),
    ...(process.arch === 'x64' ? [] : [`User-Mode Linux needs x86-64, this is ${process.arch}`]),
  ],
  openssl: () => programs(['openssl'], 'openssl'),
  tcpdump: () => programs(['tcpdump'], 'tcpdump'),
  tshark: () => programs(['tshark'], 'tshark'),
  nftables: () => programs(['nft'], 'nftables'),
  // For its networks libvirtd calls dnsmasq and iptables.
  libvirt: () => [
    ...programs(['libvirtd'], 'libvirt-daemon'),
    ...programs(['virsh'], 'libvirt-clients'),
    ...programs(['dnsmasq'], 'dnsmasq-base'),
    ...programs(['iptables', 'ip6tables'], 'iptables'),
  ],
  'newer-libvirt': () =>
    hasNewerLibvirt() ? [] : [`no newer libvirt in ${NEWER_LIBVIRT_FOLDER} (scripts/newer-libvirt.sh makes it)`],
  systemd: () => programs(['systemd-analyze'], 'systemd'),
  ifupdown: () => programs(['ifup', 'ifdown'], 'ifupdown'),
  iperf3: () => programs(['iperf3'], 'iperf3'),
  'wireguard-go': () => [...programs(['wireguard-go'], 'wireguard-go'), ...programs(['wg'], 'wireguard-tools')],
  build: () =>
    (['daemon', 'cli'] as const)
      .filter((part) => !existsSync(builtProgram(part)))
      .map((part) => `no dist/${part}/main.js (npm run build)`),
};

/** What is missing, as text; empty when everything is there. */
export function missing(needs: readonly Need[]): string[] {
  return needs.flatMap((need) => CHECKS[need]());
}
