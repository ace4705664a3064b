/**
 * The tables of an endpoint, and what its IKE SAs see of it: who is known by which SPI, who speaks with whom, who must
 * be woken when, what is to be sent and told.
 */

import { addressKey, type IpAddress, sameAddress } from '../base/address.ts';
import { readU32 } from '../base/bytes.ts';
import { type Identity, sameIdentity } from '../base/identity.ts';
import { Queue } from '../base/queue.ts';
import { SetMap } from '../base/set-map.ts';
import { MIN_ESP_SPI } from '../base/spi.ts';
import { WakeQueue } from '../base/wake-queue.ts';
import type { CryptoProvider, RandomSource } from '../crypto/types.ts';
import type { SelectorPair } from '../policy/selector.ts';
import type { ConnectionConfig, EndpointLimits, RetransmitPolicy } from './config.ts';
import { ConnectionTable } from './connection-table.ts';
import { resolveDuplicates, settleNewcomer } from './duplicates.ts';
import type { IkeEvent, Path } from './events.ts';
import { HalfOpenTable } from './half-open/half-open.ts';
import { type OpenProof, ProofBudget } from './half-open/proof-budget.ts';
import { type Claim, InnerAddresses } from './inner-addresses.ts';
import { pooledRandom } from './keys/random-pool.ts';
import { DEFAULT_LIMITS, DEFAULT_RETRANSMIT, type IkeEndpointOptions } from './options.ts';
import { PeerTable } from './peers.ts';
import { FragmentBudget } from './protect/reassembly.ts';
import type { ChildRecord } from './session/child.ts';
import { askFor, type ChildRequest, sameRequest } from './session/child-request.ts';
import type { Host, Question } from './session/host.ts';
import type { IkeSession } from './session/session.ts';
import { isLive } from './session/state.ts';
import { type IkeCounterName, type IkeCounters, noCounts } from './status.ts';
import { CreateChildTask } from './tasks/create-child.ts';

export interface Transmit {
  readonly path: Path;
  /** Without the non-ESP marker, which the owner puts before it on every port but 500 (RFC 7296 §2.23). */
  readonly data: Uint8Array;
  /** A NAT keepalive (RFC 3948 §4): goes out as it is, never with a marker. */
  readonly keepalive: boolean;
}

const KEEPALIVE = Uint8Array.of(0xff);

export class EndpointHost implements Host {
  readonly crypto: CryptoProvider;
  readonly random: RandomSource;
  readonly limits: EndpointLimits;
  readonly retransmit: RetransmitPolicy;
  readonly rawEsp: boolean;
  readonly vendorIds: readonly Uint8Array[];
  readonly fragments: FragmentBudget = new FragmentBudget();
  /** BOUNDED: by the owner, who drains them after every call. */
  readonly transmits: Queue<Transmit> = new Queue();
  readonly events: Queue<IkeEvent> = new Queue();
  readonly counts: Record<IkeCounterName, number> = noCounts();
  readonly configs: ConnectionTable = new ConnectionTable();
  /** By our SPI. BOUNDED: `maxIkeSas`, of which `maxHalfOpen` may be half-open. */
  readonly sessions: Map<bigint, IkeSession> = new Map();
  /** By our SPI. BOUNDED: `maxIkeSas` × `maxChildrenPerIkeSa`. */
  readonly children: Map<number, ChildRecord> = new Map();
  readonly halfOpen: HalfOpenTable;
  readonly proofs: ProofBudget = new ProofBudget();
  /** BOUNDED: one a session. */
  readonly questions: Map<number, OpenQuestion> = new Map();
  readonly #peers = new PeerTable();
  readonly #innerAddresses = new InnerAddresses();
  /** BOUNDED, these five: one entry a session. */
  readonly #byConnection = new SetMap<string, IkeSession>();
  readonly #byAddress = new SetMap<string, IkeSession>();
  /** What a session stands under in the table above. */
  readonly #addresses = new Map<IkeSession, string>();
  /** Connections whose peers refuse a CHILD SA in IKE_AUTH. BOUNDED: by the connections. */
  readonly #childless = new Set<string>();
  readonly #wake = new WakeQueue<IkeSession>();
  readonly #touched = new Set<IkeSession>();
  readonly #lastUsed: IkeEndpointOptions['lastUsed'];
  #lastId = 0;

