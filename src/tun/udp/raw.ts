/**
 * Sockets for ESP straight over IP (RFC 4303 §2: protocol 50), by Linux's raw sockets: one for each family, of all local
 * addresses, with the interface of a UDP socket. The kernel writes the IP header, reassembles, and fragments packets that
 * are known to be larger than the path (`path-discovery.ts`). It neither joins nor cuts: a message is a packet.
 *
 * Every raw socket of the host receives every ESP packet. A packet for another program's SA is normal, and is not answered.
 *
 * Kernel interface: raw(7), RFC 3542 §3 for IPv6.
 */

import { type IpAddress, type IpFamily, NO_PORT } from '../../base/address.ts';
import { SectunnelError } from '../../base/error.ts';
import { takeDescriptor } from '../../sys/descriptors.ts';
import { ERRNO, SystemError } from '../../sys/errno.ts';
import { libc } from '../../sys/libc.ts';
import * as layout from './layout.ts';
import { bindToVrf, LinuxUdpSocket, setUpSocket } from './linux.ts';
import { PathDiscovery } from './path-discovery.ts';
import type { UdpSocket } from './udp.ts';

const SOCK_RAW_NONBLOCK_CLOEXEC = 0o2004003;
const IPPROTO_ESP = 50;

const NEEDS_NET_RAW =
  'This needs the capability CAP_NET_RAW in this network namespace: run as root, or with ' +
  'AmbientCapabilities=CAP_NET_RAW in a systemd unit, or in a container with --cap-add NET_RAW, or after ' +
  `setcap cap_net_raw+ep ${process.execPath} (which gives it to every Node program); or let ESP go in UDP`;

/** `rawEsp` of a `UdpNetwork`. An async function, so that errors reject. */
export async function linuxRawEsp(family: IpFamily, vrf?: string): Promise<UdpSocket> {
  try {
    return openSocket(family, vrf);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    const needed = error.errno === ERRNO.EPERM || error.errno === ERRNO.EACCES;
    throw new SectunnelError(
      'system',
      `ESP over IPv${family}: ${error.message}${needed ? `. ${NEEDS_NET_RAW}` : ''}`,
      error,
    );
  }
}

function openSocket(family: IpFamily, vrf: string | undefined): UdpSocket {
  const calls = libc();
  const domain = family === 4 ? layout.AF_INET : layout.AF_INET6;
  const fd = takeDescriptor(calls.socket(domain, SOCK_RAW_NONBLOCK_CLOEXEC, IPPROTO_ESP), 'socket');
  try {
    const address: IpAddress = { family, value: 0n };
    const ecn = setUpSocket(fd, address);
    bindToVrf(fd, vrf);
    const ownDiscovery = new PathDiscovery(fd, family).set('own');
    return new LinuxUdpSocket({
      fd,
      local: { address, port: NO_PORT, vrf },
      gro: false,
      gso: false,
      ecn,
      ownDiscovery,
    });
  } catch (error) {
    calls.close(fd);
    throw error;
  }
}
