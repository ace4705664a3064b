/**
 * The IKE endpoint (RFC 7296): all connections and IKE SAs of one host, as a machine without I/O. Bytes, the time and
 * secrets go in; datagrams, events and the next wake-up come out.
 *
 * After every call the owner drains `pollTransmit` and `pollEvent` and looks at `nextTimeout` again.
 */
import { type IpAddress, sameAddress } from '../base/address.ts';
import { DecodeError, plainView } from '../base/bytes.ts';
import { isSharedKey } from '../base/key-strength.ts';
import { secretCame, signatureCame, verdictCame } from './answers.ts';
import type { ConnectionConfig } from './config.ts';
import { checkConnection, internProposals } from './connections.ts';
import { followPeer, receive } from './dispatch.ts';
import { EndpointEnvironment, type Transmit } from './endpoint-environment.ts';
import type { IkeEvent, Path, SignatureAnswer, VerificationAnswer } from './events.ts';
import { type InitiateOptions, requestsOf } from './initiate.ts';
import type { IkeEndpointOptions } from './options.ts';
import type { ChildRecord } from './session/child.ts';
import { type ChildRequest, want } from './session/child-request.ts';
import { endSession, promoteChild } from './session/lifecycle.ts';
import type { Question } from './session/registry.ts';
import type { IkeSession } from './session/session.ts';
import { isInUse } from './session/state.ts';
import { statusOf } from './session/status.ts';
import { SessionRegistry } from './session-registry.ts';
import { isSettled, type SavedIkeSa, saveIkeSa } from './state/ike-sa.ts';
import { type RestoreRefusal, type Resumption, restoreIkeSas } from './state/restore.ts';
import type { IkeCounters, IkeSaStatus } from './status.ts';
import { closeChild, closeSession } from './tasks/delete.ts';
import { LivenessTask } from './tasks/liveness.ts';
import { openSession } from './tasks/open.ts';
import { reauthenticate } from './tasks/reauthenticate.ts';
import { rekeyChild } from './tasks/rekey-child.ts';
import { rekeyIkeSa } from './tasks/rekey-ike.ts';
import { handleSessionTimeout, probeLiveness } from './timeouts.ts';
import { UnassociatedMessages } from './unassociated.ts';
import { decodeHeader, type IkeHeader } from './wire/message.ts';
import { RefusedMessageError } from './wire/payload.ts';

export type { Transmit };

/**
 * Negotiates IKE SAs and CHILD SAs (RFC 7296) as a pure machine: after every call drain `pollTransmit` and `pollEvent`, and
 * call `handleTimeout` when `nextTimeout` is reached. Times are milliseconds of the owner's clock.
 */
export class IkeEndpoint {
  readonly #env: EndpointEnvironment;
  readonly #registry: SessionRegistry;
  readonly #unassociated: UnassociatedMessages;

  constructor(options: IkeEndpointOptions) {
    this.#env = new EndpointEnvironment(options);
    this.#registry = new SessionRegistry(this.#env);
    this.#unassociated = new UnassociatedMessages(this.#registry);
  }

  /** @throws RangeError when the name is taken, or the configuration cannot be worked with. */
  addConnection(config: ConnectionConfig): void {
    this.addConnections([config]);
  }

