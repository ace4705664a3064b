/**
 * Hands the value of a secret from a client to the daemon. No request contains it: a request becomes a string, and Node reads
 * accepted connections into memory that it frees without erasing it. So the client offers the value on a socket of its own in
 * the run folder, which only the daemon's user may enter, and the daemon connects to it and reads into its own memory.
 */
import { randomBytes } from 'node:crypto';
import { readdirSync, rmSync, statSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { SectunnelError } from '../base/error.ts';
import { secretBytes, secretCopy } from '../base/secret-bytes.ts';
import { explained } from '../sys/descriptors.ts';
import { shortageOf } from '../sys/shortage.ts';

/** Shorter than the name of the control socket, since a path has to fit into a socket's address. */
const OFFER = /^\.[0-9a-f]{12}$/;
/** Bytes that are taken: more than any value may have, so that one that is too long is refused with a reason. */
const MAX_TAKEN = 65_536;
/** Milliseconds that a client is given: it has offered what it asks to have taken. */
const PATIENCE = 2_000;

/** A value that waits to be taken, once. */
export interface Offer {
  /** What the daemon is told. */
  readonly name: string;
  close(): void;
}

/** @param value the caller's, to erase when the offer is closed */
export async function offerSecret(runDir: string, value: Uint8Array): Promise<Offer> {
  const name = `.${randomBytes(6).toString('hex')}`;
  const path = join(runDir, name);
  const server = createServer((socket) => {
    // The daemon says in its answer what went wrong.
    socket.on('error', () => undefined);
    socket.end(value);
    server.close();
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.once('listening', resolve);
    asOwnerOf(runDir, () => server.listen(path));
  });
  return { name, close: () => void server.close() };
}

/**
 * Makes a socket that the owner of the folder, the daemon's user, and root alone may connect to. Root takes that user's place
 * for the moment: a change of mode or owner by name would follow a link that this user may have put there instead.
 * @param make what makes it before it returns
 */
function asOwnerOf(folder: string, make: () => void): void {
  const { uid, gid } = statSync(folder);
  const group = process.getegid?.() ?? gid;
  const changes = process.geteuid?.() === 0 && uid !== 0;
  const mask = process.umask(0o177);
  try {
    if (changes) {
      process.setegid?.(gid);
      process.seteuid?.(uid);
    }
    make();
  } finally {
    if (changes) {
      process.seteuid?.(0);
      process.setegid?.(group);
    }
    process.umask(mask);
  }
}

/** Removes the sockets of clients that were ended before they could. To be called while no daemon listens there. */
export function removeOffers(runDir: string): void {
  for (const name of readdirSync(runDir)) if (OFFER.test(name)) rmSync(join(runDir, name), { force: true });
}

/**
 * Takes what a client offers. The result is the caller's to erase.
 * @throws SectunnelError when there is nothing, too much, or no end
 */
export function takeSecret(runDir: string, name: string): Promise<Uint8Array> {
  if (!OFFER.test(name)) throw new SectunnelError('bad-request', `'${name}' is not the name of an offered value`);
  const taken = secretBytes(MAX_TAKEN);
  let length = 0;
  return new Promise<Uint8Array>((resolve, reject) => {
    const refuse = (why: string): void => {
      socket.destroy();
      reject(new SectunnelError('bad-request', `the value cannot be taken from ${join(runDir, name)}: ${why}`));
    };
    const buffer = secretBytes(MAX_TAKEN);
    const callback = (count: number): boolean => {
      if (length + count > MAX_TAKEN) refuse(`it has more than ${MAX_TAKEN} bytes`);
      else taken.set(buffer.subarray(0, count), length);
      buffer.fill(0, 0, count);
      length += count;
      return true;
    };
    const socket: Socket = connect({ path: join(runDir, name), onread: { buffer, callback } });
    socket.setTimeout(PATIENCE, () => refuse(`nothing came within ${PATIENCE / 1000} s`));
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (shortageOf(error) === undefined) refuse(error.code ?? error.message);
      else reject(new SectunnelError('system', `the value cannot be taken: ${explained(error)}`));
    });
    socket.once('end', () => resolve(secretCopy(taken.subarray(0, length))));
  }).finally(() => taken.fill(0));
}
