/**
 * CHILD SAs whose ESP is received directly over IP where it must come in UDP, as where another tunnel has the raw socket open.
 * RFC 7296 §2.23: such packets are to be taken at any time, and each side may choose, but once a NAT is detected both must
 * encapsulate. So ours go on in UDP, which such a peer may drop.
 */
import type { PeerRouteReport } from './peer-routes.ts';
import { bareText, type ChildTarget, type NewestChildren, newest } from './unheard-children.ts';

export interface BareChildrenOptions {
  /** CHILD SAs of a tunnel. */
  readonly targets: (tunnel: string) => readonly ChildTarget[];
  readonly report: (report: PeerRouteReport) => void;
}

export class BareChildren {
  readonly #options: BareChildrenOptions;
  /** Those that are reported, by tunnel and traffic. BOUNDED: by the CHILD SAs. */
  #reported = new Set<string>();

  constructor(options: BareChildrenOptions) {
    this.#options = options;
  }

  /** To be called every few seconds. @param children all there are */
  check(children: NewestChildren): void {
    const before = this.#reported;
    this.#reported = new Set();
    for (const [key, target] of children) {
      const { id, name, tunnel, heard, receivesBare } = target;
      if (receivesBare) {
        this.#reported.add(key);
        if (!before.has(key))
          this.#options.report({ tunnel, level: 'warn', text: bareText(target), event: 'degraded' });
      } else if (heard && before.has(key)) {
        const text = `CHILD SA #${id} ${name}: packets are received in UDP now`;
        this.#options.report({ tunnel, level: 'info', text, event: 'restored' });
      }
    }
  }

  /** Of a tunnel, a sentence each. */
  degraded(tunnel: string): string[] {
    return [...newest(this.#options.targets(tunnel)).values()].filter(({ receivesBare }) => receivesBare).map(bareText);
  }
}
