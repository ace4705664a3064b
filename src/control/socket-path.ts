/** Paths of Unix sockets: Node shortens one that is too long without a word, and then uses another file. */

/** Bytes of a path that fit into a Unix socket's address (sun_path, less its closing zero). */
const MAX_PATH = 107;

/** Why a socket cannot have the path; `undefined` when it can. */
export function socketPathProblem(path: string): string | undefined {
  const length = Buffer.byteLength(path);
  if (length <= MAX_PATH) return undefined;
  return `the socket ${path} has a path of ${length} bytes, and ${MAX_PATH} fit; choose a shorter --run-dir`;
}
