/**
 * One IKE SA: its state, its window and tasks, its children and timers. `tasks/` holds the exchanges; this class sends
 * messages and runs the tasks in turn.
 */
import { invariant } from '../../base/assert.ts';
import { Deadlines } from '../../base/deadlines.ts';
import { formatSuite } from '../../crypto/proposal-text.ts';
import type { SelectorPair } from '../../policy/selector.ts';
import type { ChildConfig, ConnectionConfig } from '../config.ts';
import type { IkeSaSummary, Path } from '../events.ts';
import type { Failure } from '../failure.ts';
import { type IkeCrypto, wipeCrypto } from '../keys/ike-crypto.ts';
import { DEFAULT_FRAGMENT_SIZE, datagramSizes, type Outgoing, sealOutgoing } from '../protect/outgoing.ts';
import { Fragments } from '../protect/reassembly.ts';
import { type Task, takeNext } from '../tasks/task.ts';
import type { IkeHeader } from '../wire/message.ts';
import { type NatStatus, NO_NAT } from '../wire/nat.ts';
import type { Payload } from '../wire/payload.ts';
import { type ChildRecord, softDeadline } from './child.ts';
import { shownAt } from './credential.ts';
import type { Environment } from './environment.ts';
import type { Registry } from './registry.ts';
import {
  configOf,
  cryptoOf,
  type Life,
  liveOf,
  newLife,
  type Origin,
  questionOf,
  type SessionState,
  TRANSITIONS,
} from './state.ts';
import type { MessageWindow } from './window.ts';

export type SessionTimer =
  /** Lifetime of an established SA. */
  | 'rekey'
  | 'expire'
  /** When the peer's silence is looked at, and when a NAT is reminded of us. */
  | 'dpd'
  | 'keepalive'
  /** The end of a set-up that does not get on, or of an SA that another replaced. */
  | 'give-up'
  /** When tasks that were put off are due, and when a duplicate is closed. */
  | 'deferred'
  | 'duplicate'
  /** When fragments are forgotten whose others do not come. */
  | 'fragments'
  /** Its message IDs are used up. */
  | 'exhausted';

/** What an IKE SA is established with. */
export interface Founding extends Pick<Life, 'config' | 'crypto' | 'peers'> {
  /** That of the IKE SA that it replaces. */
  readonly origin?: Origin;
  readonly replaces: number | undefined;
}

/** What an attempt was for. */
export interface Attempted {
  /** By default that of the IKE SA. */
  readonly connection?: string | undefined;
  readonly child?: ChildConfig | undefined;
  /** The part of the child's selectors that it was for. */
  readonly part?: SelectorPair | undefined;
  readonly initiator: boolean;
}

/** How a session begins. */
export interface SessionStart {
  readonly initiator: boolean;
  readonly spiInitiator: bigint;
  readonly spiResponder: bigint;
  readonly path: Path;
  readonly state: SessionState;
  readonly window: MessageWindow;
  readonly now: number;
  /** Of one that goes on from another process: its id here, and how many IVs were used. */
  readonly resumed?: { readonly id: number; readonly sealed: number };
}

/** Tasks that wait for the window, and those that were put off. */
const MAX_QUEUED_TASKS = 256;
/** A response of several fragments is not sent again before this many ms have passed. */
const ANSWER_INTERVAL = 250;

export class IkeSession {
  readonly env: Environment;
  readonly registry: Registry<IkeSession>;
  readonly id: number;
  /** We are the original initiator of this IKE SA (RFC 7296 §2.2), which flags and keys go by. */
  readonly initiator: boolean;
  readonly createdAt: number;
  readonly window: MessageWindow;
  readonly timers: Deadlines<SessionTimer> = new Deadlines();
  readonly spiInitiator: bigint;
  spiResponder: bigint;
  path: Path;
  /** Where the first message came from or went to, by which a retransmission of it is known. */
  readonly askedFrom: Path;
  nat: NatStatus = NO_NAT;
  readonly fragments: Fragments;
  /** By our inbound SPI. BOUNDED: twice `maxChildrenPerIkeSa`, old and new. */
  readonly children: Map<number, ChildRecord> = new Map();
  /** BOUNDED: MAX_QUEUED_TASKS each. */
  queue: Task<IkeSession>[] = [];
  deferred: { readonly at: number; readonly task: Task<IkeSession> }[] = [];
  /** The task whose request is out. */
  active: Task<IkeSession> | undefined;
  /** When the last authentic message or packet of the peer came. */
  lastHeardAt: number | undefined;
  #state: SessionState;
  #answeredAt = Number.NEGATIVE_INFINITY;
  /** Makes the IV of each SK payload; never the same twice. */
  #sealed: number;

  constructor(registry: Registry<IkeSession>, start: SessionStart) {
    const { env } = registry;
    this.env = env;
    this.registry = registry;
    this.id = start.resumed?.id ?? env.nextId();
    this.#sealed = start.resumed?.sealed ?? 0;
    this.initiator = start.initiator;
    this.spiInitiator = start.spiInitiator;
    this.spiResponder = start.spiResponder;
    this.path = start.path;
    this.askedFrom = start.path;
    this.window = start.window;
    this.fragments = new Fragments(env.fragments);
    this.createdAt = start.now;
    this.#state = start.state;
  }

