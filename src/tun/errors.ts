/** Says why a TUN device cannot be opened, and what to do. */
import { SectunnelError } from '../base/error.ts';
import { utf8 } from '../base/text.ts';
import { ERRNO, SystemError } from '../sys/errno.ts';

export const TUN_PATH = '/dev/net/tun';
/** Bytes of an interface name with its NUL. */
export const IFNAMSIZ = 16;
const MOST_BYTES: number = IFNAMSIZ - 1;

export const NEEDS_NET_ADMIN: string =
  'This needs the capability CAP_NET_ADMIN in this network namespace: run as root, or with ' +
  'AmbientCapabilities=CAP_NET_ADMIN in a systemd unit, or in a container with --cap-add NET_ADMIN, or after ' +
  `setcap cap_net_admin+ep ${process.execPath} (which gives it to every Node program)`;

/** @throws SectunnelError with what is wrong with the name */
export function checkInterfaceName(name: string): void {
  const length = utf8(name).length;
  if (length > MOST_BYTES) {
    throw new SectunnelError(
      'system',
      `TUN device ${name}: the name has ${length} bytes; Linux takes at most ${MOST_BYTES}: shorten it`,
    );
  }
  if (length === 0 || name === '.' || name === '..' || /[\s/:\0]/.test(name) || /%(?!d)|%d.*%/.test(name)) {
    throw new SectunnelError(
      'system',
      `TUN device "${name}": an interface name is 1 to ${MOST_BYTES} bytes without blanks, "/" and ":"; ` +
        '"%d" may stand in it once for a number',
    );
  }
}

/** Why the device file could not be opened, and what to do. */
export function openError(errno: number): Error {
  const call = `open ${TUN_PATH}`;
  switch (errno) {
    case ERRNO.ENOENT:
      return new SystemError(
        call,
        errno,
        'The device file is missing. As root: modprobe tun; mkdir -p /dev/net; mknod /dev/net/tun c 10 200; ' +
          'chmod 666 /dev/net/tun. In a container: start it with --device /dev/net/tun --cap-add NET_ADMIN',
      );
    case ERRNO.ENODEV:
    case ERRNO.ENXIO:
      return new SystemError(call, errno, 'The kernel has no TUN driver. As root: modprobe tun (CONFIG_TUN)');
    case ERRNO.EACCES:
    case ERRNO.EPERM:
      return new SystemError(
        call,
        errno,
        'The file may not be opened. As root: chmod 666 /dev/net/tun. In a container: start it with ' +
          '--device /dev/net/tun --cap-add NET_ADMIN; in a systemd unit: DeviceAllow=/dev/net/tun rw',
      );
    default:
      return new SystemError(call, errno);
  }
}

/** Why the interface could not be made with so many queues, and what to do. */
export function createError(name: string, errno: number, queues = 1): Error {
  const call = `create TUN device ${name}`;
  switch (errno) {
    case ERRNO.EPERM:
      return new SystemError(call, errno, NEEDS_NET_ADMIN);
    case ERRNO.EBUSY:
    case ERRNO.EEXIST:
      return new SystemError(
        call,
        errno,
        'Another program holds an interface of this name: stop it, or choose another name',
      );
    case ERRNO.EINVAL:
      return new SystemError(
        call,
        errno,
        `An interface of this name exists that is not such a TUN device (see: ip -d link show ${name}): ` +
          'choose another name, or delete it' +
          (queues > 1 ? ". Or this kernel's TUN devices have one queue only: run sectunneld with --workers 1" : ''),
      );
    default:
      return new SystemError(call, errno);
  }
}
