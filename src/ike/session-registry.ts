/**
 * The IKE SAs and CHILD SAs of an endpoint: by which SPI they are known, which have the same peer, when each must be woken,
 * and which questions to the owner are open.
 */
import { addressKey, type IpAddress, sameAddress } from '../base/address.ts';
import { invariant } from '../base/assert.ts';
import { readU32 } from '../base/bytes.ts';
import { type Identity, identityKey } from '../base/identity.ts';
import { SetMap } from '../base/set-map.ts';
import { MIN_ESP_SPI } from '../base/spi.ts';
import { WakeQueue } from '../base/wake-queue.ts';
import type { SelectorPair } from '../policy/selector.ts';
import type { ConnectionConfig } from './config.ts';
import type { EndpointEnvironment } from './endpoint-environment.ts';
import { HalfOpenTable } from './half-open/half-open.ts';
import type { OpenVerification } from './half-open/verification-budget.ts';
import { InnerAddresses } from './inner-addresses.ts';
import { PeerTable } from './peers.ts';
import type { ChildRecord } from './session/child.ts';
import { askFor } from './session/child-ask.ts';
import { type ChildRequest, sameRequest } from './session/child-request.ts';
import type { Claim, Question, Registry } from './session/registry.ts';
import type { IkeSession } from './session/session.ts';
import { isInUse, isLive } from './session/state.ts';
import { CreateChildTask } from './tasks/create-child.ts';
import { readIkeSpi } from './wire/message.ts';

export class SessionRegistry implements Registry<IkeSession> {
  readonly env: EndpointEnvironment;
  /** By our SPI. BOUNDED: `maxIkeSas`, of which `maxHalfOpen` may be half-open. */
  readonly sessions: Map<bigint, IkeSession> = new Map();
  /** By our SPI. BOUNDED: `maxIkeSas` × `maxChildrenPerIkeSa`. */
  readonly children: Map<number, ChildRecord> = new Map();
  readonly halfOpen: HalfOpenTable;
  /** BOUNDED, these seven: one entry an IKE SA. */
  readonly #byId = new Map<number, IkeSession>();
  readonly #byConnection = new SetMap<string, IkeSession>();
  /** By the peer's address and our identity. */
  readonly #byEnds = new SetMap<string, IkeSession>();
  /** What a session stands under in the two tables above. */
  readonly #keys = new Map<IkeSession, Keys>();
  readonly #questions = new Map<number, OpenQuestion>();
  readonly #wake = new WakeQueue<IkeSession>();
  readonly #touched = new Set<IkeSession>();
  readonly #peers = new PeerTable();
  readonly #innerAddresses = new InnerAddresses();

  constructor(env: EndpointEnvironment) {
    this.env = env;
    this.halfOpen = new HalfOpenTable(env.limits, (remote) => env.configs.names(remote), env.random);
  }

  /** Adds the addresses of a connection, or puts them in the place of those of the one that has its name. */
  configure(config: ConnectionConfig): void {
    this.#innerAddresses.configure(config);
  }

  unconfigure(name: string): void {
    this.#innerAddresses.unconfigure(name);
  }

  newIkeSpi(): bigint {
    for (;;) {
      const spi = readIkeSpi(this.env.random(8));
      if (spi !== undefined && !this.sessions.has(spi)) return spi;
    }
  }

  newChildSpi(): number {
    for (;;) {
      const spi = readU32(this.env.random(4), 0);
      if (spi >= MIN_ESP_SPI && this.isChildSpiFree(spi)) return spi;
    }
  }

  isChildSpiFree(spi: number): boolean {
    return !this.children.has(spi);
  }

  hasRoom(): boolean {
    return this.sessions.size < this.env.limits.maxIkeSas;
  }

  addSession(session: IkeSession): void {
    this.sessions.set(session.localSpi, session);
    this.#byId.set(session.id, session);
    this.stateChanged(session);
  }