  constructor(options: IkeEndpointOptions) {
    this.crypto = options.crypto;
    this.random = pooledRandom(options.random);
    this.limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.halfOpen = new HalfOpenTable(this.limits, (remote) => this.configs.names(remote), this.random);
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
    this.counts[name]++;
  }

  counters(): IkeCounters {
    return { ...this.counts };
  }

  /** Adds a connection, or puts it in the place of the one that has its name. */
  configure(config: ConnectionConfig): void {
    this.configs.set(config);
    this.#innerAddresses.configure(config);
  }

  unconfigure(name: string): void {
    this.configs.delete(name);
    this.#childless.delete(name);
    this.#innerAddresses.unconfigure(name);
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

  connectionsBetween({ local, remote }: Path): readonly ConnectionConfig[] {
    return this.configs.between(local.address, remote.address);
  }

  nextId(): number {
    return ++this.#lastId;
  }

  newIkeSpi(): bigint {
    for (;;) {
      const bytes = this.random(8);
      const spi = (BigInt(readU32(bytes, 0)) << 32n) | BigInt(readU32(bytes, 4));
      if (spi !== 0n && !this.sessions.has(spi)) return spi;
    }
  }

  newChildSpi(): number {
    for (;;) {
      const spi = readU32(this.random(4), 0);
      if (spi >= MIN_ESP_SPI && this.isChildSpiFree(spi)) return spi;
    }
  }

  isChildSpiFree(spi: number): boolean {
    return !this.children.has(spi);
  }

  hasRoom(): boolean {
    return this.sessions.size < this.limits.maxIkeSas;
  }

  addSession(session: IkeSession): void {
    this.sessions.set(session.localSpi, session);
    this.stateChanged(session);
  }

  removeSession(session: IkeSession): void {
    if (this.sessions.get(session.localSpi) === session) this.sessions.delete(session.localSpi);
    this.#wake.set(session, undefined);
    this.#touched.delete(session);
    this.halfOpen.drop(session);
    this.#forget(session);
  }

  /** Called whenever anything about a session changed: keeps the tables and the next wake-up right. */
  stateChanged(session: IkeSession): void {
    if (this.sessions.get(session.localSpi) !== session) return;
    this.#touched.add(session);
    const { state, config } = session;
    if (isLive(state)) this.halfOpen.drop(session);
    if (state.name === 'closed') {
      this.#forget(session);
      return;
    }
    if (config !== undefined) this.#byConnection.add(config.name, session);
    this.#place(session);
    this.#peers.add(session);
  }

  /** The remote address may have changed: the peer, or a NAT before it, has moved. */
  #place(session: IkeSession): void {
    const address = addressKey(session.path.remote.address);
    const before = this.#addresses.get(session);
    if (before === address) return;
    if (before !== undefined) this.#byAddress.delete(before, session);
    this.#addresses.set(session, address);
    this.#byAddress.add(address, session);
  }

