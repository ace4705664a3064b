/**
 * Path MTU discovery of a socket that carries ESP. The kernel learns the MTU of paths from ICMP that quotes the ports of
 * a socket, which anyone can guess, so its result is not used here. Packets have don't-fragment set (IP_PMTUDISC_PROBE);
 * their SA decides their size, and checks reports against what it has sent. The kernel fragments only IKE, and packets that
 * are known to be too large for the path.
 *
 * Kernel interface: ip(7), ipv6(7). RFC 1191, RFC 8201.
 */
import type { IpFamily } from '../../base/address.ts';
import { libc } from '../../sys/libc.ts';
import * as layout from './layout.ts';

/** Fragments packets above the path MTU that the kernel knows; others have don't-fragment set. */
const PMTUDISC_WANT = 1;
/** Always sets don't-fragment, and ignores the path MTU that the kernel knows. */
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

  /** `own`: don't-fragment always; else the kernel decides. False when the system refuses. */
  set(whose: 'own' | 'kernel'): boolean {
    return libc().setsockopt(this.#fd, this.#level, this.#option, whose === 'own' ? this.#own : this.#kernels) === 0;
  }
}