  removeSession(session: IkeSession): void {
    if (this.#byId.delete(session.id)) this.sessions.delete(session.localSpi);
    this.#wake.set(session, undefined);
    this.#touched.delete(session);
    this.halfOpen.drop(session);
    this.#forget(session);
  }

  session(id: number): IkeSession | undefined {
    return this.#byId.get(id);
  }

  sessionOf({ ikeSaId }: ChildRecord): IkeSession {
    const session = this.#byId.get(ikeSaId);
    invariant(session !== undefined, 'a CHILD SA without its IKE SA');
    return session;
  }

  /** Called whenever anything about a session changed: keeps the tables and the next wake-up right. */
  stateChanged(session: IkeSession): void {
    if (!this.#byId.has(session.id)) return;
    this.#touched.add(session);
    const { state } = session;
    if (isLive(state)) this.halfOpen.drop(session);
    if (state.name === 'closed') {
      this.#forget(session);
      return;
    }
    this.#index(session);
    this.#peers.add(session);
  }

  /** The remote address may have changed: the peer, or a NAT before it, has moved. */
  #index(session: IkeSession): void {
    const connection = session.config?.name;
    const address = addressKey(session.path.remote.address);
    const before = this.#keys.get(session);
    if (before?.connection === connection && before?.address === address) return;
    const ends = session.config && endsKey(address, session.config.local.id);
    this.#keys.set(session, { connection, address, ends });
    if (before?.ends !== undefined) this.#byEnds.delete(before.ends, session);
    if (ends !== undefined) this.#byEnds.add(ends, session);
    if (before?.connection === connection) return;
    if (before?.connection !== undefined) this.#byConnection.delete(before.connection, session);
    if (connection !== undefined) this.#byConnection.add(connection, session);
  }

  #unindex(session: IkeSession): void {
    const keys = this.#keys.get(session);
    if (keys === undefined) return;
    this.#keys.delete(session);
    if (keys.connection !== undefined) this.#byConnection.delete(keys.connection, session);
    if (keys.ends !== undefined) this.#byEnds.delete(keys.ends, session);
  }

  #forget(session: IkeSession): void {
    this.#unindex(session);
    this.#peers.forget(session);
  }

  addHalfOpen(session: IkeSession): void {
    this.halfOpen.add(session);
    this.addSession(session);
  }

  siblings(session: IkeSession): readonly IkeSession[] {
    return this.withSamePeer(session).filter((other) => other !== session && isInUse(other.state));
  }

  withSamePeer(session: IkeSession): readonly IkeSession[] {
    return this.#peers.withSamePeer(session);
  }

  isSamePeer(a: IkeSession, b: IkeSession): boolean {
    return this.#peers.isSamePeer(a, b);
  }

  knowsPeer(session: IkeSession, localId: Identity): boolean {
    // The peer may have several addresses, and INITIAL_CONTACT makes it drop the IKE SAs at all of them.
    const remoteId = session.config?.remote.id;
    if (remoteId !== undefined && this.#peers.has(localId, remoteId)) return true;
    for (const other of this.#byEnds.get(endsKey(addressKey(session.path.remote.address), localId))) {
      if (other === session) continue;
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
      if (isInUse(session.state) && sameAddress(session.path.remote.address, remote)) return session;
    }
    return undefined;
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
    const requestId = this.env.nextId();
    this.#questions.set(requestId, { session, type: question.type, verification: this.#openVerification(question) });
    this.env.emit({ ...question, requestId, connection: session.connectionName });
    return requestId;
  }

  #openVerification(question: Question): OpenVerification | undefined {
    if (question.type !== 'need-verification') return undefined;
    const { certificates, crls, from } = question.auth;
    const bytes = [...certificates, ...crls].reduce((sum, { length }) => sum + length, 0);
    return this.env.verifications.open(from, bytes);
  }

  withdraw(requestId: number): void {
    this.#closeQuestion(requestId, undefined);
  }

  #closeQuestion(requestId: number, spent: number | undefined): void {
    const verification = this.#questions.get(requestId)?.verification;
    if (verification !== undefined) this.env.verifications.close(verification, spent);
    this.#questions.delete(requestId);
  }

  /**
   * The IKE SA that asked; `undefined` when none waits for such an answer, or does not any more.
   * @param spent milliseconds of processor time that the answer took, if the owner knows
   */
  takeQuestion(requestId: number, type: Question['type'], spent?: number): IkeSession | undefined {
    const asked = this.#questions.get(requestId);
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

/** The keys of an IKE SA in the tables by connection and by both ends. */
interface Keys {
  readonly connection: string | undefined;
  /** The peer's, as it is now. */
  readonly address: string;
  /** `undefined` while it is not known which connection is meant. */
  readonly ends: string | undefined;
}

function endsKey(address: string, localId: Identity): string {
  return `${address} ${identityKey(localId)}`;
}

/** A question to the owner that waits for its answer. */
interface OpenQuestion {
  readonly session: IkeSession;
  readonly type: Question['type'];
  /** What the answer is charged to, where a peer is judged. */
  readonly verification: OpenVerification | undefined;
}
