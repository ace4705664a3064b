/** One system's turn: gateways with many tunnels, beside gateways with one. */
import { Lab } from '../../test/support/lab/lab.ts';
import type { Side } from '../../test/support/lab/tunnel.ts';
import type { BenchRow } from '../row.ts';
import { round } from '../text.ts';
import { proportionalMemory } from '../tunnel/usage.ts';
import { compare, type Pace } from './compare.ts';
import { buildHosts, type Hosts, lineThrough } from './hosts.ts';
import { type BringUp, bringUp, type Gateways, idle, stopBoth } from './run.ts';
import { type Shape, SIDES, tunnelsOf } from './shape.ts';
import type { TunnelsSystem } from './system.ts';

export interface Size extends Pace {
  readonly count: number;
  /** Seconds for which gateways with all tunnels up are left alone. */
  readonly idle: number;
}

/** Failures of one kind that are told. */
const TOLD = 3;

interface Pair {
  readonly gateways: Gateways;
  readonly hosts: Hosts;
}

/** One system: set up, measured, and taken down again. What fails of it does not keep the rest from being measured. */
export class Turn {
  readonly rows: BenchRow[] = [];
  readonly conditions: Record<string, string> = {};
  readonly failures: string[] = [];
  readonly #system: TunnelsSystem;
  readonly #shape: Shape;
  readonly #size: Size;

  constructor(system: TunnelsSystem, shape: Shape, size: Size) {
    this.#system = system;
    this.#shape = shape;
    this.#size = size;
  }

  async take(): Promise<void> {
    const lab = new Lab();
    const logs = lab.logsSince();
    await this.#attempt('the run', () => this.#measure(lab));
    if (this.failures.length > 0) process.stderr.write(logs());
    await this.#attempt('the removal', () => lab.dispose());
  }

  async #measure(lab: Lab): Promise<void> {
    const { count } = this.#size;
    this.#step('one tunnel');
    const one = await this.#pair(lab, 1);
    const alone = await bringUp(one.gateways, { count: 1, onStep: () => undefined });
    this.#fail('one tunnel', alone.failures);
    const many = await this.#pair(lab, count);
    const figures = await bringUp(many.gateways, { count, onStep: (what) => this.#step(what) });
    this.#fail('bringing up', figures.failures);
    this.#addBringUp(figures);
    await this.#attempt('idle', async () => this.#addSides('idle', '%', await idle(many.gateways, this.#size.idle)));
    await this.#attempt('memory', () => this.#memory(one.gateways, many.gateways));
    await this.#attempt('traffic', () => this.#compare(one, many, [...figures.reached]));
    await this.#attempt('stop', async () => this.#addSides('stop', 's', await stopBoth(many.gateways)));
  }

  async #pair(lab: Lab, count: number): Promise<Pair> {
    const hosts = await buildHosts(lab, this.#shape, count);
    const tunnels = tunnelsOf(this.#shape, count);
    const start = (side: Side) => this.#system.start(lab, hosts.gateways[side], { side, tunnels });
    return { hosts, gateways: { left: await start('left'), right: await start('right') } };
  }

  async #memory(one: Gateways, many: Gateways): Promise<void> {
    if (this.#size.count === 1) return;
    const all = [one, many].flatMap((gateways) => SIDES.map((side) => gateways[side]));
    await Promise.all(all.map((gateway) => gateway.settle()));
    const resident = ({ left, right }: Gateways): Record<Side, number> => ({
      left: proportionalMemory(left.pid),
      right: proportionalMemory(right.pid),
    });
    const [alone, among] = [resident(one), resident(many)];
    const each = (side: Side): number => (1_024 * (among[side] - alone[side])) / (this.#size.count - 1);
    this.#addSides('memory', 'MiB', among);
    this.#addSides('memory-each', 'KiB', { left: each('left'), right: each('right') });
  }

  async #compare(one: Pair, many: Pair, reached: readonly string[]): Promise<void> {
    const some = reached[Math.floor(reached.length / 2)];
    if (some === undefined) throw new Error('no tunnel is up');
    const tunnel = tunnelsOf(this.#shape, this.#size.count).findIndex(({ name }) => name === some);
    const compared = ({ hosts }: Pair, number: number) => ({
      line: lineThrough(hosts, this.#shape, number),
      near: hosts.near,
    });
    for (const row of await compare(compared(one, 0), compared(many, tunnel), this.#shape, this.#size)) {
      this.rows.push({ ...row, name: this.#name(row.name) });
    }
  }

  #addBringUp({ sides: { left, right }, up, reached }: BringUp): void {
    const { count } = this.#size;
    const add = (what: string, unit: string, take: (side: BringUp['sides'][Side]) => number): void =>
      this.#addSides(what, unit, { left: take(left), right: take(right) });
    add('define', 's', ({ define }) => define);
    for (const side of SIDES) {
      const { start } = { left, right }[side];
      if (start !== undefined) this.#add(`start/${this.#shape.sides[side]}`, start, 's');
    }
    this.#add('reached', reached.size, 'tunnels');
    if (up !== undefined) this.#add('up', up, 's');
    add('cpu-each', 'ms', ({ cpu }) => (1_000 * cpu) / count);
    add('cpu-programs-each', 'ms', ({ cpuOfPrograms }) => (1_000 * cpuOfPrograms) / count);
    add('latency-worst', 'ms', ({ latency }) => latency.worst);
    add('latency-99', 'ms', ({ latency }) => latency.most);
    for (const side of SIDES) {
      const told = { left, right }[side].latency.slowest.map(
        ({ question, during, took }) => `${question} ${round(took)} ms (${during})`,
      );
      this.conditions[`${this.#system.name}, slowest answers, ${this.#shape.sides[side]}`] = told.join(', ');
    }
  }

  #addSides(what: string, unit: string, values: Readonly<Record<Side, number>>): void {
    for (const side of SIDES) this.#add(`${what}/${this.#shape.sides[side]}`, values[side], unit);
  }

  #add(what: string, value: number, unit: string): void {
    this.rows.push({ name: this.#name(what), value, unit });
  }

  #name(what: string): string {
    return `tunnels/${this.#shape.name}/${this.#system.name}/${this.#size.count}/${what}`;
  }

  async #attempt(what: string, work: () => Promise<void>): Promise<void> {
    this.#step(what);
    try {
      await work();
    } catch (error) {
      this.#fail(what, [error instanceof Error ? error.message : String(error)]);
    }
  }

  #fail(what: string, why: readonly string[]): void {
    const told = why.slice(0, TOLD).map((text) => text.split('\n')[0]);
    if (why.length > TOLD) told.push(`and ${why.length - TOLD} more`);
    this.failures.push(...told.map((text) => `${this.#system.name}, ${what}: ${text}`));
  }

  #step(what: string): void {
    process.stderr.write(`${this.#system.name}, ${this.#size.count} tunnels: ${what}\n`);
  }
}
