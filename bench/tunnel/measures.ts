/** The figures that are taken of a system, and one system's turn in a round. */
import { Lab } from '../../test/support/lab/lab.ts';
import { median, percentile } from '../stats.ts';
import { Load, type PingResult, type TcpKind } from './load.ts';
import { greatestRate } from './search.ts';
import type { Running, System } from './systems.ts';
import { cpuSeconds, machineTime, peakMemory, stolenSince } from './usage.ts';

interface Metric {
  readonly title: string;
  readonly unit: string;
}

export type MetricName =
  | 'tcp-1'
  | 'tcp-4'
  | 'tcp-both'
  | 'udp-1300'
  | 'udp-1300-pps'
  | 'udp-64'
  | 'udp-64-pps'
  | 'ping-idle-median'
  | 'ping-idle-p99'
  | 'ping-load-median'
  | 'ping-load-p99'
  | 'ping-load-lost'
  | 'cpu'
  | 'memory'
  | 'stolen';

export const METRICS: Readonly<Record<MetricName, Metric>> = {
  'tcp-1': { title: 'TCP, one stream', unit: 'Mbit/s' },
  'tcp-4': { title: 'TCP, four streams', unit: 'Mbit/s' },
  'tcp-both': { title: 'TCP, both ways at once, sum', unit: 'Mbit/s' },
  'udp-1300': { title: 'UDP, 1,300 bytes, at most 1 % lost', unit: 'Mbit/s' },
  'udp-1300-pps': { title: 'UDP, 1,300 bytes, received when flooded', unit: '1/s' },
  'udp-64': { title: 'UDP, 64 bytes, at most 1 % lost', unit: 'Mbit/s' },
  'udp-64-pps': { title: 'UDP, 64 bytes, received when flooded', unit: '1/s' },
  'ping-idle-median': { title: 'Ping when idle, median', unit: 'ms' },
  'ping-idle-p99': { title: 'Ping when idle, 99th percentile', unit: 'ms' },
  'ping-load-median': { title: 'Ping beside one TCP stream, median', unit: 'ms' },
  'ping-load-p99': { title: 'Ping beside one TCP stream, 99th percentile', unit: 'ms' },
  'ping-load-lost': { title: 'Ping beside one TCP stream, lost', unit: '%' },
  cpu: { title: 'CPU time of both ends, one TCP stream', unit: 's/GiB' },
  memory: { title: 'Most resident memory of an end', unit: 'MiB' },
  stolen: { title: 'CPU time wanted, and taken by the host', unit: '%' },
};

export const METRIC_NAMES: readonly MetricName[] = Object.keys(METRICS) as MetricName[];

/** What one turn measured; what failed is not there. */
export type Sample = Partial<Record<MetricName, number>>;

/** Durations in whole seconds, numbers of echo requests and of probes. */
export interface Pace {
  readonly warmUp: number;
  readonly tcp: number;
  readonly flood: number;
  readonly probe: number;
  readonly probes: number;
  readonly pings: number;
}

export const FULL: Pace = { warmUp: 2, tcp: 5, flood: 2, probe: 1, probes: 9, pings: 300 };
export const QUICK: Pace = { warmUp: 1, tcp: 1, flood: 1, probe: 1, probes: 4, pings: 100 };

const UDP_SIZES = [1300, 64] as const;
const GIB = 2 ** 30;

export interface TurnOptions {
  readonly pace: Pace;
  /** Called before each measurement. */
  readonly onStep: (what: string) => void;
  /** Called with what went wrong in one; the others are made nevertheless. */
  readonly onFailure: (what: string, why: string) => void;
}

/** Sets a system up, measures, and takes it down again. */
export async function takeTurn(system: System, options: TurnOptions): Promise<Sample> {
  const lab = new Lab();
  const sample: Sample = {};
  try {
    const logs = lab.logsSince();
    const attempt = async (what: string, action: () => Promise<void>): Promise<void> => {
      options.onStep(what);
      await action().catch((error: unknown) => {
        options.onFailure(what, `${error instanceof Error ? error.message : String(error)}\n${logs()}`);
      });
    };
    await attempt('start', async () => {
      const running = await system.start(lab);
      const load = await Load.start(running.line);
      lab.defer(() => load.stop());
      await load.quiet();
      const before = machineTime();
      for (const [what, measure] of measurements(running, load, options.pace, sample)) {
        await attempt(what, async () => {
          await measure();
          await load.quiet();
        });
      }
      sample.stolen = stolenSince(before);
    });
  } finally {
    await lab.dispose();
  }
  return sample;
}

type Measurement = readonly [what: string, measure: () => Promise<void>];

function measurements(running: Running, load: Load, pace: Pace, sample: Sample): Measurement[] {
  const tcp = (kind: TcpKind, metric: MetricName): Measurement => [
    metric,
    async () => {
      sample[metric] = (await load.tcp(kind, pace.tcp)).megabits;
    },
  ];
  const { processes } = running;
  return [
    [
      'warm-up',
      async () => {
        await load.tcp('one', pace.warmUp);
      },
    ],
    ['ping-idle', async () => addPing(sample, 'ping-idle', await load.ping(pace.pings))],
    ['tcp-1', () => measureStream(running, load, pace, sample)],
    tcp('four', 'tcp-4'),
    tcp('both', 'tcp-both'),
    ['ping-load', async () => addPing(sample, 'ping-load', await load.pingUnderLoad(pace.pings))],
    ...UDP_SIZES.map((size): Measurement => [`udp-${size}`, () => measureUdp(size, load, pace, sample)]),
    [
      'memory',
      async () => {
        if (processes.length > 0) sample.memory = Math.max(...processes.map(peakMemory));
      },
    ],
  ];
}

/** One TCP stream, and the processor time that both ends took for it. */
async function measureStream({ processes }: Running, load: Load, pace: Pace, sample: Sample): Promise<void> {
  const used = (): number => processes.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
  const before = used();
  const { bytes, megabits } = await load.tcp('one', pace.tcp);
  sample['tcp-1'] = megabits;
  if (processes.length > 0) sample.cpu = ((used() - before) * GIB) / bytes;
}

async function measureUdp(size: (typeof UDP_SIZES)[number], load: Load, pace: Pace, sample: Sample): Promise<void> {
  const flooded = await load.udp(size, pace.flood);
  sample[`udp-${size}-pps`] = flooded.received;
  const rate = await greatestRate(flooded.received, pace.probes, async (packets) => {
    await load.quiet();
    return load.udp(size, pace.probe, packets);
  });
  sample[`udp-${size}`] = (rate * size * 8) / 1e6;
}

/** What was lost has no time; it is told apart from the percentiles of the rest. */
function addPing(sample: Sample, metric: 'ping-idle' | 'ping-load', { times, lost }: PingResult): void {
  sample[`${metric}-median`] = median(times);
  sample[`${metric}-p99`] = percentile(times, 0.99);
  if (metric === 'ping-load') sample['ping-load-lost'] = (100 * lost) / (lost + times.length);
}
