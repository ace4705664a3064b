/** The names and messages of errors of UDP sockets. */
import type { IpFamily } from '../../base/address.ts';
import { formatSocketAddress } from '../../base/address.ts';
import { SectunnelError } from '../../base/error.ts';
import { ERRNO } from '../../sys/errno.ts';
import type { UdpBindOptions, UdpSendError } from './udp.ts';

const SEND_ERROR_NAMES: ReadonlySet<string> = new Set<UdpSendError>([
  'ECONNREFUSED',
  'ENOPROTOOPT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EMSGSIZE',
  'ENOBUFS',
  'EPERM',
  'EACCES',
  'EADDRNOTAVAIL',
]);

/** The counter of a failed send, by the name of its errno. */
export function sendErrorNamed(code: string | undefined): UdpSendError {
  return code !== undefined && SEND_ERROR_NAMES.has(code) ? (code as UdpSendError) : 'other';
}

/** The same, by the errno itself. */
export function sendErrorOf(errno: number): UdpSendError {
  switch (errno) {
    case ERRNO.EAGAIN:
      return 'queue-full';
    case ERRNO.ECONNREFUSED:
      return 'ECONNREFUSED';
    case ERRNO.ENOPROTOOPT:
      return 'ENOPROTOOPT';
    case ERRNO.EHOSTUNREACH:
      return 'EHOSTUNREACH';
    case ERRNO.ENETUNREACH:
      return 'ENETUNREACH';
    case ERRNO.EMSGSIZE:
      return 'EMSGSIZE';
    case ERRNO.ENOBUFS:
      return 'ENOBUFS';
    case ERRNO.EPERM:
      return 'EPERM';
    case ERRNO.EACCES:
      return 'EACCES';
    case ERRNO.EADDRNOTAVAIL:
      return 'EADDRNOTAVAIL';
    default:
      return 'other';
  }
}

/** Whether the next datagram to the same end point would be refused for the same reason, as far as the system tells. */
export function outlastsDatagram(error: UdpSendError): boolean {
  switch (error) {
    case 'ECONNREFUSED':
    case 'ENOPROTOOPT':
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
    case 'EPERM':
    case 'EACCES':
    case 'EADDRNOTAVAIL':
      return true;
    default:
      return false;
  }
}

/** The name of the errno in an error of Node's or of a system call made by FFI. */
export function errorCode(error: Error): string | undefined {
  return 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** Says why a socket cannot be bound, and what to do. */
export function bindError(options: UdpBindOptions, cause: Error): Error {
  const place = formatSocketAddress(options);
  const advice = bindAdvice(options.port, options.address.family, errorCode(cause));
  return new SectunnelError(
    'system',
    `UDP ${place}: ${cause.message}${advice === undefined ? '' : `. ${advice}`}`,
    cause,
  );
}

function bindAdvice(port: number, family: IpFamily, code: string | undefined): string | undefined {
  switch (code) {
    case 'EADDRINUSE':
      return (
        `Another program has the port (see: ss -ulpn sport = :${port}), perhaps another IKE daemon: stop it, ` +
        'or choose another port or address'
      );
    case 'EACCES':
      return (
        'A port below net.ipv4.ip_unprivileged_port_start needs a privilege: run as root, or ' +
        `setcap cap_net_bind_service+ep ${process.execPath}, or choose a port from 1024 on`
      );
    case 'EADDRNOTAVAIL':
      return 'The address is not one of this host (see: ip address): correct it, or wait until its interface is up';
    case 'ENODEV':
      return "There is no such VRF in the daemon's network namespace: ip link add NAME type vrf table NUMBER && ip link set NAME up, or correct <sa vrf='…'>";
    case 'EAFNOSUPPORT':
      return `This host has no IPv${family}`;
    default:
      return undefined;
  }
}
