/**
 * Load on a line and what gets through: iperf3 from the left end to the right one, echo requests beside it. Programs
 * have time limits; a queue that a former load left behind is waited for.
 */
import { readFileSync } from 'node:fs';
import type { Namespace } from '../../test/support/lab/namespace.ts';
import { type Background, waitFor } from '../../test/support/lab/process.ts';
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
const SOCKET_BUFFER = 4 * 1024 * 1024;
const TCP_OPTIONS: Readonly<Record<TcpKind, readonly string[]>> = { one: [], four: ['-P', '4'], both: ['--bidir'] };
/** Of the receiver's report, in seconds. */
const REPORT_INTERVAL = 0.25;
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
    readonly sum_sent: { readonly packets?: number; readonly seconds: number };
    readonly sum_received: Sum;
    readonly sum_received_bidir_reverse?: Sum;
  };
  readonly server_output_json?: { readonly intervals: readonly { readonly sum: IntervalSum }[] };
}
interface Sum {
  readonly bytes: number;
  readonly seconds: number;
}
interface IntervalSum extends Sum {
  readonly start: number;
  readonly end: number;
}

export class Load {
  readonly #line: Line;
  readonly #server: Background;

  private constructor(line: Line, server: Background) {
    this.#line = line;
    this.#server = server;
  }

  static async start(line: Line): Promise<Load> {
    const options = ['-s', '-J', '-i', String(REPORT_INTERVAL), '-p', String(PORT), '-B', line.destination];
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
   * Datagrams of one size at a rate, as fast as can be without one. What arrived is taken from the receiver's own
   * report and from the time in which the sender sent, without the first moment.
   * @param rate packets a second
   */
  async udp(size: number, seconds: number, rate?: number): Promise<Probe> {
    // A receiver that has to wait for its turn must not lose what the tunnel has delivered.

    const bandwidth = rate === undefined ? '0' : String(Math.round(rate * size * 8));
    const options = ['-u', '-l', String(size), '-b', bandwidth, '--get-server-output', ...socketBuffers()];
    const report = await this.#client(seconds, options);
    const sent = report.end.sum_sent.packets;
    const intervals = report.server_output_json?.intervals.map(({ sum }) => sum);
    if (sent === undefined || intervals === undefined) throw new Error('iperf3 told nothing of the datagrams');
    const during = intervals.filter(
      ({ start, end }) => start >= REPORT_INTERVAL / 2 && end <= seconds + REPORT_INTERVAL / 2,
    );
    const [bytes, time] = [total(during, 'bytes'), total(during, 'seconds')];
    return {
      sent: sent / report.end.sum_sent.seconds,
      received: time === 0 ? 0 : bytes / size / time,
      loss: sent === 0 ? 1 : Math.max(0, 1 - total(intervals, 'bytes') / size / sent),
    };
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

/** As large as the kernel lets them be: iperf3 refuses to run with less than it asked for. */
function socketBuffers(): string[] {
  const limits = ['rmem_max', 'wmem_max'].map((name) => Number(readFileSync(`/proc/sys/net/core/${name}`, 'utf8')));
  return ['-w', String(Math.min(SOCKET_BUFFER, ...limits))];
}

function parseReport(text: string): Report {
  try {
    return JSON.parse(text) as Report;
  } catch {
    throw new Error(`iperf3 printed no report: ${text.slice(0, 200)}`);
  }
}

function total(sums: readonly Sum[], key: keyof Sum): number {
  return sums.reduce((sum, each) => sum + each[key], 0);
}