  /** All or none. @throws RangeError as for one */
  addConnections(configs: readonly ConnectionConfig[]): void {
    const names = new Set<string>();
    for (const config of configs) {
      const { name } = config;
      if (names.has(name) || this.#env.configs.has(name)) throw new RangeError(`connection ${name} exists already`);
      names.add(name);
      this.#check(config);
    }
    for (const config of configs) this.#take(config);
  }

  /** Running SAs stay as they are; what is negotiated from now on follows the new configuration. @throws RangeError */
  replaceConnection(config: ConnectionConfig): void {
    this.replaceConnections([config]);
  }

  /** All or none. @param first is called before, when none can be refused any more. @throws RangeError as for one */
  replaceConnections(configs: readonly ConnectionConfig[], first: () => void = () => undefined): void {
    for (const config of configs) {
      this.#config(config.name);
      this.#check(config);
    }
    first();
    for (const config of configs) this.#take(config);
  }

  #check(config: ConnectionConfig): void {
    checkConnection(config, this.#env);
  }

  #take(config: ConnectionConfig): void {
    const proposals = internProposals(config.proposals, this.#env.configs.values());
    const shared = { ...config, proposals };
    this.#env.configure(shared);
    this.#registry.configure(shared);
  }

  /** Closes its SAs and forgets it. */
  removeConnection(now: number, name: string): void {
    this.closeConnection(now, name);
    this.#env.unconfigure(name);
    this.#registry.unconfigure(name);
  }

  /**
   * Brings up the IKE SA and its children, or the children that are missing when the IKE SA is up or coming up.
   * Children that are populated from packets are brought up by name alone, with the selectors of a packet.
   * Without any local address, of the connection or the options, the unspecified one stands in the path.
   * @throws RangeError for an unknown connection or child, or when there is no address to go to
   */
  initiate(now: number, connection: string, options: InitiateOptions = {}): void {
    const config = this.#config(connection);
    const wanted = requestsOf(config, options);
    if (this.#env.isSettling) return;
    if (wanted.length === 0 && config.children.length > 0) return;
    const running = this.#running(connection, options.remote?.address ?? config.remote.address);
    if (running !== undefined) {
      this.#add(now, running, wanted);
      return;
    }
    const path = this.#pathFor(config, options);
    if (!this.#registry.hasRoom()) throw new RangeError('the limit of IKE SAs is reached');
    openSession(this.#registry, now, path, { config, wanted });
  }

  #config(name: string): ConnectionConfig {
    const config = this.#env.configs.get(name);
    if (config === undefined) throw new RangeError(`there is no connection ${name}`);
    return config;
  }

  /** An IKE SA that is up or that we are bringing up. */
  #running(connection: string, remote: IpAddress | undefined): IkeSession | undefined {
    return this.#registry.sessionsOf(connection).find((session) => {
      if (remote !== undefined && !sameAddress(session.path.remote.address, remote)) return false;
      return 'attempt' in session.state || isInUse(session.state);
    });
  }