  get state(): SessionState {
    return this.#state;
  }

  /** SK payloads that were sealed. */
  get sealed(): number {
    return this.#sealed;
  }

  get localSpi(): bigint {
    return this.initiator ? this.spiInitiator : this.spiResponder;
  }

  /** As it was when the SA was made; `undefined` while it is not known which connection the peer means, and at the end. */
  get config(): ConnectionConfig | undefined {
    return configOf(this.#state);
  }

  get connectionName(): string {
    return this.config?.name ?? '';
  }

  /** The configuration for what is negotiated from now on. */
  get connectionConfig(): ConnectionConfig | undefined {
    const { config } = this;
    return config && this.current(config);
  }

  /** A connection as it is configured now, or as it was when it is not any more. */
  current(config: ConnectionConfig): ConnectionConfig {
    return this.env.connection(config.name) ?? config;
  }

  /** Whether ESP goes in UDP: a NAT was found, or encapsulation is forced (RFC 7296 §2.23). */
  get encapsulated(): boolean {
    const { forced, localBehindNat, remoteBehindNat } = this.nat;
    return forced || localBehindNat || remoteBehindNat;
  }

  /** Goes to another state; leaving for good wipes the keys. */
  enter(state: SessionState): void {
    const before = this.#state;
    invariant(TRANSITIONS[before.name].includes(state.name), `IKE SA from ${before.name} to ${state.name}`);
    if (before.name === 'init-sent') before.init.keyPair.wipe();
    const crypto = cryptoOf(before);
    if (crypto !== undefined && cryptoOf(state) !== crypto) wipeCrypto(crypto);
    const question = questionOf(before);
    if (question !== undefined && questionOf(state) !== question) this.registry.withdraw(question);
    this.#state = state;
    this.registry.stateChanged(this);
  }

  /** Puts a task in line; it starts as soon as the window allows. */
  enqueue(now: number, task: Task<IkeSession>): void {
    if (this.queue.length < MAX_QUEUED_TASKS) this.queue.push(task);
    else task.abandon();
    this.startNext(now);
  }

  /** Puts a task off: the peer was busy (RFC 7296 §2.25). */
  defer(at: number, task: Task<IkeSession>): void {
    if (this.deferred.length >= MAX_QUEUED_TASKS) {
      task.abandon();
      return;
    }
    this.deferred.push({ at, task });
    this.armDeferred();
  }

  armDeferred(): void {
    if (this.deferred.length === 0) this.timers.clear('deferred');
    else this.timers.set('deferred', Math.min(...this.deferred.map((entry) => entry.at)));
    this.registry.stateChanged(this);
  }

  /** Sends the request of the next task that still has something to do. */
  startNext(now: number): void {
    while (this.active === undefined && this.window.idle && this.#state.name !== 'closed') {
      if (this.window.nextRequest === undefined) {
        // RFC 7296 §2.2: message IDs never wrap; an SA that was not rekeyed in time is over.
        this.timers.set('exhausted', now);
        this.registry.stateChanged(this);
        return;
      }
      const task = takeNext(this.queue, this.env);
      if (task === undefined) return;
      const payloads = task.build(this, now);
      if (payloads === undefined) {
        task.abandon();
        continue;
      }
      this.active = task;
      this.#sendRequest(now, task, payloads);
    }
  }

  /** Sends the active task's request anew, as a request of its own: another group, after INVALID_KE_PAYLOAD. */
  restart(now: number, task: Task<IkeSession>): void {
    this.queue.unshift(task);
    this.active = undefined;
    this.startNext(now);
  }

  #sendRequest(now: number, task: Task<IkeSession>, payloads: readonly Payload[]): void {
    const messageId = this.window.nextRequest;
    invariant(messageId !== undefined, 'request without a message ID');
    const message = this.#seal(task.exchange, false, messageId, payloads);
    this.window.send(now, message);
    this.transmit(this.path, message);
  }

  /** Answers the request that was accepted last. */
  respond(now: number, exchange: number, payloads: readonly Payload[], path: Path): void {
    const message = this.#seal(exchange, true, this.window.nextFromPeer - 1, payloads);
    this.window.respond(message);
    this.#answeredAt = now;
    this.transmit(path, message);
  }

  /**
   * Answers the last request once more, from the cache.
   * @param inFragments it came in other fragments than before
   */
  respondAgain(now: number, path: Path, { inFragments }: { readonly inFragments: boolean }): void {
    const fragmented = (this.window.lastResponse?.datagrams.length ?? 0) > 1;
    // One replayed datagram must not cause dozens of datagrams, over and over. A real peer waits longer.
    if (fragmented && now - this.#answeredAt < ANSWER_INTERVAL) {
      this.env.count('rate-limited');
      return;
    }
    const message = this.window.answerAgain({ inFragments });
    if (message === undefined) return;
    this.#answeredAt = now;
    this.transmit(path, message);
  }

