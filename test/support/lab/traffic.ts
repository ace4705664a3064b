/** Traffic through a tunnel: ping, and UDP that an echo server answers. All of it bounded in number and in time. */
import { fileURLToPath } from 'node:url';
import type { Lab } from './lab.ts';
import type { Host, Namespace } from './namespace.ts';
import { type Background, STARTING, waitFor } from './process.ts';

const PROGRAM = fileURLToPath(new URL('traffic.mjs', import.meta.url));

export interface Burst {
  readonly sent: number;
  /** Echoes that came back whole. */
  readonly received: number;
  readonly damaged: number;
}

/** The command that serves echoes at an address. */
export function echoCommand(address: string, port: number): string[] {
  return [process.execPath, PROGRAM, 'echo', address, String(port)];
}

/** Answers UDP at `address` until the lab ends. */
export async function startEcho(lab: Lab, namespace: Namespace, address: string, port: number): Promise<Background> {
  const server = namespace.spawn(`echo at ${address}`, echoCommand(address, port));
  lab.defer(() => server.stop('SIGKILL'));
  await waitFor(
    `the echo server at ${address}: ${server.output}`,
    () => (server.output.includes('ready') ? true : undefined),
    STARTING,
  );
  return server;
}

export interface BurstOptions {
  readonly source: string;
  readonly destination: string;
  readonly port: number;
  /** Port of one's own; any when left out. */
  readonly sourcePort?: number;
  readonly count?: number;
  /** Bytes of UDP payload. */
  readonly size?: number;
  /** Milliseconds between two datagrams. */
  readonly pause?: number;
}

/** Sends datagrams to an echo server and counts the answers. */
export async function burst(host: Host, options: BurstOptions): Promise<Burst> {
  const { source, destination, port, sourcePort = 0, count = 20, size = 600, pause = 2 } = options;
  const numbers = [port, sourcePort, count, size, pause].map(String);
  const { stdout } = await host.exec([process.execPath, PROGRAM, 'burst', source, destination, ...numbers], {
    timeout: 15_000 + count * (pause + 2),
  });
  return JSON.parse(stdout) as Burst;
}

export interface SweepOptions {
  readonly source: string;
  readonly destinations: readonly string[];
  readonly port: number;
  /** Milliseconds between two datagrams. */
  readonly pause: number;
}

/** Datagrams that nobody answers, to one destination after another, again and again until it is stopped. */
export class Sweep {
  readonly #program: Background;

  private constructor(program: Background) {
    this.#program = program;
  }

  static async start(lab: Lab, namespace: Namespace, options: SweepOptions): Promise<Sweep> {
    const { source, destinations, port, pause } = options;
    const words = [process.execPath, PROGRAM, 'sweep', source, String(port), String(pause), ...destinations];
    const program = namespace.spawn(`sweep from ${source}`, words);
    lab.defer(() => program.stop('SIGKILL'));
    const sweep = new Sweep(program);
    await waitFor(`the sweep from ${source}`, () => sweep.#begun > 0 || undefined, STARTING);
    return sweep;
  }

  /** Rounds that were begun. */
  get #begun(): number {
    return this.#program.output.split('round').length - 1;
  }

  /** Waits until each destination was sent a datagram from now on. */
  async round(): Promise<void> {
    const begun = this.#begun;
    await waitFor(`a round of the ${this.#program.name}`, () => this.#begun > begun + 1 || undefined, STARTING);
  }

  async stop(): Promise<void> {
    await this.#program.stop('SIGTERM');
  }
}

export interface PingOptions {
  readonly source: string;
  readonly destination: string;
  readonly count?: number;
  /** Bytes behind the ICMP header. */
  readonly size?: number;
}

/** Seconds that an answer may take: a busy machine's peers may sleep for long. */
const PATIENCE = 4;

function pingCommand({ source, destination, count = 3, size = 56 }: PingOptions): string[] {
  // All at once (`-l`): when the last request is out, ping waits for the interval, which is the patience, or until
  // everything is answered; `-W` is for when nothing is at all.
  const numbers = ['-c', count, '-l', count, '-s', size, '-i', PATIENCE, '-W', PATIENCE].map(String);
  return ['ping', '-n', '-q', '-I', source, ...numbers, destination];
}

/** How many answers a ping's output tells of. */
function pingAnswers(output: string): number {
  const found = /(\d+) (?:packets )?received/.exec(output);
  return found === null ? 0 : Number(found[1]);
}

/** Sends echo requests and returns how many were answered. */
export async function ping(host: Host, options: PingOptions): Promise<number> {
  const { stdout } = await host.exec(pingCommand(options), { check: false, timeout: PATIENCE * 1_000 + 10_000 });
  return pingAnswers(stdout);
}