  #add(now: number, session: IkeSession, wanted: readonly ChildRequest[]): void {
    const { state } = session;
    if ('attempt' in state) want(state.attempt.wanted, wanted);
    else this.#registry.bringUp(now, session, wanted);
  }

  #pathFor(config: ConnectionConfig, options: InitiateOptions): Path {
    const { address } = config.remote;
    const remote = options.remote ?? (address && { address, port: config.remote.port });
    if (remote === undefined) throw new RangeError(`connection ${config.name} has no remote address: it only responds`);
    const unspecified: IpAddress = { family: remote.address.family, value: 0n };
    const { address: own = unspecified, port, vrf } = config.local;
    const local = options.local ?? { address: own, port, vrf };
    if (local.address.family !== remote.address.family) {
      throw new RangeError(`connection ${config.name}: the local and the remote address are of different families`);
    }
    return { local, remote };
  }

  /** Deletes the IKE SAs of a connection, telling the peers; one that is not known has none. */
  closeConnection(now: number, name: string): void {
    for (const session of this.#registry.sessionsOf(name)) closeSession(session, now, 'requested', 'it was closed');
  }

  /** Deletes an IKE SA with its children, telling the peer (RFC 7296 §1.4.1). An id that is not known changes nothing. */
  closeIkeSa(now: number, ikeSaId: number): void {
    const session = this.#registry.session(ikeSaId);
    if (session !== undefined) closeSession(session, now, 'requested', 'it was closed');
  }

  /** Deletes a CHILD SA, telling the peer. An id that is not known changes nothing. */
  closeChild(now: number, childId: number): void {
    const child = this.#child(childId);
    if (child !== undefined) closeChild(this.#registry.sessionOf(child), now, child, 'requested');
  }

  /** Replaces an IKE SA by a new one, to which its children move (RFC 7296 §2.8); nothing where that is under way. */
  rekeyIkeSa(now: number, ikeSaId: number): void {
    const session = this.#registry.session(ikeSaId);
    if (session !== undefined) rekeyIkeSa(session, now);
  }

  /** Replaces an IKE SA by one that is authenticated anew, when that has all its CHILD SAs. Returns why it cannot be, in words. */
  reauthenticate(now: number, ikeSaId: number): string | undefined {
    const session = this.#registry.session(ikeSaId);
    return session === undefined ? 'there is no such IKE SA' : reauthenticate(session, now);
  }

  /** Replaces a CHILD SA by a new one for the same traffic (RFC 7296 §2.8); nothing where that is under way. */
  rekeyChild(now: number, childId: number): void {
    const child = this.#child(childId);
    if (child !== undefined) rekeyChild(this.#registry.sessionOf(child), now, child);
  }

  /** Asks the peers of all IKE SAs whether they are there: the host slept, or its network was away (RFC 7296 §2.4). */
  probe(now: number): void {
    for (const session of [...this.#registry.sessions.values()]) {
      this.#guard(session, now, () => probeLiveness(session, now));
      this.#registry.stateChanged(session);
    }
  }

  /** The same for one IKE SA: its packets take another way than before. */
  probeIkeSa(now: number, ikeSaId: number): void {
    const session = this.#registry.session(ikeSaId);
    if (session === undefined) return;
    this.#guard(session, now, () => probeLiveness(session, now));
    this.#registry.stateChanged(session);
  }

  /** Asks the peer of an IKE SA whether it is there, behind what it is asked already: `alive` tells when it has answered. */
  checkIkeSa(now: number, ikeSaId: number): void {
    const session = this.#registry.session(ikeSaId);
    if (session !== undefined && isInUse(session.state)) session.enqueue(now, new LivenessTask({ isReported: true }));
  }

  /** Ends an IKE SA from whose local address nothing can be sent: the peer cannot be told. */
  abandonIkeSa(now: number, ikeSaId: number, detail: string): void {
    const session = this.#registry.session(ikeSaId);
    if (session !== undefined) endSession(session, now, { reason: 'path-lost', detail });
  }

  #child(id: number): ChildRecord | undefined {
    for (const child of this.#registry.children.values()) if (child.id === id) return child;
    return undefined;
  }

  /** Takes a datagram, without its non-ESP marker, from any host. Never throws, whatever the bytes. */
  handleDatagram(now: number, path: Path, data: Uint8Array): void {
    this.#env.count('datagrams-in');
    try {
      this.#receive(now, path, plainView(data));
    } catch (error) {
      if (error instanceof RefusedMessageError) this.#refuse(now, path, data, error);
      else if (error instanceof DecodeError) this.#env.count(`malformed-${error.code}`);
      else this.#bug(error);
    }
  }

  #receive(now: number, path: Path, data: Uint8Array): void {
    const header = decodeHeader(data);
    // The flag says which of the two SPIs the receiver chose (RFC 7296 §3.1).
    const session = this.#registry.sessions.get(header.initiator ? header.responderSpi : header.initiatorSpi);
    if (session === undefined || !this.#fits(session, header)) {
      this.#unassociated.receive(now, path, header, data);
      return;
    }
    receive(session, now, path, header, data);
    // In any case: a request that was answered is not retransmitted, and needs no wake-up.
    this.#registry.stateChanged(session);
  }

  #fits(session: IkeSession, header: IkeHeader): boolean {
    if (session.initiator === header.initiator) return false;
    if (session.state.name === 'init-sent') return true;
    return session.spiInitiator === header.initiatorSpi && session.spiResponder === header.responderSpi;
  }

  #refuse(now: number, path: Path, data: Uint8Array, error: RefusedMessageError): void {
    this.#env.count(`malformed-${error.code}`);
    if (error.code === 'bad-version') this.#unassociated.refuseVersion(now, path, data);
  }

  /** A bug of ours must not stop the other tunnels: it is counted and reported. */
  #bug(error: unknown): void {
    this.#env.count('bug');
    const text = error instanceof Error ? error.message : 'unknown';
    this.#env.emit({
      type: 'note',
      connection: undefined,
      level: 'warn',
      text: `a message could not be processed: ${text}`,
    });
  }

  /** Does what is due at `now`: retransmissions, liveness checks, rekeying, the ends of what took too long. */
  handleTimeout(now: number): void {
    for (const session of this.#registry.takeDue(now)) {
      this.#guard(session, now, () => handleSessionTimeout(session, now));
      this.#registry.stateChanged(session);
    }
  }

  /** What a mistake of ours hits is ended: what is due would be due again and again. */
  #guard(session: IkeSession, now: number, action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#bug(error);
      endSession(session, now, { reason: 'failed', detail: 'it could not be processed' });
    }
  }

  /** When `handleTimeout` must be called, `undefined` when nothing is waited for. */
  nextTimeout(): number | undefined {
    return this.#registry.nextTimeout();
  }

  /** The next datagram to be sent, without its non-ESP marker; `undefined` when there is none. */
  pollTransmit(): Transmit | undefined {
    return this.#env.transmits.shift();
  }

  /** The next event, in the order in which they happened; `undefined` when there is none. */
  pollEvent(): IkeEvent | undefined {
    return this.#env.events.shift();
  }

  /**
   * Answers `need-secret`; `undefined` when there is none, as are bytes that are no key (`isSharedKey`). The bytes are read
   * before this returns, and stay the caller's; our copy is wiped once the peer is authenticated.
   */
  answerSecret(now: number, requestId: number, secret: Uint8Array | undefined): void {
    const key = secret !== undefined && isSharedKey(secret) ? secret : undefined;
    this.#goOn(now, requestId, 'need-secret', (session) => {
      if (secret !== undefined && key === undefined) session.note('warn', 'the pre-shared key is empty or all zeros');
      secretCame(session, now, key);
    });
  }

  /** Answers `need-signature`. */
  answerSignature(now: number, requestId: number, answer: SignatureAnswer): void {
    this.#goOn(now, requestId, 'need-signature', (session) => signatureCame(session, now, answer));
  }

  /** Answers `need-verification`. */
  answerVerification(now: number, requestId: number, verdict: VerificationAnswer): void {
    this.#goOn(now, requestId, 'need-verification', (session) => verdictCame(session, now, verdict), verdict.spent);
  }

  /** An answer to what was not asked, or is not waited for any more, changes nothing. */
  #goOn(
    now: number,
    requestId: number,
    type: Question['type'],
    action: (session: IkeSession) => void,
    spent?: number,
  ): void {
    const session = this.#registry.takeQuestion(requestId, type, spent);
    if (session !== undefined) this.#guard(session, now, () => action(session));
  }

  /** ESP reports that the SA with our inbound SPI reached its soft limit of bytes or packets. */
  childSoftExpired(now: number, spiIn: number): void {
    const child = this.#registry.children.get(spiIn);
    if (child !== undefined) rekeyChild(this.#registry.sessionOf(child), now, child);
  }

  /** … its hard limit. */
  childHardExpired(now: number, spiIn: number): void {
    const child = this.#registry.children.get(spiIn);
    if (child !== undefined) closeChild(this.#registry.sessionOf(child), now, child, 'expired');
  }

  /** ESP reports an authentic, new packet; `path` when it may have come by another way than the SA's. */
  childReceived(now: number, spiIn: number, path?: Path): void {
    const child = this.#registry.children.get(spiIn);
    if (child === undefined) return;
    const session = this.#registry.sessionOf(child);
    session.lastHeardAt = now;
    // The peer sends on the new SA, so it has it: RFC 7296 §2.8.
    if (!child.everSent) promoteChild(session, child);
    if (path !== undefined) followPeer(session, path);
  }

  /** All IKE SAs, or those of a connection, but those that are gone and only answer retransmissions for a while. */
  status(connection?: string): readonly IkeSaStatus[] {
    const all = connection === undefined ? this.#registry.sessions.values() : this.#registry.sessionsOf(connection);
    return [...all].filter(({ state }) => state.name !== 'closed').map(statusOf);
  }

  /**
   * From now on no SA is made or replaced, and peers that want to are asked to wait (RFC 7296 §2.25): another process is to go
   * on with those that there are. @internal
   */
  settle(): void {
    this.#env.isSettling = true;
  }

  /** Nothing is under way any more that `save` leaves out. @internal */
  get isSettled(): boolean {
    return [...this.#registry.sessions.values()].every(isSettled);
  }

  /** The IKE SAs in use, as another process goes on with them (`state/ike-sa.ts`). The keys are not copies. @internal */
  save(at: number): SavedIkeSa[] {
    return [...this.#registry.sessions.values()].flatMap((session) => saveIkeSa(session, at) ?? []);
  }

  /** Goes on with IKE SAs of another process. Returns those that it cannot go on with. @internal */
  resume(now: number, saved: readonly SavedIkeSa[], means: Resumption): RestoreRefusal[] {
    return restoreIkeSas(this.#registry, now, saved, means);
  }

  /** What was counted since the endpoint was made: messages, and why some were refused. */
  counters(): IkeCounters {
    return this.#env.counters();
  }
}
