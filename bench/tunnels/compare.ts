/** What one tunnel of many carries, and what packets cost that no tunnel concerns, beside the same with one tunnel. */
import type { Namespace } from '../../test/support/lab/namespace.ts';
import type { Side } from '../../test/support/lab/tunnel.ts';
import type { BenchRow } from '../row.ts';
import { median } from '../stats.ts';
import { type Line, Load, sendDatagrams } from '../tunnel/load.ts';
import { UNCONCERNED } from './hosts.ts';
import { type Shape, SIDES } from './shape.ts';

const PINGS = 100;
/** Bytes of payload of what no tunnel concerns. */
const SMALL = 64;

export interface Pace {
  readonly rounds: number;
  /** Of each load. */
  readonly seconds: number;
}

/** What there is of both: one tunnel alone, and one of many. */
export interface Compared {
  readonly line: Line;
  readonly near: Readonly<Record<Side, Namespace>>;
}

/** Figures of the one alone, and the ratios of those of the many to them, in rounds in turn. */
export async function compare(one: Compared, many: Compared, { sides }: Shape, pace: Pace): Promise<BenchRow[]> {
  const loads = new Map<Compared, Load>();
  const measures: readonly (readonly [name: string, unit: string, take: (of: Compared) => Promise<number>])[] = [
    ['tcp', 'Mbit/s', async (of) => (await loads.get(of)!.tcp('one', pace.seconds)).megabits],
    ['ping', 'ms', async (of) => median((await loads.get(of)!.ping(PINGS)).times)],
    ...SIDES.map(
      (side) =>
        [`unconcerned/${sides[side]}`, 'ns', ({ near }: Compared) => forwarded(near[side], pace.seconds)] as const,
    ),
  ];
  const values = measures.map(() => ({ one: [] as number[], many: [] as number[] }));
  try {
    for (const of of [one, many]) {
      const load = await Load.start(of.line);
      loads.set(of, load);
      // To warm up: the programs compile what packets go through.
      await load.tcp('one', pace.seconds);
    }
    for (let round = 0; round < pace.rounds; round++) {
      for (const [at, [, , take]] of measures.entries()) {
        const { one: alone, many: among } = values[at]!;
        // Back and forth, so that a drift during a round favours neither.
        if (round % 2 === 0) alone.push(await take(one));
        among.push(await take(many));
        if (round % 2 === 1) alone.push(await take(one));
      }
    }
  } finally {
    for (const load of loads.values()) await load.stop();
  }
  return measures.flatMap(([name, unit], at) => rowsOf(name, unit, values[at]!));
}

function rowsOf(
  name: string,
  unit: string,
  { one, many }: { readonly one: readonly number[]; readonly many: readonly number[] },
): BenchRow[] {
  const ratios = many.map((value, round) => value / one[round]!);
  return [
    { name: `${name}/one`, value: median(one), unit, rounds: one },
    { name: `${name}/many`, value: median(many), unit, rounds: many },
    { name: `${name}/ratio`, value: median(ratios), unit: 'x', rounds: ratios },
  ];
}

/**
 * Each packet goes all the way through the gateway to the far host within the call that sends it.
 * @returns nanoseconds a packet
 */
async function forwarded(near: Namespace, seconds: number): Promise<number> {
  return 1e6 * (await sendDatagrams({ from: near, ...UNCONCERNED, size: SMALL, seconds })).each;
}
