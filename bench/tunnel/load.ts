/**
 * Load on a line and what gets through: streams of iperf3 from the left end to the right one, datagrams, echo requests.
 * Programs have time limits; a queue that a former load left behind is waited for.
 */
import { join } from 'node:path';
import type { Namespace } from '../../test/support/lab/namespace.ts';
import { type Background, waitFor } from '../../test/support/lab/process.ts';
import { projectRoot } from '../../test/support/lab/root.ts';
import type { ReceiveReport, SendReport } from './datagrams.ts';
import type { Probe } from './search.ts';
import { listens } from './usage.ts';

/** Two hosts, and the addresses between which the load goes. */
export interface Line {
  readonly left: Namespace;
  readonly right: Namespace;
  readonly source: string;
  readonly destination: string;
}

export type TcpKind = 'one' | 'four' | 'both';

export interface TcpResult {
  /** Payload that arrived, both ways together. */
  readonly bytes: number;
  readonly megabits: number;
}

export interface PingResult {
  /** Milliseconds, of those that were answered. */
  readonly times: readonly number[];
  readonly lost: number;
}

const PORT = 5201;
const UDP_PORT = 5202;
/** Milliseconds of a load that are not counted: programs warm up. */
const FIRST_MOMENT = 250;
const TCP_OPTIONS: Readonly<Record<TcpKind, readonly string[]>> = { one: [], four: ['-P', '4'], both: ['--bidir'] };
/** What a load may take longer than it was asked to, in milliseconds: queues, and the exchange of results. */
const GRACE = 20_000;
const PING_INTERVAL = 0.01;
/** A line is quiet when an echo takes less, in milliseconds. */
const QUIET = 50;
const QUIET_TIMEOUT = 15_000;

/** What is used of iperf3's own report. */
interface Report {
  readonly error?: string;
  readonly end: {
    readonly sum_received: Sum;
    readonly sum_received_bidir_reverse?: Sum;
  };
}
interface Sum {
  readonly bytes: number;
  readonly seconds: number;
}
export class Load {
  readonly #line: Line;
  readonly #server: Background;

  private constructor(line: Line, server: Background) {
    this.#line = line;
    this.#server = server;
  }

  static async start(line: Line): Promise<Load> {
    const options = ['-s', '-J', '-p', String(PORT), '-B', line.destination];
    const server = line.right.spawn('iperf3', ['iperf3', ...options]);
    const load = new Load(line, server);
    await waitFor('the iperf3 server', () => {
      if (!server.alive) throw new Error(server.output);
      return listens(server.pid, PORT) ? true : undefined;
    });
    return load;
  }

  async stop(): Promise<void> {
    await this.#server.stop('SIGKILL');
  }

  /** @param seconds a whole number */
  async tcp(kind: TcpKind, seconds: number): Promise<TcpResult> {
    const { end } = await this.#client(seconds, TCP_OPTIONS[kind]);
    const sums = [
      end.sum_received,
      ...(end.sum_received_bidir_reverse === undefined ? [] : [end.sum_received_bidir_reverse]),
    ];
    const bytes = sums.reduce((sum, each) => sum + each.bytes, 0);
    return { bytes, megabits: sums.reduce((sum, each) => sum + (each.bytes * 8) / each.seconds / 1e6, 0) };
  }

  /**
   * Datagrams of one size at a rate, as fast as can be without one. The rate of what arrived is that of the time in which
   * the sender sent, without the first moment.
   * @param rate packets a second
   */
  async udp(size: number, seconds: number, rate = 0): Promise<Probe> {
    const { left, right, source, destination } = this.#line;
    const receiver = right.spawn('datagram receiver', datagramTool('receive', destination, UDP_PORT));
    try {
      await waitFor('the datagram receiver', () => (receiver.output.startsWith('ready') ? true : undefined));
      const sent = await sendDatagrams({ from: left, source, destination, size, seconds, rate });
      const report = await waitFor('the receiver to hear nothing more', () => receiveReport(receiver), GRACE);
      return toProbe(sent, report);
    } finally {
      await receiver.stop('SIGKILL');
    }
  }

