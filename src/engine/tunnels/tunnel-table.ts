/** The tunnels of an engine: by name, by the number that the data plane knows them by, and by their connections. */
import { Numbered } from '../../base/numbered.ts';
import { WakeQueue } from '../../base/wake-queue.ts';
import { type DropCounters, newDropCounters } from '../../esp/drops.ts';
import type { IkeEvent } from '../../ike/events.ts';
import type { TunnelConfig } from '../config.ts';
import type { SaTable } from '../sa-table.ts';
import { Tunnel, type TunnelMeans } from '../tunnel.ts';

export class TunnelTable {
  // BOUNDED: the owner's configuration, all three.
  readonly #byName = new Map<string, Tunnel>();
  readonly #numbered = new Numbered<Tunnel>();
  readonly #byConnection = new Map<string, Tunnel>();
  /** When the next attempt of a tunnel is due, where one is planned. BOUNDED: by the tunnels. */
  readonly #retries = new WakeQueue<Tunnel>();
  /** What tunnels dropped on the way in that are not here any more. */
  readonly #dropsOfFormer = newDropCounters();

  /** A tunnel with a number that is free; not in the table yet. @throws RangeError when its name is taken */
  make(config: TunnelConfig, means: Omit<TunnelMeans, 'onRetry'>): Tunnel {
    if (this.#byName.has(config.name)) throw new RangeError(`there is a tunnel named ${config.name} already`);
    return new Tunnel(this.#numbered.next, config, {
      ...means,
      onRetry: (tunnel, at) => this.#retries.set(tunnel, at),
    });
  }

  add(tunnel: Tunnel): void {
    for (const { name } of tunnel.config.connections) this.#byConnection.set(name, tunnel);
    this.#numbered.add(tunnel);
    this.#byName.set(tunnel.config.name, tunnel);
  }

  delete(tunnel: Tunnel): void {
    for (const { name } of tunnel.config.connections) this.#byConnection.delete(name);
    this.#numbered.remove(tunnel.index);
    this.#byName.delete(tunnel.config.name);
    this.#retries.set(tunnel, undefined);
    for (const [reason, count] of tunnel.counters.inboundDrops.entries()) this.#dropsOfFormer[reason]! += count;
  }

  /** Those of all inbound drops that belong to no tunnel. */
  strayDrops(all: DropCounters): DropCounters {
    const stray = Float64Array.from(all);
    const others = [this.#dropsOfFormer, ...[...this.values()].map(({ counters }) => counters.inboundDrops)];
    // Without iterators: it is asked for with each status, and there may be thousands.
    for (const drops of others) for (let reason = 0; reason < drops.length; reason++) stray[reason]! -= drops[reason]!;
    return stray;
  }

  /** When the first of the planned attempts is due. */
  nextRetry(): number | undefined {
    return this.#retries.next();
  }

  /** The tunnels whose planned attempts are due, each once. */
  takeRetries(now: number): readonly Tunnel[] {
    return this.#retries.takeDue(now);
  }

  get(name: string): Tunnel | undefined {
    return this.#byName.get(name);
  }

  at(index: number): Tunnel | undefined {
    return this.#numbered.get(index);
  }

  of(connection: string): Tunnel | undefined {
    return this.#byConnection.get(connection);
  }

  /** The tunnel that something of IKE is about. */
  ofEvent(event: IkeEvent, sas: SaTable): Tunnel | undefined {
    switch (event.type) {
      case 'child-up':
        return this.of(event.child.connection);
      case 'ike-up':
        return this.of(event.ikeSa.connection);
      case 'child-send':
        return sas.get(event.childId)?.tunnel;
      case 'path-changed':
        return sas.ofIkeSa(event.ikeSaId)?.tunnel;
      default:
        return event.connection === undefined ? undefined : this.of(event.connection);
    }
  }

  values(): Iterable<Tunnel> {
    return this.#byName.values();
  }
}
