/** From samples to figures: medians, ratios, the table, and what is wanted beside what was reached. */
import type { BenchRow } from '../row.ts';
import { median } from '../stats.ts';
import type { Panel } from '../svg.ts';
import { columns, round } from '../text.ts';
import { METRIC_NAMES, METRICS, type MetricName, type Sample } from './measures.ts';

/** Per system, in the order in which they are shown: one sample for each round. */
export type Samples = ReadonlyMap<string, readonly Sample[]>;

const OWN_PREFIX = 'sectunnel-';
const PEERS = ['strongswan', 'wireguard-go', 'veth'] as const;
type Peer = (typeof PEERS)[number];

/** A ratio of ours to a peer's figure. `provider`: of ours; without it the first that was measured. */
interface Wanted {
  readonly what: string;
  readonly metric: MetricName;
  readonly provider?: string;
  readonly against: Peer;
  readonly bound: 'at least' | 'at most';
  readonly ratio: number;
}

export const WANTED: readonly Wanted[] = [
  {
    what: 'TCP, one stream, ipsec-mb',
    metric: 'tcp-1',
    provider: 'ipsec-mb',
    against: 'strongswan',
    bound: 'at least',
    ratio: 10,
  },
  {
    what: 'TCP, one stream, openssl',
    metric: 'tcp-1',
    provider: 'openssl',
    against: 'strongswan',
    bound: 'at least',
    ratio: 7,
  },
  { what: 'TCP, one stream', metric: 'tcp-1', against: 'wireguard-go', bound: 'at least', ratio: 8 },
  {
    what: 'UDP, 1,300 bytes, at most 1 % lost',
    metric: 'udp-1300',
    against: 'strongswan',
    bound: 'at least',
    ratio: 4,
  },
  {
    what: 'UDP, 64 bytes, received when flooded',
    metric: 'udp-64-pps',
    against: 'strongswan',
    bound: 'at least',
    ratio: 2,
  },
  { what: 'Ping when idle, median', metric: 'ping-idle-median', against: 'strongswan', bound: 'at most', ratio: 1 },
  {
    what: 'Ping beside one TCP stream, p99',
    metric: 'ping-load-p99',
    against: 'strongswan',
    bound: 'at most',
    ratio: 1,
  },
  { what: 'CPU time per GiB', metric: 'cpu', against: 'strongswan', bound: 'at most', ratio: 0.2 },
];

/** In MiB. */
export const MAX_MEMORY = 250;

const CHARTS: readonly MetricName[] = [
  'tcp-1',
  'tcp-4',
  'tcp-both',
  'udp-1300',
  'udp-64-pps',
  'ping-idle-median',
  'ping-load-p99',
  'cpu',
  'memory',
];

function rounds(samples: Samples, system: string, metric: MetricName): number[] {
  const values = (samples.get(system) ?? []).map((sample) => sample[metric]);
  return values.filter((value) => value !== undefined && Number.isFinite(value)) as number[];
}

/** The median of the rounds; NaN when there is none. */
function figure(samples: Samples, system: string, metric: MetricName): number {
  return median(rounds(samples, system, metric));
}

function own(samples: Samples): string[] {
  return [...samples.keys()].filter((name) => name.startsWith(OWN_PREFIX));
}

/**
 * `tunnel/tcp-1/sectunnel-openssl`, `tunnel/tcp-1/ratio-strongswan` for the first of our providers, and
 * `tunnel/tcp-1/ratio-strongswan-openssl` for the others.
 */
export function tunnelRows(samples: Samples): BenchRow[] {
  return METRIC_NAMES.flatMap((metric) => [
    ...[...samples.keys()].flatMap((system) => {
      const values = rounds(samples, system, metric);
      if (values.length === 0) return [];
      return [
        { name: `tunnel/${metric}/${system}`, value: median(values), unit: METRICS[metric].unit, rounds: values },
      ];
    }),
    ...PEERS.flatMap((peer) =>
      own(samples).flatMap((system, index) => {
        const value = figure(samples, system, metric) / figure(samples, peer, metric);
        const suffix = index === 0 ? '' : `-${system.slice(OWN_PREFIX.length)}`;
        return Number.isFinite(value) ? [{ name: `tunnel/${metric}/ratio-${peer}${suffix}`, value, unit: 'x' }] : [];
      }),
    ),
  ]);
}

export function tunnelTable(samples: Samples): string {
  const systems = [...samples.keys()];
  const head = ['', '', ...systems];
  const body = METRIC_NAMES.map((metric) => [
    METRICS[metric].title,
    METRICS[metric].unit,
    ...systems.map((system) => round(figure(samples, system, metric))),
  ]);
  return columns([head, ...body], [0, 1]);
}

export function wantedTable(samples: Samples): string {
  const lines = WANTED.map(({ what, metric, provider, against, bound, ratio }) => {
    const ours = provider === undefined ? own(samples)[0] : `${OWN_PREFIX}${provider}`;
    const reached = ours === undefined ? Number.NaN : figure(samples, ours, metric) / figure(samples, against, metric);
    const met = bound === 'at least' ? reached >= ratio : reached <= ratio;
    return [what, `to ${against}`, `${bound} ${ratio}x`, quantity(reached, 'x'), verdict(reached, met)];
  });
  const peaks = own(samples).flatMap((system) => rounds(samples, system, 'memory'));
  const memory = peaks.length === 0 ? Number.NaN : Math.max(...peaks);
  lines.push([
    'Most resident memory',
    '',
    `below ${MAX_MEMORY} MiB`,
    quantity(memory, ' MiB'),
    verdict(memory, memory < MAX_MEMORY),
  ]);
  return columns([['', '', 'wanted', 'reached', ''], ...lines], [0, 1, 2, 4]);
}

function quantity(value: number, unit: string): string {
  return Number.isFinite(value) ? `${round(value)}${unit}` : round(value);
}

function verdict(value: number, met: boolean): string {
  if (!Number.isFinite(value)) return 'not measured';
  return met ? 'met' : 'not met';
}

export function tunnelPanels(samples: Samples): Panel[] {
  return CHARTS.map((metric) => ({
    title: METRICS[metric].title,
    unit: METRICS[metric].unit,
    bars: [...samples.keys()]
      .filter((system) => rounds(samples, system, metric).length > 0)
      .map((system) => ({
        label: system,
        value: figure(samples, system, metric),
        own: system.startsWith(OWN_PREFIX),
      })),
  })).filter(({ bars }) => bars.length > 0);
}
