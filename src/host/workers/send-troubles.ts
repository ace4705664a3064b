/**
 * Reports of a worker about datagrams that were not sent or did not arrive, at a bounded rate: that some were larger than
 * their path takes, what routers say about them, and why the system or ICMP refuses others.
 */
import type { SocketAddress } from '../../base/address.ts';
import type { PathReport } from '../../base/path-report.ts';
import type { UdpQueue } from '../../tun/udp/queue.ts';
import type { WorkerLoop } from './loop.ts';
import type { WorkerReport } from './messages.ts';

/** Milliseconds between two reports, and how many path reports and refusals, which any host can cause, go out in it. */
const PAUSE = 100;
const MAX_REPORTS = 32;

export class SendTroubles {
  readonly #loop: Pick<WorkerLoop, 'now' | 'report'>;
  #reported = 0;
  #reportedAt = Number.NEGATIVE_INFINITY;
  #reportsSince = Number.NEGATIVE_INFINITY;
  #pathReports = 0;
  /** Peers whose refusals were reported since. BOUNDED: `MAX_REPORTS`. */
  readonly #refused = new Set<SocketAddress>();

  constructor(loop: Pick<WorkerLoop, 'now' | 'report'>) {
    this.#loop = loop;
  }

  /** Reports what a socket's end learns of its datagrams. */
  watch(end: UdpQueue): void {
    end.onPathReport = (report) => this.#reportPath(report);
    end.onRefusal = (remote, error) => this.#reportRefusal({ type: 'refused', remote, error });
  }

  /** @param count all datagrams so far that the system found too large */
  reportTooLarge(count: number): void {
    if (count === this.#reported) return;
    const now = this.#loop.now();
    if (count > this.#reported) {
      if (now - this.#reportedAt < PAUSE) return;
      this.#reportedAt = now;
      this.#loop.report({ type: 'too-large' });
    }
    this.#reported = count;
  }

  /** Path reports beyond the bound are dropped: the router reports the next packet too. */
  #reportPath(report: PathReport): void {
    this.#startPeriod();
    if (++this.#pathReports <= MAX_REPORTS) this.#loop.report({ type: 'path-report', report });
  }

  /** One report for each peer is enough. Its address stays the same object while it is in use. */
  #reportRefusal(report: Extract<WorkerReport, { type: 'refused' }>): void {
    this.#startPeriod();
    if (this.#refused.has(report.remote) || this.#refused.size >= MAX_REPORTS) return;
    this.#refused.add(report.remote);
    this.#loop.report(report);
  }

  #startPeriod(): void {
    const now = this.#loop.now();
    if (now - this.#reportsSince < PAUSE) return;
    this.#reportsSince = now;
    this.#pathReports = 0;
    this.#refused.clear();
  }
}
