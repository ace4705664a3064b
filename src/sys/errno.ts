/** Why system calls fail: errno by name, and the error that says which call failed, why, and what to raise. */
import { libc } from './libc.ts';
import { shortageNamed, shortageText } from './shortage.ts';

/** Errno by name; Linux's numbers, which differ between processors only for names that are not used here. */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  EXDEV: 18,
  ENODEV: 19,
  EINVAL: 22,
  EMFILE: 24,
  ENOSPC: 28,
  EBADFD: 77,
  EMSGSIZE: 90,
  ENOPROTOOPT: 92,
  EPROTONOSUPPORT: 93,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
  EADDRNOTAVAIL: 99,
  ENETUNREACH: 101,
  ENOBUFS: 105,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
} as const;

/** A system call failed. `code` is the errno's name (`EPERM`). The message of a shortage says what to raise. */
export class SystemError extends Error {
  override readonly name = 'SystemError';
  /** What was attempted: the call, and on what. */
  readonly call: string;
  readonly errno: number;
  readonly code: string;
  /** The system's own explanation, where it has one. */
  readonly detail: string | undefined;

  constructor(call: string, errno: number, detail?: string) {
    const { errorText, errnoName } = libc();
    const code = errnoName(errno) ?? `errno ${errno}`;
    const text = errno === 0 ? 'failed' : errorText(errno);
    const shortage = shortageNamed(code);
    const more = detail ?? (shortage && shortageText(shortage));
    super(`${call}: ${text} (${code})${more === undefined ? '' : `. ${more}`}`);
    this.call = call;
    this.errno = errno;
    this.code = code;
    this.detail = detail;
  }
}
