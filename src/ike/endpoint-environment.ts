/** The surroundings of an endpoint's IKE SAs: what it was made with, its configuration, and its ways out. */
import { Queue } from '../base/queue.ts';
import type { CryptoProvider, RandomSource } from '../crypto/types.ts';
import type { Candidates } from './candidates.ts';
import type { ConnectionConfig, EndpointLimits, RetransmitPolicy } from './config.ts';
import { ConnectionTable } from './connection-table.ts';
import type { IkeEvent, Path } from './events.ts';
import { VerificationBudget } from './half-open/verification-budget.ts';
import { pooledRandom } from './keys/random-pool.ts';
import { DEFAULT_LIMITS, DEFAULT_RETRANSMIT, type IkeEndpointOptions } from './options.ts';
import { FragmentBudget } from './protect/reassembly.ts';
import type { Environment } from './session/environment.ts';
import { type IkeCounterName, type IkeCounters, noCounts } from './status.ts';

/** A UDP payload to send: an IKE message, or a NAT keepalive of one byte (RFC 3948 §2.3). */
export interface Transmit {
  readonly path: Path;
  /** Without the non-ESP marker, which the owner puts before it on every port but 500 (RFC 7296 §2.23). */
  readonly data: Uint8Array;
  /** A NAT keepalive (RFC 3948 §4): goes out as it is, never with a marker. */
  readonly keepalive: boolean;
}

const KEEPALIVE = Uint8Array.of(0xff);

export class EndpointEnvironment implements Environment {
  readonly crypto: CryptoProvider;
  readonly random: RandomSource;
  readonly limits: EndpointLimits;
  readonly retransmit: RetransmitPolicy;
  readonly rawEsp: boolean;
  readonly vendorIds: readonly Uint8Array[];
  readonly fragments: FragmentBudget = new FragmentBudget();
  readonly verifications: VerificationBudget = new VerificationBudget();
  /** BOUNDED: by the owner, who drains them after every call. */
  readonly transmits: Queue<Transmit> = new Queue();
  readonly events: Queue<IkeEvent> = new Queue();
  readonly configs: ConnectionTable = new ConnectionTable();
  isSettling = false;
  readonly #counts: Record<IkeCounterName, number> = noCounts();
  /** Connections whose peers refuse a CHILD SA in IKE_AUTH. BOUNDED: by the connections. */
  readonly #childless = new Set<string>();
  readonly #lastUsed: IkeEndpointOptions['lastUsed'];
  #lastId = 0;

  constructor(options: IkeEndpointOptions) {
    this.crypto = options.crypto;
    this.random = pooledRandom(options.random);
    this.limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.retransmit = { ...DEFAULT_RETRANSMIT, ...options.retransmit };
    this.rawEsp = options.rawEsp ?? false;
    this.#lastUsed = options.lastUsed;
    this.vendorIds = options.vendorIds ?? [];
  }

  emit(event: IkeEvent): void {
    this.events.push(event);
  }

  transmit(path: Path, data: Uint8Array): void {
    this.count('datagrams-out');
    this.transmits.push({ path, data, keepalive: false });
  }

  keepalive(path: Path): void {
    this.transmits.push({ path, data: KEEPALIVE, keepalive: true });
  }

  count(name: IkeCounterName): void {
    this.#counts[name]++;
  }

  counters(): IkeCounters {
    return { ...this.#counts };
  }

  /** Adds a connection, or puts it in the place of the one that has its name. */
  configure(config: ConnectionConfig): void {
    this.configs.set(config);
  }

  unconfigure(name: string): void {
    this.configs.delete(name);
    this.#childless.delete(name);
  }

  goChildless(connection: string): void {
    if (this.configs.has(connection)) this.#childless.add(connection);
  }

  isChildless(connection: string): boolean {
    return this.#childless.has(connection);
  }

  connection(name: string): ConnectionConfig | undefined {
    return this.configs.get(name);
  }

  connectionsBetween({ local, remote }: Path): Candidates {
    return this.configs.between(local, remote.address);
  }

  nextId(): number {
    return ++this.#lastId;
  }

  lastUsed(childId: number): number | undefined {
    return this.#lastUsed?.(childId);
  }
}
