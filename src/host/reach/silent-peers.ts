/**
 * Peers that do not answer, for no known reason: after ten seconds a report says which datagrams must reach the peer, and the
 * status shows it until the peer is heard. It is reported once, not again for each attempt.
 */
import { formatSocketAddress } from '../../base/address.ts';
import type { PeerRouteReport } from './peer-routes.ts';
import type { SendTarget } from './send-refusals.ts';

/** A peer that has not answered for this many milliseconds counts as silent. */
const SILENCE = 10_000;

export interface SilentPeersOptions {
  readonly report: (report: PeerRouteReport) => void;
  /** Whether something else is reported that explains a tunnel's silence. */
  readonly explained: (tunnel: string) => boolean;
}

interface Shown {
  readonly text: string;
  /** When it was reported, on the host's clock. */
  readonly at: number;
}

export class SilentPeers {
  readonly #options: SilentPeersOptions;
  /** By the name of the tunnel. BOUNDED: by the tunnels. */
  readonly #shown = new Map<string, Shown>();

  constructor(options: SilentPeersOptions) {
    this.#options = options;
  }

  forget(tunnel: string): void {
    this.#shown.delete(tunnel);
  }

  /** Silent peers of a tunnel, a sentence each. */
  degraded(tunnel: string): string[] {
    const shown = this.#shown.get(tunnel);
    return shown === undefined || this.#options.explained(tunnel) ? [] : [shown.text];
  }

  /** To be called every few seconds. @param at the host's clock, milliseconds @param targets all there are */
  check(at: number, targets: Iterable<SendTarget>): void {
    const { report, explained } = this.#options;
    for (const target of targets) {
      const { tunnel, lastHeardAt, unanswered } = target;
      const shown = this.#shown.get(tunnel);
      if (unanswered !== undefined && at - unanswered.since >= SILENCE) {
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
  return `${to} does not answer. Firewalls must pass UDP from ${from} to ${to} and back; to see where it stops, run at both ends: tcpdump -ni any ${filter}`;
}
