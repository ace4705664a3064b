/** For `handshake.ts`: sets up and takes down again and again, and takes the time. */
import type { IkeEndpoint } from '../src/ike/endpoint.ts';
import type { BenchRow } from './row.ts';
import { median } from './stats.ts';

/** Two endpoints, and how one is brought to answer the other. */
export interface Pair {
  /** `handshake/psk` */
  readonly name: string;
  readonly ends: readonly [IkeEndpoint, IkeEndpoint];
  /** Carries messages and answers what is asked until there is nothing left to do. */
  readonly exchange: (now: number) => void | Promise<void>;
}

/** Milliseconds of one set-up. */
interface Spent {
  readonly clock: number;
  readonly cpu: number;
}

/** Set-ups a second. */
interface Figures extends Spent {
  readonly whole: number;
}

export class Run {
  readonly #pair: Pair;
  readonly #rounds: Figures[] = [];
  #count = 0;

  constructor(pair: Pair) {
    this.#pair = pair;
  }

  keep(figures: Figures): void {
    this.#rounds.push(figures);
  }

  async measure(milliseconds: number): Promise<Figures> {
    const first = this.#count;
    const start = performance.now();
    let [clock, cpu] = [0, 0];
    while (performance.now() - start < milliseconds) {
      const spent = await this.#setUp();
      clock += spent.clock;
      cpu += spent.cpu;
    }
    const rate = (spent: number): number => ((this.#count - first) * 1_000) / spent;
    return { clock: rate(clock), cpu: rate(cpu), whole: rate(performance.now() - start) };
  }

  /**
   * Brings one up, checks that it is, and takes it down again. Each has a minute of the endpoints' time for itself.
   * @returns milliseconds from the call that begins it until both sides have it
   */
  async #setUp(): Promise<Spent> {
    const { ends, exchange } = this.#pair;
    const now = this.#count++ * 60_000;
    for (const end of ends) end.handleTimeout(now);
    const cpu = process.cpuUsage();
    const start = performance.now();
    ends[0].initiate(now, 'bench');
    await exchange(now);
    const clock = performance.now() - start;
    const { user, system } = process.cpuUsage(cpu);
    for (const end of ends) if (end.status()[0]?.children.length !== 1) throw new Error('the set-up failed');
    ends[0].closeConnection(now, 'bench');
    await exchange(now);
    return { clock, cpu: (user + system) / 1_000 };
  }

  rows(): BenchRow[] {
    const row = (part: string, figure: keyof Figures): BenchRow => {
      const rounds = this.#rounds.map((round) => round[figure]);
      return { name: `${this.#pair.name}${part}`, value: median(rounds), unit: '1/s', rounds };
    };
    return [row('', 'clock'), row('/cpu', 'cpu'), row('/whole', 'whole')];
  }
}
