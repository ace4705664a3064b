/** What the process before this one left: each tunnel that is added goes on with its SAs. */
import type { SavedIkeSa } from '../../ike/state/ike-sa.ts';
import type { RestoreRefusal } from '../../ike/state/restore.ts';
import type { TunnelConfig } from '../config.ts';
import type { ControlPlane } from '../control-plane.ts';
import type { SavedEspSa } from './esp-sa.ts';
import { decodeState } from './record.ts';

export class Inheritance {
  readonly #record: Uint8Array;
  readonly #at: number;
  /** By connection and by our SPI: what no tunnel has taken yet. BOUNDED: by the record, both. */
  readonly #ikeSas = new Map<string, SavedIkeSa[]>();
  readonly #espSas: Map<number, SavedEspSa>;

  /** @param record is erased when all of it was taken, or at the end. @throws DecodeError for what is no record */
  constructor(record: Uint8Array) {
    this.#record = record;
    const { at, ikeSas, espSas } = decodeState(record);
    this.#at = at;
    for (const sa of ikeSas) this.#ikeSas.set(sa.connection, [...(this.#ikeSas.get(sa.connection) ?? []), sa]);
    this.#espSas = new Map(espSas.map((sa) => [sa.spiIn, sa]));
  }

  /** Connections that have SAs here. */
  get size(): number {
    return this.#ikeSas.size;
  }

  /** Goes on with the SAs of a tunnel that was added and is not wanted yet, once. Returns those that cannot be gone on with. */
  resume(engine: ControlPlane, now: number, { connections }: TunnelConfig): RestoreRefusal[] {
    const ikeSas = connections.flatMap(({ name }) => this.#ikeSas.get(name) ?? []);
    if (ikeSas.length === 0) return [];
    const espSas = ikeSas.flatMap(({ children }) => children.flatMap(({ spiIn }) => this.#espSas.get(spiIn) ?? []));
    for (const { name } of connections) this.#ikeSas.delete(name);
    const refused = engine.resumeState(now, { at: this.#at, ikeSas, espSas });
    if (this.#ikeSas.size === 0) this.end();
    return refused;
  }

  /** Erases what is left. */
  end(): void {
    this.#ikeSas.clear();
    this.#espSas.clear();
    this.#record.fill(0);
  }
}
