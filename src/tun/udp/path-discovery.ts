/**
 * Path MTU discovery of a socket that carries ESP. The kernel learns the MTU of paths from ICMP that quotes the ports of
 * a socket, which anyone can guess; so what it has learnt does not count here. Packets have don't-fragment set
 * (IP_PMTUDISC_PROBE), and their size is the business of their SA, which holds reports against what it has sent. Only what
 * is known to be too large for the path, and IKE, is left to the kernel to fragment, as it is of every other socket.
 *
 * Kernel interface: ip(7), ipv6(7). RFC 1191, RFC 8201.
 */
import type { IpFamily } from '../../base/address.ts';
import { libc } from '../../sys/libc.ts';
import * as layout from './layout.ts';

/** Fragment what does not fit what the kernel takes for the MTU of the path; else set don't-fragment. */
const PMTUDISC_WANT = 1;
/** Always set don't-fragment, and pay no regard to what the kernel takes for the MTU of the path. */
const PMTUDISC_PROBE = 3;

export class PathDiscovery {
  readonly #fd: number;
  readonly #level: number;
  readonly #option: number;
  readonly #own = new Uint8Array(Int32Array.of(PMTUDISC_PROBE).buffer);
  readonly #kernels = new Uint8Array(Int32Array.of(PMTUDISC_WANT).buffer);

  constructor(fd: number, family: IpFamily) {
    this.#fd = fd;
    [this.#level, this.#option] =
      family === 4 ? [layout.SOL_IP, layout.IP_MTU_DISCOVER] : [layout.SOL_IPV6, layout.IPV6_MTU_DISCOVER];
  }

  /** `own`: as said above; else as the kernel does. False when the system will not. */
  set(own: boolean): boolean {
    return libc().setsockopt(this.#fd, this.#level, this.#option, own ? this.#own : this.#kernels) === 0;
  }
}
