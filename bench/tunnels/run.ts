/** What two gateways with many tunnels between them are put through, and what it takes. */
import type { Side } from '../../test/support/lab/tunnel.ts';
import { round } from '../text.ts';
import { type CpuTimes, cpuTimes, threadSeconds } from '../tunnel/usage.ts';
import { type Latency, Prober } from './prober.ts';
import type { Gateway, Questions } from './system.ts';

/** Milliseconds. */
const LOOK = 20;
/** From one line about the progress to the next. */
const TELLING = 5_000;
const STOP_TIMEOUT = 120_000;

export type Gateways = Readonly<Record<Side, Gateway>>;

export interface SideFigures {
  /** Seconds. */
  readonly define: number;
  /** `undefined` where nothing has to be started. */
  readonly start: number | undefined;
  /** Seconds of processor time until all were up. */
  readonly cpu: number;
  /** Of programs that it ran. */
  readonly cpuOfPrograms: number;
  /** From the first definition on until all were up. */
  readonly latency: Latency;
}

export interface BringUp {
  readonly sides: Readonly<Record<Side, SideFigures>>;
  /** Seconds from the initiator's start until all were up at both sides; `undefined` when some did not come up. */
  readonly up: number | undefined;
  /** Names of those that came up at both sides. */
  readonly reached: ReadonlySet<string>;
  /** What did not succeed. */
  readonly failures: readonly string[];
}

export interface BringUpOptions {
  /** How many tunnels there are. */
  readonly count: number;
  readonly onStep: (what: string) => void;
}

/** Defines and starts all tunnels on both gateways, the initiator's last, and waits until they are up. */
export async function bringUp(gateways: Gateways, { count, onStep }: BringUpOptions): Promise<BringUp> {
  const left = await SideRun.begin(gateways.left);
  const right = await SideRun.begin(gateways.right);
  for (const [side, run] of Object.entries({ left, right })) {
    onStep(`defining at the ${side} side`);
    await run.define();
  }
  onStep('starting at the left side');
  await left.start();
  onStep('starting at the right side');
  const countUp = (): number => Math.min(left.reached.size, right.reached.size);
  const telling = setInterval(() => onStep(`${countUp()} of ${count} up`), TELLING);
  try {
    const began = performance.now();
    await right.start();
    const lacking = await waitUntilUp(countUp, count - Math.max(left.refused.length, right.refused.length));
    const took = seconds(began);
    const failures = [...left.refused, ...right.refused, ...(lacking === undefined ? [] : [lacking])];
    const reached = new Set([...left.reached].filter((name) => right.reached.has(name)));
    const sides = { left: await left.end(), right: await right.end() };
    return { sides, up: failures.length === 0 ? took : undefined, reached, failures };
  } finally {
    clearInterval(telling);
  }
}

/** Milliseconds. */
interface Limits {
  /** Until all are up. */
  readonly all: number;
  /** Without another that comes up. */
  readonly stall: number;
}

const LIMITS: Limits = { all: 600_000, stall: 60_000 };

/** @param countUp how many are up @returns how many came up where those were not all */
export async function waitUntilUp(
  countUp: () => number,
  count: number,
  limits: Limits = LIMITS,
): Promise<string | undefined> {
  const began = performance.now();
  let [most, changed] = [0, began];
  for (let isUp = countUp(); isUp < count; isUp = countUp()) {
    const now = performance.now();
    if (isUp > most) [most, changed] = [isUp, now];
    const isStalled = now - changed > limits.stall;
    if (isStalled || now - began > limits.all) {
      const without = isStalled ? `, and no other in the last ${round(limits.stall / 1_000)} s` : '';
      return `${most} of ${count} tunnels were up after ${round(seconds(began))} s${without}`;
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK));
  }
  return undefined;
}

class SideRun {
  readonly #gateway: Gateway;
  readonly #questions: Questions;
  readonly #prober: Prober;
  readonly #stopWatching: () => void;
  readonly #cpu: CpuTimes;
  #define = Number.NaN;
  #start: number | undefined;
  /** Names of tunnels that have come up. */
  readonly reached: ReadonlySet<string>;
  readonly refused: string[] = [];

  private constructor(gateway: Gateway, questions: Questions, reached: ReadonlySet<string>, stopWatching: () => void) {
    this.#gateway = gateway;
    this.#questions = questions;
    this.#stopWatching = stopWatching;
    this.reached = reached;
    this.#cpu = cpuTimes(gateway.pid);
    this.#prober = new Prober(questions.all);
  }

  static async begin(gateway: Gateway): Promise<SideRun> {
    const reached = new Set<string>();
    const stopWatching = await gateway.watch((name) => reached.add(name));
    return new SideRun(gateway, await gateway.questions(), reached, stopWatching);
  }

  async define(): Promise<void> {
    const began = performance.now();
    this.#prober.during = 'define';
    this.refused.push(...(await this.#gateway.define()));
    this.#prober.during = 'defined';
    this.#define = seconds(began);
  }

  async start(): Promise<void> {
    const began = performance.now();
    this.#prober.during = 'start';
    const refused = await this.#gateway.start();
    this.#prober.during = 'until up';
    if (refused === undefined) return;
    this.refused.push(...refused);
    this.#start = seconds(began);
  }

  async end(): Promise<SideFigures> {
    const { own, programs } = cpuTimes(this.#gateway.pid);
    const cpu = { cpu: own - this.#cpu.own, cpuOfPrograms: programs - this.#cpu.programs };
    this.#stopWatching();
    try {
      return { define: this.#define, start: this.#start, ...cpu, latency: await this.#prober.end() };
    } finally {
      this.#questions.close();
    }
  }
}

/** Leaves both alone for some seconds. @returns what they take of one processor meanwhile, in percent */
export async function idle(gateways: Gateways, duration: number): Promise<Record<Side, number>> {
  const began = performance.now();
  const before = { left: threadSeconds(gateways.left.pid), right: threadSeconds(gateways.right.pid) };
  await new Promise((resolve) => setTimeout(resolve, duration * 1_000));
  const took = seconds(began);
  const share = (side: Side): number => (100 * (threadSeconds(gateways[side].pid) - before[side])) / took;
  return { left: share('left'), right: share('right') };
}

/** Ends both in good order, the initiator first. @returns seconds @throws Error when one does not end */
export async function stopBoth(gateways: Gateways): Promise<Record<Side, number>> {
  const right = await stop(gateways.right);
  return { left: await stop(gateways.left), right };
}

async function stop(gateway: Gateway): Promise<number> {
  const began = performance.now();
  if (await gateway.stop(STOP_TIMEOUT)) return seconds(began);
  throw new Error(`it did not end within ${STOP_TIMEOUT / 1_000} s, and was killed`);
}

function seconds(since: number): number {
  return (performance.now() - since) / 1_000;
}
