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
