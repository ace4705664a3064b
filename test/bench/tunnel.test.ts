import { describe, expect, it } from 'vitest';
import { median, percentile } from '../../bench/stats.ts';
import { barCharts } from '../../bench/svg.ts';
import { tunnelRows, wantedTable } from '../../bench/tunnel/report.ts';
import { greatestRate, type Probe } from '../../bench/tunnel/search.ts';
import { leastDisturbed } from '../../bench/tunnel/undisturbed.ts';
import { machineTime, stolenSince } from '../../bench/tunnel/usage.ts';

describe('figures of samples', () => {
  it('take the median, between two where their number is even', () => {
    expect(median([9, 1, 5])).toBe(5);
    expect(median([10, 9, 1, 2])).toBe(5.5);
    expect(median([])).toBeNaN();
  });

  it('take percentiles by nearest rank', () => {
    const samples = Array.from({ length: 200 }, (_, i) => 200 - i);
    expect(percentile(samples, 0.99)).toBe(198);
    expect(percentile([7], 0.99)).toBe(7);
    expect(percentile([], 0.99)).toBeNaN();
  });
});

describe('the search for the greatest rate', () => {
  /** A tunnel that carries so many packets a second and drops what is above. */
  const dropping = (capacity: number) => (rate: number) =>
    Promise.resolve({ sent: rate, received: Math.min(rate, capacity), loss: Math.max(0, 1 - capacity / rate) });

  it.each([1_000, 17_000, 20_000, 110_000])('finds %i packets a second from 20,000', async (capacity) => {
    const found = await greatestRate(20_000, 30, dropping(capacity));
    expect(found).toBeLessThanOrEqual(capacity);
    expect(found).toBeGreaterThan(capacity * 0.93);
  });

  it('keeps to its number of probes, and finds nothing when none is carried', async () => {
    let probes = 0;
    const found = await greatestRate(1_000, 5, () => {
      probes++;
      return Promise.resolve({ sent: 1_000, received: 10, loss: 0.99 });
    });
    expect([probes, found]).toEqual([5, 0]);
  });

  it('does not take a growing queue for a carried rate', async () => {
    const queueing = (rate: number): Promise<Probe> =>
      Promise.resolve({ sent: rate, received: Math.min(rate, 5_000), loss: 0 });
    expect(await greatestRate(8_000, 30, queueing)).toBeLessThanOrEqual(5_000);
  });

  it('gives a rate that failed a second chance', async () => {
    let probes = 0;
    const hiccup = (rate: number): Promise<Probe> =>
      probes++ === 0 ? Promise.resolve({ sent: rate, received: 0, loss: 1 }) : dropping(10_000)(rate);
    expect(await greatestRate(9_900, 12, hiccup)).toBeGreaterThan(9_300);
  });

  it('ends where the sender can do no more', async () => {
    let probes = 0;
    const slow = (rate: number): Promise<Probe> => {
      probes++;
      const sent = Math.min(rate, 3_000);
      return Promise.resolve({ sent, received: sent, loss: 0 });
    };
    expect(await greatestRate(2_900, 30, slow)).toBe(3_000);
    expect(probes).toBe(2);
  });
});

describe('processor time that the host takes', () => {
  // user nice system idle iowait irq softirq steal guest guest_nice
  const before = machineTime('cpu  100 10 50 5000 70 1 2 30 9 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n');

  it('is told of what was wanted, which idle processors are not', () => {
    expect(before).toEqual({ wanted: 193, stolen: 30 });
    const later = machineTime('cpu  160 20 70 9000 90 2 3 40 9 0\n');
    expect(stolenSince(before, later)).toBeCloseTo((100 * 10) / 102);
    expect(stolenSince(before, before)).toBe(0);
  });

  it('is read of this machine', () => {
    const { wanted, stolen } = machineTime();
    expect(wanted).toBeGreaterThan(0);
    expect(stolen).toBeGreaterThanOrEqual(0);
  });
});

