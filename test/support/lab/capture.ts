/** What passes on a line, by tcpdump: kept in a file, counted with its filters afterwards. */
import { join } from 'node:path';
import type { Lab } from './lab.ts';
import type { Namespace } from './namespace.ts';
import { type Background, run, STARTING, waitFor } from './process.ts';

const COUNTS = /(\d+) packets? captured, (\d+) packets? received by filter, (\d+) packets? dropped by kernel/;

/** For what waits to be written, in KiB: of its own accord tcpdump has room for some dozen packets. */
const ROOM = 65_536;

let counter = 0;

export class Capture {
  readonly file: string;
  readonly #tcpdump: Background;

  private constructor(file: string, tcpdump: Background) {
    this.file = file;
    this.#tcpdump = tcpdump;
  }

  /** @param device not `lo`, where the kernel counts a packet twice that is written once */
  static async start(lab: Lab, namespace: Namespace, device: string): Promise<Capture> {
    // A batch that leaves by segmentation offload would stand in the capture as one large frame.
    await namespace.ip([`link set ${device} gso_max_segs 1`]);
    const file = join(lab.folder, `capture-${counter++}.pcap`);
    const options = ['--immediate-mode', '-B', String(ROOM), '-n', '-U', '-Z', 'root'];
    const argv = ['tcpdump', ...options, '-i', device, '-w', file];
    const tcpdump = namespace.spawn('tcpdump', argv);
    lab.defer(() => tcpdump.stop());
    await waitFor(
      'tcpdump to listen',
      () => {
        if (!tcpdump.alive) throw new Error(tcpdump.output);
        return tcpdump.output.includes('listening on') || undefined;
      },
      STARTING,
    );
    return new Capture(file, tcpdump);
  }

  /** Of tcpdump. */
  get pid(): number {
    return this.#tcpdump.pid;
  }

  /** Ends when tcpdump has written all that passed: on a busy machine it comes late to it. */
  async stop(): Promise<void> {
    await waitFor('tcpdump to write what passed', async () => {
      const { captured, received, dropped } = await this.#counts();
      if (dropped > 0) throw new Error(`${dropped} packets passed that tcpdump had no room for`);
      return captured === received || undefined;
    });
    await this.#tcpdump.stop('SIGINT');
  }

  /** What was written so far, and what the kernel took from the line for it, or had to leave. */
  async #counts(): Promise<{ captured: number; received: number; dropped: number }> {
    const before = this.#tcpdump.output.length;
    this.#tcpdump.signal('SIGUSR1');
    const found = await waitFor('tcpdump to tell its counts', () => {
      if (!this.#tcpdump.alive) throw new Error(this.#tcpdump.output);
      return COUNTS.exec(this.#tcpdump.output.slice(before)) ?? undefined;
    });
    const [captured, received, dropped] = found.slice(1).map(Number) as [number, number, number];
    return { captured, received, dropped };
  }

  /** The packets that a filter picks, one a line as tcpdump prints them. */
  async packets(filter: string): Promise<string[]> {
    const { stdout } = await run(['tcpdump', '-n', '-r', this.file, filter]);
    return stdout.split('\n').filter((line) => line !== '');
  }

  /** When they passed, in milliseconds since 1970. */
  async times(filter: string): Promise<number[]> {
    const { stdout } = await run(['tcpdump', '-n', '-tt', '-r', this.file, filter]);
    return stdout.split('\n').flatMap((line) => (line === '' ? [] : [1000 * Number.parseFloat(line)]));
  }

  /** The same with their IP headers told, each packet on one line. */
  async headers(filter: string): Promise<string[]> {
    const { stdout } = await run(['tcpdump', '-n', '-v', '-r', this.file, filter]);
    return stdout
      .replace(/\n\s+/g, ' ')
      .split('\n')
      .filter((line) => line !== '');
  }

  /** The frames that a display filter of Wireshark picks, one a line as it sums them up. */
  async frames(displayFilter: string, options: readonly string[] = []): Promise<string[]> {
    const { stdout } = await run(['tshark', '-n', '-r', this.file, ...options, '-Y', displayFilter], {
      timeout: 30_000,
    });
    return stdout.split('\n').filter((line) => line !== '');
  }
}
