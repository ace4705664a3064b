/**
 * Peers that do not answer, where nothing says why: after ten seconds it is told which datagrams must get which way, and
 * shown until the peer is heard. Attempts follow one another, so the next one says nothing anew.
 */
import { formatSocketAddress } from '../../base/address.ts';
import type { WayReport } from './peer-ways.ts';
import type { SendTarget } from './send-refusals.ts';

/** Without an answer for so long a peer counts as silent. Milliseconds. */
const SILENCE = 10_000;
/** Between two looks. Milliseconds. */
const LOOK = 2_500;

export interface SilentPeersOptions {
  readonly targets: () => readonly SendTarget[];
  readonly now: () => number;
  readonly report: (report: WayReport) => void;
  /** Whether something is told of a tunnel that is the reason: that is enough then. */
  readonly explained: (tunnel: string) => boolean;
}

interface Shown {
  readonly text: string;
  /** When it was told, on the host's clock. */
  readonly at: number;
}

export class SilentPeers {
  readonly #options: SilentPeersOptions;
  /** By the name of the tunnel. BOUNDED: by the tunnels. */
  readonly #shown = new Map<string, Shown>();
  readonly #timer: NodeJS.Timeout;

  constructor(options: SilentPeersOptions) {
    this.#options = options;
    this.#timer = setInterval(() => this.#look(), LOOK).unref();
  }

  forget(tunnel: string): void {
    this.#shown.delete(tunnel);
  }

  /** What is to be said of a tunnel's peers that do not answer, a sentence each. */
  degraded(tunnel: string): string[] {
    const shown = this.#shown.get(tunnel);
    return shown === undefined || this.#options.explained(tunnel) ? [] : [shown.text];
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const { targets, now, report, explained } = this.#options;
    const at = now();
    for (const target of targets()) {
      const { tunnel, lastHeardAt, waiting } = target;
      const shown = this.#shown.get(tunnel);
      if (waiting !== undefined && at - waiting.since >= SILENCE) {
        if (shown !== undefined) continue;
        const text = silenceText(target);
        this.#shown.set(tunnel, { text, at });
        if (!explained(tunnel)) report({ tunnel, level: 'warn', text, event: 'degraded' });
      } else if (shown !== undefined && lastHeardAt !== undefined && lastHeardAt > shown.at) {
        this.#shown.delete(tunnel);
        report({
          tunnel,
          level: 'info',
          text: `${formatSocketAddress(target.remote)} answers again`,
          event: 'restored',
        });
      }
    }
  }
}

function silenceText({ local, remote }: SendTarget): string {
  const filter = [...new Set([local.port, remote.port])].map((port) => `udp port ${port}`).join(' or ');
  const [from, to] = [local, remote].map(formatSocketAddress);
  return `${to} does not answer: UDP must get from ${from} to ${to} and back, through all firewalls; see, at both ends: tcpdump -ni any ${filter}`;
}
