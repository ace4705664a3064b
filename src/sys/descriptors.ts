/**
 * The process' file descriptors: how many there are, and the part that tunnels may not use up. A process that has given
 * its last descriptor to a tunnel could neither be asked by its control socket, nor change its fence, nor write a file.
 *
 * The limit (RLIMIT_NOFILE) is on the numbers of descriptors, and the kernel gives the lowest one that is free. So a
 * descriptor with a number close below the limit shows that few are left, without counting.
 */
import { readdirSync } from 'node:fs';
import { messageOf } from '../base/text.ts';
import { ERRNO, SystemError } from './errno.ts';
import { libc } from './libc.ts';
import { descriptorLimit } from './limits.ts';
import { MORE_DESCRIPTORS, shortageOf, shortageText } from './shortage.ts';

/** Kept for control connections, nft, files and what is fetched; of a low limit the fourth part. */
const RESERVE = 256;
const LARGEST_PART = 1 / 4;

/**
 * Takes a descriptor that a system call has just given for a device, a socket or a worker.
 * @param call what was attempted, for the message
 * @throws SystemError when the call failed; or, with the descriptor closed, when it is one of the reserve
 */
export function takeDescriptor(fd: number, call: string): number {
  const calls = libc();
  if (fd < 0) throw new SystemError(call, calls.errno());
  const limit = descriptorLimit()!;
  const reserve = reserveOf(limit);
  if (fd < limit - reserve) return fd;
  calls.close(fd);
  throw new SystemError(
    call,
    ERRNO.EMFILE,
    `${limit} descriptors are allowed, and the last ${reserve} are kept for control, fence and files: ${MORE_DESCRIPTORS}`,
  );
}

const reserveOf = (limit: number): number => Math.floor(Math.min(RESERVE, limit * LARGEST_PART));

/** What was thrown, for people: where something is used up, with what it is and what to raise. */
export function explained(error: unknown): string {
  const shortage = error instanceof SystemError ? undefined : shortageOf(error);
  return shortage === undefined ? messageOf(error) : `${messageOf(error)}. ${shortageText(shortage)}`;
}

/** Descriptors that are open, how many may be, and how many of these tunnels do not get. */
export interface DescriptorUse {
  readonly open: number;
  readonly limit: number;
  readonly reserve: number;
}

/** The use of descriptors; `undefined` where system calls cannot be made. */
export function descriptorUse(): DescriptorUse | undefined {
  const limit = descriptorLimit();
  if (limit === undefined) return undefined;
  const reserve = reserveOf(limit);
  try {
    // One of them is that of the folder.
    return { open: readdirSync('/proc/self/fd').length - 1, limit, reserve };
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EMFILE') return { open: limit, limit, reserve };
    throw error;
  }
}