  async ping(count: number): Promise<PingResult> {
    const { left, source, destination } = this.#line;
    const options = ['-n', '-I', source, '-c', String(count), '-i', String(PING_INTERVAL), '-W', '2'];
    const { stdout } = await left.exec(['ping', ...options, destination], {
      check: false,
      timeout: count * PING_INTERVAL * 1_000 + GRACE,
    });
    const times = [...stdout.matchAll(/ time=([\d.]+) ms/g)].map((match) => Number(match[1]));
    return { times, lost: count - times.length };
  }

  /** Echo requests while one TCP stream runs. */
  async pingUnderLoad(count: number): Promise<PingResult> {
    const stream = this.tcp('one', Math.ceil(count * PING_INTERVAL * 1.2) + 1);
    const echoes = new Promise((resolve) => setTimeout(resolve, 500)).then(() => this.ping(count));
    const [result] = await Promise.all([echoes, stream]);
    return result;
  }

  /** Waits until what a former load left in queues has gone. */
  async quiet(): Promise<void> {
    await waitFor(
      'the line to be quiet',
      async () => ((await this.ping(3)).times.filter((time) => time < QUIET).length === 3 ? true : undefined),
      QUIET_TIMEOUT,
    );
  }

  async #client(seconds: number, options: readonly string[]): Promise<Report> {
    const { left, source, destination } = this.#line;
    const ends = ['-c', destination, '-B', source, '-p', String(PORT), '-t', String(seconds)];
    const { stdout } = await left.exec(['iperf3', '-J', ...ends, ...options], {
      check: false,
      timeout: seconds * 1_000 + GRACE,
    });
    const report = parseReport(stdout);
    if (report.error !== undefined) throw new Error(`iperf3 ${options.join(' ')}: ${report.error}`);
    return report;
  }
}

function parseReport(text: string): Report {
  try {
    return JSON.parse(text) as Report;
  } catch {
    throw new Error(`iperf3 printed no report: ${text.slice(0, 200)}`);
  }
}

const DATAGRAM_TOOL = join(projectRoot(), 'build/bench/tunnel/datagrams.js');

export interface DatagramFlow {
  readonly from: Namespace;
  readonly source: string;
  readonly destination: string;
  /** Bytes of payload. */
  readonly size: number;
  readonly seconds: number;
  /** Packets a second; as fast as can be without. */
  readonly rate?: number;
}

/** Sends, whether anything arrives or not. */
export async function sendDatagrams({
  from,
  source,
  destination,
  size,
  seconds,
  rate = 0,
}: DatagramFlow): Promise<SendReport> {
  const argv = datagramTool('send', source, destination, UDP_PORT, size, Math.round(rate), seconds);
  const { stdout } = await from.exec(argv, { timeout: seconds * 1_000 + GRACE });
  return JSON.parse(stdout) as SendReport;
}

function datagramTool(...words: readonly (string | number)[]): string[] {
  return [process.execPath, DATAGRAM_TOOL, ...words.map(String)];
}

function receiveReport({ alive, output }: Background): ReceiveReport | undefined {
  const [, report] = output.split('\n');
  if (!alive && !report?.startsWith('{')) throw new Error(`the datagram receiver failed: ${output}`);
  return alive ? undefined : (JSON.parse(report!) as ReceiveReport);
}

function toProbe({ start, end, sent }: SendReport, { total, samples }: ReceiveReport): Probe {
  const during = samples.filter(([time]) => time >= start + FIRST_MOMENT && time <= end);
  const [first, last] = [during[0], during.at(-1)];
  const received = first === undefined || last === undefined ? 0 : (last[1] - first[1]) / (last[0] - first[0]);
  return {
    sent: (sent * 1_000) / (end - start),
    received: received * 1_000,
    loss: sent === 0 ? 1 : 1 - total / sent,
  };
}
