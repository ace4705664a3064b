/**
 * Works in another network namespace (network_namespaces(7)): what is opened there stays there, also when used elsewhere.
 * For names of `ip netns`, which are in /run/netns, and for paths. Needs CAP_SYS_ADMIN.
 */
import { existsSync } from 'node:fs';
import { messageOf } from '../base/text.ts';
import { ERRNO, SystemError } from './errno.ts';
import { libc } from './libc.ts';

const FOLDER = '/run/netns';
const CLONE_NEWNET = 0x4000_0000;
const O_RDONLY_CLOEXEC = 0o2000000;

/**
 * Runs `work` with this thread in the namespace. Nothing else runs on the thread meanwhile, so `work` is not asynchronous; a
 * program that it starts is in the namespace too.
 *
 * @throws Error saying which namespace cannot be entered, or what `work` throws
 */
export function withinNamespace<T>(name: string, work: () => T): T {
  const { open, setns, close, errno } = libc();
  const home = open('/proc/thread-self/ns/net', O_RDONLY_CLOEXEC);
  if (home < 0) throw new SystemError('open the network namespace of the program', errno());
  try {
    const there = open(pathOf(name), O_RDONLY_CLOEXEC);
    if (there < 0) throw openError(name, errno());
    const entered = setns(there, CLONE_NEWNET);
    const failure = entered < 0 ? errno() : 0;
    close(there);
    if (entered < 0) throw enterError(name, failure);
    try {
      return work();
    } finally {
      if (setns(home, CLONE_NEWNET) < 0) leaveFailed(errno());
    }
  } finally {
    close(home);
  }
}

/** Whether there is a namespace of that name or path. */
export function namespaceExists(name: string): boolean {
  return existsSync(pathOf(name));
}

function pathOf(name: string): string {
  return name.startsWith('/') ? name : `${FOLDER}/${name}`;
}

function openError(name: string, errno: number): SystemError {
  const hint = errno === ERRNO.ENOENT ? `There is none of that name: ip netns add ${name}` : undefined;
  return new SystemError(`open the network namespace ${name}`, errno, hint);
}

function enterError(name: string, errno: number): SystemError {
  const hint = errno === ERRNO.EPERM ? 'This needs root, or the capability CAP_SYS_ADMIN' : undefined;
  return new SystemError(`enter the network namespace ${name}`, errno, hint);
}

/** Sockets that are opened from now on would be in the wrong place: nothing good can come of going on. */
function leaveFailed(errno: number): never {
  const error = new SystemError('return to the network namespace of the program', errno);
  process.stderr.write(`${messageOf(error)}\n`);
  process.abort();
}
