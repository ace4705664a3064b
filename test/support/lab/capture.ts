/** What passes on a line, by tcpdump: kept in a file, counted with its filters afterwards. */
import { join } from 'node:path';
import type { Lab } from './lab.ts';
import type { Namespace } from './namespace.ts';
import { type Background, run, waitFor } from './process.ts';

let counter = 0;

export class Capture {
  readonly file: string;
  readonly #tcpdump: Background;

  private constructor(file: string, tcpdump: Background) {
    this.file = file;
    this.#tcpdump = tcpdump;
  }

  static async start(lab: Lab, namespace: Namespace, device: string): Promise<Capture> {
    // A batch that leaves by segmentation offload would stand in the capture as one large frame.
    await namespace.ip([`link set ${device} gso_max_segs 1`]);
    const file = join(lab.folder, `capture-${counter++}.pcap`);
    const argv = ['tcpdump', '--immediate-mode', '-n', '-U', '-Z', 'root', '-i', device, '-w', file];
    const tcpdump = namespace.spawn('tcpdump', argv);
    lab.defer(() => tcpdump.stop());
    await waitFor('tcpdump to listen', () => {
      if (!tcpdump.alive) throw new Error(tcpdump.output);
      return tcpdump.output.includes('listening on') || undefined;
    });
    return new Capture(file, tcpdump);
  }

  async stop(): Promise<void> {
    await this.#tcpdump.stop('SIGINT');
  }

  /** The packets that a filter picks, one a line as tcpdump prints them. */
  async packets(filter: string): Promise<string[]> {
    const { stdout } = await run(['tcpdump', '-n', '-r', this.file, filter]);
    return stdout.split('\n').filter((line) => line !== '');
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
