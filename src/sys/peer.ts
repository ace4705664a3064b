/** Who is at the other end of a Unix socket, as the kernel recorded it when they connected (SO_PEERCRED, unix(7)). */
import type { Socket } from 'node:net';
import { SystemError } from './errno.ts';
import { libc } from './libc.ts';

const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
/** struct ucred: pid, uid, gid, 32 bits each. */
const UCRED_BYTES = 12;
const UID_OFFSET = 4;

/**
 * The effective user of the process that connected; `undefined` on other systems than Linux. @throws SystemError
 */
export function peerUser(socket: Socket): number | undefined {
  const fd = descriptorOf(socket);
  if (fd === undefined || process.platform !== 'linux') return undefined;
  const credentials = new Uint8Array(UCRED_BYTES);
  const calls = libc();
  if (calls.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials) < 0) {
    throw new SystemError('getsockopt(SO_PEERCRED)', calls.errno());
  }
  return new DataView(credentials.buffer).getUint32(UID_OFFSET, true);
}

/** Not part of Node's documented interface; its sockets on Unix have had it for ten years. */
function descriptorOf(socket: Socket): number | undefined {
  const { _handle: handle } = socket as Socket & { readonly _handle?: { readonly fd?: number } | null };
  return handle?.fd !== undefined && handle.fd >= 0 ? handle.fd : undefined;
}