  headerFor(message: Pick<IkeHeader, 'exchange' | 'response' | 'messageId'>): IkeHeader {
    const { initiator, spiInitiator, spiResponder } = this;
    return { initiatorSpi: spiInitiator, responderSpi: spiResponder, initiator, ...message };
  }

  #seal(exchange: number, response: boolean, messageId: number, payloads: readonly Payload[]): Outgoing {
    const crypto = cryptoOf(this.#state);
    invariant(crypto !== undefined, `a message of an IKE SA that is ${this.#state.name}`);
    const message = {
      header: this.headerFor({ exchange, response, messageId }),
      payloads,
      cipher: crypto.outbound,
      nextCounter: () => this.#sealed++,
      alive: () => cryptoOf(this.#state) === crypto,
    };
    const packet = this.connectionConfig?.fragmentSize ?? DEFAULT_FRAGMENT_SIZE;
    if (!this.fragments.supported || packet === 0) return sealOutgoing(message, []);
    return sealOutgoing(message, datagramSizes(packet, this.path.remote.address.family, this.fragments.learned));
  }

  transmit(path: Path, { datagrams }: Outgoing): void {
    for (const datagram of datagrams) this.env.transmit(path, datagram);
    this.registry.stateChanged(this);
  }

  /** Forgets fragments: those of a request or of a response, or all. */
  dropFragments(of?: 'request' | 'response'): void {
    this.fragments.drop(of);
    if (this.fragments.isEmpty) this.timers.clear('fragments');
  }

  /** Becomes established, or comes into use after a rekeying: lifetimes and liveness checks begin. */
  establish(now: number, { config, crypto, peers, origin, replaces }: Founding): void {
    this.lastHeardAt = now;
    this.enter({
      name: 'established',
      ...newLife({ config, crypto, peers, origin: origin ?? this.#newOrigin(), establishedAt: now, replaces }),
    });
    this.timers.clearAll();
    this.dropFragments();
    const { lifetime, dpd, nat } = this.current(config);
    if (lifetime.soft > 0)
      this.timers.set('rekey', now + softDeadline(lifetime.soft, lifetime.jitter, this.env.random));
    if (lifetime.hard > 0) this.timers.set('expire', now + lifetime.hard);
    if (dpd.interval > 0) this.timers.set('dpd', now + dpd.interval);
    if (nat.keepalive > 0 && this.nat.localBehindNat) this.timers.set('keepalive', now + nat.keepalive);
    this.registry.stateChanged(this);
  }

  #newOrigin(): Origin {
    const { spiInitiator: spi, initiator, id } = this;
    return { spi, initiator, id, establishedOrder: this.env.nextId(), shownAt: shownAt(this.askedFrom, this.path) };
  }

  /** @param reauthenticates id of the IKE SA whose place it is to take */
  announce(reauthenticates?: number): void {
    const state = liveOf(this.#state);
    if (state.announced) return;
    state.announced = true;
    this.env.emit({ type: 'ike-up', ikeSa: this.summary(), replaces: state.replaces, reauthenticates });
  }

  summary(): IkeSaSummary {
    const state = liveOf(this.#state);
    return {
      id: this.id,
      connection: this.connectionName,
      spiInitiator: this.spiInitiator,
      spiResponder: this.spiResponder,
      initiator: this.initiator,
      localId: state.peers.localId,
      remoteId: state.peers.remoteId,
      suite: ikeSuiteName(state.crypto),
      path: this.path,
    };
  }

  /** Tells the owner that an attempt came to nothing. */
  fail(failure: Failure, { connection = this.connectionName, child, part, initiator }: Attempted): void {
    this.env.emit({
      type: 'failed',
      connection,
      child: child?.name,
      selectors: part,
      reason: failure.reason,
      detail: failure.detail,
      remote: this.path.remote,
      initiator,
      again: failure.again === true,
    });
  }

  note(level: 'debug' | 'info' | 'warn', text: string): void {
    this.env.emit({ type: 'note', connection: this.config?.name, level, text });
  }

  /** Drops all tasks; a request that is out keeps its place in the window until it is answered. */
  abandonTasks(): void {
    this.active?.abandon();
    for (const task of this.queue) task.abandon();
    for (const { task } of this.deferred) task.abandon();
    this.active = undefined;
    this.queue = [];
    this.deferred = [];
    this.timers.clear('deferred');
  }

  /** Earliest time at which `handleTimeout` has something to do. */
  nextTimeout(): number | undefined {
    let next = earlier(this.timers.next(), this.window.due);
    for (const child of this.children.values()) next = earlier(next, child.timers.next());
    return next;
  }
}

/** `aes256gcm16-prfsha384-ecp384` */
export function ikeSuiteName({ suite }: IkeCrypto): string {
  const { cipher, prf, dh } = suite;
  return formatSuite({ encryption: cipher.encryption, integrity: cipher.integrity, prf, dh });
}

function earlier(a: number | undefined, b: number | undefined): number | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return Math.min(a, b);
}
