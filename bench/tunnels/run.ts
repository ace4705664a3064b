/** What many tunnels are put through on both gateways, and what it takes. */
import type { DaemonClient } from '../../src/control/client.ts';
import { waitFor } from '../../test/support/lab/process.ts';
import { cpuSeconds, residentMemory } from '../tunnel/usage.ts';
import type { Gateway, Gateways } from './gateway.ts';
import { Prober } from './prober.ts';

/** Requests that one side has under way. */
const AT_ONCE = 8;
const UP_TIMEOUT = 600_000;
const UP_INTERVAL = 500;
/** Seconds for which gateways with all tunnels up are left alone. */
const IDLE = 10;

export interface SideFigures {
  /** Seconds. */
  readonly define: number;
  readonly start: number;
  readonly cpu: number;
  /** Of one processor, in percent. */
  readonly idle: number;
  /** KiB a tunnel. */
  readonly memory: number;
  /** Milliseconds that a command took at worst, from the first definition on until all are up. */
  readonly latency: number;
}

export interface Figures {
  readonly left: SideFigures;
  readonly right: SideFigures;
  /** Seconds from the first start until all are up. */
  readonly up: number;
  /** Of those that were refused. */
  readonly refused: readonly string[];
}

/** Defines and starts all tunnels on both gateways, and waits until they are up. */
export async function bringUp({ left, right }: Gateways): Promise<Figures> {
  const sides = [left, right].map((gateway) => new SideRun(gateway));
  const refused: string[] = [];
  const define: number[] = [];
  for (const side of sides) define.push(await side.define());
  const began = performance.now();
  // Who answers first: a peer that is not there yet only costs time.
  const start = await Promise.all(sides.map((side) => side.start(refused)));
  for (const side of sides) await side.allUp(refused.length);
  const up = seconds(began);
  const idle = await Promise.all(sides.map((side) => side.idle()));
  const figures = sides.map((side, at) => ({ define: define[at]!, start: start[at]!, idle: idle[at]!, ...side.end() }));
  return { left: figures[0]!, right: figures[1]!, up, refused };
}

/** Ends the daemon in good order, peers are told. @returns seconds */
export async function stopAll({ ours }: Gateway): Promise<number> {
  const began = performance.now();
  await ours.stop();
  return seconds(began);
}

class SideRun {
  readonly #gateway: Gateway;
  readonly #prober: Prober;
  readonly #before: { readonly cpu: number; readonly memory: number };

  constructor(gateway: Gateway) {
    this.#gateway = gateway;
    const { pid } = gateway.ours;
    this.#before = { cpu: cpuSeconds(pid), memory: residentMemory(pid) };
    this.#prober = new Prober(gateway.client());
  }

  async define(): Promise<number> {
    const began = performance.now();
    await this.#each(async (client, at) => {
      await client.call('define', { xml: this.#gateway.documents[at]! });
    });
    return seconds(began);
  }

  async start(refused: string[]): Promise<number> {
    const began = performance.now();
    await this.#each(async (client, at) => {
      const name = this.#gateway.names[at]!;
      await client.call('start', { name }).catch((error: unknown) => refused.push(`${name}: ${String(error)}`));
    });
    return seconds(began);
  }

  async #each(work: (client: DaemonClient, at: number) => Promise<void>): Promise<void> {
    let next = 0;
    const { length } = this.#gateway.names;
    const lane = async (): Promise<void> => {
      const client = this.#gateway.client();
      while (next < length) await work(client, next++);
      client.close();
    };
    await Promise.all(Array.from({ length: AT_ONCE }, lane));
  }

  /** @param without so many */
  async allUp(without: number): Promise<void> {
    const client = this.#gateway.client();
    const wanted = this.#gateway.names.length - without;
    await waitFor(
      `${wanted} tunnels to be up`,
      async () => {
        const { tunnels } = await client.call('list', {});
        return tunnels.filter(({ state }) => state === 'up').length >= wanted ? true : undefined;
      },
      UP_TIMEOUT,
      UP_INTERVAL,
    );
    client.close();
  }

  async idle(): Promise<number> {
    this.#prober.pause();
    const { pid } = this.#gateway.ours;
    const [before, began] = [cpuSeconds(pid), performance.now()];
    await new Promise((resolve) => setTimeout(resolve, IDLE * 1_000));
    return (100 * (cpuSeconds(pid) - before)) / seconds(began);
  }

  end(): Pick<SideFigures, 'cpu' | 'memory' | 'latency'> {
    const { pid } = this.#gateway.ours;
    return {
      cpu: cpuSeconds(pid) - this.#before.cpu,
      memory: ((residentMemory(pid) - this.#before.memory) * 1_024) / this.#gateway.names.length,
      latency: this.#prober.end(),
    };
  }
}

function seconds(since: number): number {
  return (performance.now() - since) / 1_000;
}
