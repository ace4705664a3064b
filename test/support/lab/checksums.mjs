// Has the kernel compute the checksums of what leaves by a device, as for a network card that leaves them to it; without
// that they are missing in a capture, and on a line between namespaces for good. What `ethtool -K DEVICE tx off` does.
// Kernel interface: linux/sockios.h, linux/ethtool.h.
import koffi from 'koffi';

const SIOCETHTOOL = 0x8946;
const ETHTOOL_STXCSUM = 0x17;
const AF_INET = 2;
const SOCK_DGRAM = 2;

const libc = koffi.load(null);
const socket = libc.func('int socket(int domain, int type, int protocol)');
const ioctl = libc.func('int ioctl(int fd, unsigned long request, void *argument)');

const [, , device] = process.argv;
const value = Buffer.from(Uint32Array.of(ETHTOOL_STXCSUM, 0).buffer);
// struct ifreq: the name, then a pointer.
const request = Buffer.alloc(40);
request.write(device, 0, 15, 'latin1');
request.writeBigUInt64LE(BigInt(koffi.address(value)), 16);
if (ioctl(socket(AF_INET, SOCK_DGRAM, 0), SIOCETHTOOL, request) !== 0) {
  throw new Error(`ethtool ${device} tx off: errno ${koffi.errno()}`);
}
