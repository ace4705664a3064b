/** Paths of Unix sockets: Node silently truncates one that is too long, and then uses another file. */

/** Bytes of a path that fit into a Unix socket's address (sun_path, less its closing zero). */
export const MAX_SOCKET_PATH = 107;

/** Why a socket cannot have the path; `undefined` when it can. */
export function socketPathProblem(path: string): string | undefined {
  const length = Buffer.byteLength(path);
  if (length <= MAX_SOCKET_PATH) return undefined;
  return `the socket ${path} has a path of ${length} bytes, and ${MAX_SOCKET_PATH} fit; choose a shorter --run-dir`;
}
