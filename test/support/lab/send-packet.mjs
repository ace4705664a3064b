/**
 * Sends IP packets as they are given, whatever their headers say; run inside a namespace as a program of its own, as root.
 *
 *   node send-packet.mjs HEX …
 */
import koffi from 'koffi';

const libc = koffi.load(null);
const socket = libc.func('int socket(int domain, int type, int protocol)');
const sendto = libc.func(
  'int64_t sendto(int fd, const void *data, size_t length, int flags, const void *to, uint32_t size)',
);
const errno = () => koffi.errno();

const [AF_INET, AF_INET6, SOCK_RAW, IPPROTO_RAW] = [2, 10, 3, 255];

for (const hex of process.argv.slice(2)) {
  const packet = Buffer.from(hex, 'hex');
  const four = packet.readUInt8(0) >>> 4 === 4;
  const to = Buffer.alloc(four ? 16 : 28);
  to.writeUInt16LE(four ? AF_INET : AF_INET6, 0);
  packet.copy(to, four ? 4 : 8, four ? 16 : 24, four ? 20 : 40);
  const fd = socket(four ? AF_INET : AF_INET6, SOCK_RAW, IPPROTO_RAW);
  if (fd < 0 || sendto(fd, packet, packet.length, 0, to, to.length) < 0) throw new Error(`not sent: errno ${errno()}`);
}