  #forget(session: IkeSession): void {
    this.#byConnection.delete(session.connectionName, session);
    const address = this.#addresses.get(session);
    if (address !== undefined) this.#byAddress.delete(address, session);
    this.#addresses.delete(session);
    this.#peers.forget(session);
  }

  addHalfOpen(session: IkeSession): void {
    this.halfOpen.add(session);
    this.addSession(session);
  }

  siblings(session: IkeSession): readonly IkeSession[] {
    return this.withSamePeer(session).filter(
      (other) => other !== session && other.state.name === 'established' && other.pendingFor === undefined,
    );
  }

  withSamePeer(session: IkeSession): readonly IkeSession[] {
    return this.#peers.withSamePeer(session);
  }

  isSamePeer(a: IkeSession, b: IkeSession): boolean {
    return this.#peers.isSamePeer(a, b);
  }

  knowsPeer(session: IkeSession, localId: Identity): boolean {
    // It may have more than one address: an IKE SA at another is lost too to a peer that is told that this is the only one.
    const remoteId = session.config?.remote.id;
    if (remoteId !== undefined && this.#peers.has(localId, remoteId)) return true;
    for (const other of this.#byAddress.get(addressKey(session.path.remote.address))) {
      if (other === session || other.config === undefined || !sameIdentity(other.config.local.id, localId)) continue;
      const { name } = other.state;
      const counts = name === 'auth-sent' || name === 'verifying' || name === 'established' || name === 'rekeyed';
      if (counts) return true;
    }
    return false;
  }

  /** All that were not given up, whatever their state. */
  sessionsOf(connection: string): readonly IkeSession[] {
    return [...this.#byConnection.get(connection)];
  }

  establishedOf(connection: string, remote: IpAddress): IkeSession | undefined {
    for (const session of this.#byConnection.get(connection)) {
      const up = session.state.name === 'established' && session.pendingFor === undefined;
      if (up && sameAddress(session.path.remote.address, remote)) return session;
    }
    return undefined;
  }

  established(now: number, session: IkeSession, initialContact: boolean): void {
    settleNewcomer(session, now, initialContact);
    const { wanted } = session;
    session.wanted = [];
    this.bringUp(now, session, wanted);
  }

  resolveDuplicate(now: number, session: IkeSession): void {
    resolveDuplicates(session, now);
  }

  bringUp(now: number, session: IkeSession, children: readonly ChildRequest[]): void {
    for (const request of children) {
      const planned = [session.active, ...session.queue].some(
        (task) => task instanceof CreateChildTask && sameRequest(task.request, request),
      );
      if (planned || askFor(session, request) === undefined) continue;
      session.enqueue(now, new CreateChildTask(request));
    }
  }

  lastUsed(childId: number): number | undefined {
    return this.#lastUsed?.(childId);
  }

  claim(session: IkeSession, now: number, childName: string, selectors: SelectorPair): Claim {
    return this.#innerAddresses.claim(session, now, childName, selectors);
  }

  addChild(child: ChildRecord): void {
    this.children.set(child.facts.spiIn, child);
    this.#innerAddresses.hold(child);
  }

  freeAddresses(child: ChildRecord): void {
    this.#innerAddresses.release(child);
  }

  removeChild(child: ChildRecord): void {
    this.children.delete(child.facts.spiIn);
  }

  ask(session: IkeSession, question: Question): number {
    const requestId = this.nextId();
    this.questions.set(requestId, { session, type: question.type, proof: this.#openProof(question) });
    this.emit({ ...question, requestId, connection: session.connectionName });
    return requestId;
  }

  #openProof(question: Question): OpenProof | undefined {
    if (question.type !== 'need-verification') return undefined;
    const { certificates, crls, from } = question.proof;
    const bytes = [...certificates, ...crls].reduce((sum, { length }) => sum + length, 0);
    return this.proofs.open(from, bytes);
  }

  withdraw(requestId: number): void {
    this.#closeQuestion(requestId, undefined);
  }

  #closeQuestion(requestId: number, spent: number | undefined): void {
    const proof = this.questions.get(requestId)?.proof;
    if (proof !== undefined) this.proofs.close(proof, spent);
    this.questions.delete(requestId);
  }

  /**
   * The IKE SA that asked; `undefined` when none waits for such an answer, or does not any more.
   * @param spent milliseconds of processor time that the answer took, if the owner knows
   */
  takeQuestion(requestId: number, type: Question['type'], spent?: number): IkeSession | undefined {
    const asked = this.questions.get(requestId);
    if (asked?.type !== type) return undefined;
    this.#closeQuestion(requestId, spent);
    return asked.session;
  }

  nextTimeout(): number | undefined {
    for (const session of this.#touched) this.#wake.set(session, session.nextTimeout());
    this.#touched.clear();
    return this.#wake.next();
  }

  /** The sessions that have something to do at `now`. */
  takeDue(now: number): readonly IkeSession[] {
    this.nextTimeout();
    const due = this.#wake.takeDue(now);
    // Looked at again when that is done.
    for (const session of due) this.#touched.add(session);
    return due;
  }
}

/** A question to the owner that waits for its answer. */
interface OpenQuestion {
  readonly session: IkeSession;
  readonly type: Question['type'];
  /** What the answer is charged to, where a peer is judged. */
  readonly proof: OpenProof | undefined;
}
