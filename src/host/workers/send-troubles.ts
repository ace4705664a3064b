/**
 * What a worker tells the main thread of datagrams that did not get out or arrive, now and then: that some were larger than
 * their path takes, what routers say of them, and why the system or ICMP refuses others.
 */
import type { SocketAddress } from '../../base/address.ts';
import type { PathReport } from '../../base/path-report.ts';
import type { UdpEnd } from '../../tun/udp/queue.ts';
import type { WorkerLoop } from './loop.ts';
import type { WorkerReport } from './messages.ts';

/** Milliseconds between two reports; and what routers and refusals may say meanwhile, which anyone can cause. */
const PAUSE = 100;
const MAX_REPORTS = 32;

export class SendTroubles {
  readonly #loop: Pick<WorkerLoop, 'now' | 'report'>;
  #told = 0;
  #toldAt = Number.NEGATIVE_INFINITY;
  #reportsSince = Number.NEGATIVE_INFINITY;
  #pathReports = 0;
  /** Ends that refusals were told of since. BOUNDED: `MAX_REPORTS`. */
  readonly #refused = new Set<SocketAddress>();

  constructor(loop: Pick<WorkerLoop, 'now' | 'report'>) {
    this.#loop = loop;
  }

  /** Hears what the end of a socket is told. */
  hear(end: UdpEnd): void {
    end.onPathReport = (report) => this.#pass(report);
    end.onRefusal = (remote, error) => this.#refuse({ type: 'refused', remote, error });
  }

  /** @param count of all datagrams so far that were too large, as the system told */
  look(count: number): void {
    if (count === this.#told) return;
    const now = this.#loop.now();
    if (count > this.#told) {
      if (now - this.#toldAt < PAUSE) return;
      this.#toldAt = now;
      this.#loop.report({ type: 'too-large' });
    }
    this.#told = count;
  }

  /** What is beyond the bound is dropped: the router says it again of the next packet. */
  #pass(report: PathReport): void {
    this.#begin();
    if (++this.#pathReports <= MAX_REPORTS) this.#loop.report({ type: 'path-report', report });
  }

  /** Addresses are the same objects as long as they are in use; of each, once is enough. */
  #refuse(report: Extract<WorkerReport, { type: 'refused' }>): void {
    this.#begin();
    if (this.#refused.has(report.remote) || this.#refused.size >= MAX_REPORTS) return;
    this.#refused.add(report.remote);
    this.#loop.report(report);
  }

  #begin(): void {
    const now = this.#loop.now();
    if (now - this.#reportsSince < PAUSE) return;
    this.#reportsSince = now;
    this.#pathReports = 0;
    this.#refused.clear();
  }
}