describe('a turn', () => {
  /** Turns of which so much was stolen, numbered by their TCP. */
  async function taken(...stolen: readonly (number | undefined)[]) {
    let turns = 0;
    const told: number[] = [];
    const sample = await leastDisturbed(
      () => {
        const share = stolen[turns++];
        return Promise.resolve(share === undefined ? {} : { 'tcp-1': turns, stolen: share });
      },
      (share) => told.push(share),
    );
    return { turns, told, sample };
  }

  it('that the host left alone is taken once', async () => {
    expect(await taken(3)).toEqual({ turns: 1, told: [], sample: { 'tcp-1': 1, stolen: 3 } });
  });

  it('that it did not is taken again', async () => {
    expect(await taken(40, 9, 1)).toEqual({ turns: 2, told: [40], sample: { 'tcp-1': 2, stolen: 9 } });
  });

  it('is the least disturbed of three when none was left alone', async () => {
    expect(await taken(40, 20, 30, 0)).toEqual({ turns: 3, told: [40, 20], sample: { 'tcp-1': 2, stolen: 20 } });
  });

  it('that failed is not taken again, nor preferred', async () => {
    expect(await taken(undefined, 1)).toEqual({ turns: 1, told: [], sample: {} });
    expect(await taken(40, undefined, 1)).toEqual({ turns: 2, told: [40], sample: { 'tcp-1': 1, stolen: 40 } });
  });
});

describe('the report', () => {
  const samples = new Map([
    ['sectunnel-ipsec-mb', [{ 'tcp-1': 1_000, cpu: 3 }, { 'tcp-1': 1_200, cpu: 1 }, { 'tcp-1': 1_100 }]],
    ['sectunnel-openssl', [{ 'tcp-1': 500, memory: 90 }]],
    ['strongswan', [{ 'tcp-1': 100, cpu: 20 }, {}, { 'tcp-1': 100 }]],
  ]);

  it('has medians with their rounds, and ratios for each provider', () => {
    const rows = tunnelRows(samples);
    expect(rows).toContainEqual({
      name: 'tunnel/tcp-1/sectunnel-ipsec-mb',
      value: 1_100,
      unit: 'Mbit/s',
      rounds: [1_000, 1_200, 1_100],
    });
    expect(rows).toContainEqual({ name: 'tunnel/tcp-1/ratio-strongswan', value: 11, unit: 'x' });
    expect(rows).toContainEqual({ name: 'tunnel/tcp-1/ratio-strongswan-openssl', value: 5, unit: 'x' });
    expect(rows.filter(({ name }) => name.includes('wireguard-go'))).toEqual([]);
    expect(rows.filter(({ value }) => !Number.isFinite(value))).toEqual([]);
  });

  it('reports which of the required figures are met', () => {
    const lines = wantedTable(samples).split('\n');
    const verdict = (start: string) =>
      /(met|not met|not measured)$/.exec(lines.find((line) => line.startsWith(start))!)![1];
    expect(verdict('TCP, one stream, ipsec-mb')).toBe('met');
    expect(verdict('TCP, one stream, openssl')).toBe('not met');
    expect(verdict('TCP, one stream  ')).toBe('not measured');
    expect(verdict('CPU time per GiB')).toBe('met');
    expect(lines.find((line) => line.startsWith('TCP, one stream  '))).toMatch(/ – {2}not measured$/);
  });

  it('draws a bar for each system, and escapes its words', () => {
    const svg = barCharts(
      [
        {
          title: 'a < b',
          unit: 's',
          bars: [
            { label: 'x', value: 2, own: true },
            { label: 'y', value: Number.NaN, own: false },
          ],
        },
      ],
      'this & that',
    );
    expect(svg).toContain('a &lt; b (s)');
    expect(svg).toContain('<title>this &amp; that</title>');
    expect(svg).toMatch(/<text [^>]*>this &amp; that<\/text>/);
    expect(svg.match(/<rect x=/g)).toHaveLength(2);
    expect(svg).not.toContain('NaN');
  });
});
