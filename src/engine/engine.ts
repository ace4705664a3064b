/**
 * The control plane: IKE, the records of the tunnels and their SAs, and what is done to bring them up. Packets are the
 * data plane's, which works in the engine unless another was given to it.
 */
import { assertNever } from '../base/assert.ts';
import type { PacketBatch } from '../base/batch.ts';
import { readU32 } from '../base/bytes.ts';
import type { PathReport } from '../base/path-report.ts';
import { namedDrops } from '../esp/drops.ts';
import { IkeEndpoint } from '../ike/endpoint.ts';
import type { ChildSa, IkeEvent, Path, SignatureAnswer, VerificationAnswer } from '../ike/events.ts';
import type { PlanePort, PlaneReport } from './commands.ts';
import type { TunnelConfig } from './config.ts';
import { addMarker, classify, stripMarker } from './demux.ts';
import { EARLY_WAIT } from './early.ts';
import { type EngineEvent, engineEvent } from './events.ts';
import { DEFAULT_HOLD } from './hold.ts';
import { InlinePlanes } from './inline-planes.ts';
import type { Answer, EngineCounters, EngineOptions, Transmit } from './options.ts';
import type { BelievedReport } from './path-reports.ts';
import { Pursuit } from './pursuit.ts';
import { SaTable } from './sa-table.ts';
import type { Tunnel } from './tunnel.ts';
import { TunnelTable } from './tunnel-table.ts';

export class Engine {
  readonly counters: EngineCounters = { keepalives: 0, empty: 0, oversized: 0, overflow: 0, 'path-report-ignored': 0 };
  readonly ike: IkeEndpoint;
  /** The data plane, when it is the engine's own. */
  readonly planes: InlinePlanes | undefined;
  readonly #tunnels = new TunnelTable();
  readonly #sas: SaTable;
  readonly #pursuit: Pursuit;
  readonly #port: PlanePort;
  readonly #counterMemory: NonNullable<EngineOptions['counterMemory']>;
  /** Nobody outside may know which fragments compete for the same record. */
  readonly #fragmentSeed: number;
  // BOUNDED: drained by the owner after every call, all three; the answers by each tunnel's limit besides.
  readonly #events: EngineEvent[] = [];
  readonly #answers: Answer[] = [];
  readonly #transmits: Transmit[] = [];
  /** The time of the call that is being served. */
  #now = 0;

  constructor(options: EngineOptions) {
    this.ike = new IkeEndpoint({ ...options, lastUsed: (childId) => this.#sas.lastUsed(childId) });
    this.#fragmentSeed = readU32(options.random(4), 0);
    this.#counterMemory = options.counterMemory ?? ((bytes) => new ArrayBuffer(bytes));
    this.planes = options.planes === undefined ? this.#ownPlanes(options) : undefined;
    this.#port = options.planes ?? this.planes!;
    this.#pursuit = new Pursuit({
      ike: this.ike,
      port: this.#port,
      localAddressFor: options.localAddressFor ?? (() => undefined),
      report: (event) => this.#events.push(event),
    });
    this.#sas = new SaTable(this.#port, this.#counterMemory);
  }

  #ownPlanes({ crypto, random, allocate }: EngineOptions): InlinePlanes {
    return new InlinePlanes({
      crypto,
      random,
      allocate,
      fragmentSeed: this.#fragmentSeed,
      now: () => this.#now,
      report: (report) => this.#heed(report),
      onReleased: (batch) => this.#keepReleased(batch),
      onAnswer: (index, packet) => {
        const tunnel = this.#tunnels.at(index);
        if (tunnel !== undefined) this.#answers.push({ tunnel: tunnel.config.name, packet });
      },
    });
  }

  /** @throws RangeError, with nothing changed, when a name is taken or the configuration cannot be worked with */
  addTunnel(config: TunnelConfig): void {
    const tunnel = this.#tunnels.make(config, this.#counterMemory);
    this.ike.addConnections(config.connections);
    this.#tunnels.add(tunnel);
    const { index, policy, counters } = tunnel;
    const { hold = DEFAULT_HOLD } = config;
    this.#port.send({ type: 'add-tunnel', tunnel: index, policy, counters, hold, fragmentSeed: this.#fragmentSeed });
  }

  /** Deletes the tunnel's SAs, telling the peer, and forgets it. Drain `pollTransmit` afterwards. */
  removeTunnel(now: number, name: string): void {
    const tunnel = this.#tunnel(name);
    this.down(now, name);
    for (const connection of tunnel.config.connections) this.ike.removeConnection(now, connection.name);
    this.#drainIke(now);
    this.#sas.removeAllOf(tunnel);
    this.#port.send({ type: 'remove-tunnel', tunnel: tunnel.index });
    this.#tunnels.delete(tunnel);
  }

  /** The tunnel is wanted: negotiated at once, for the first packet, or when the peer asks, as configured. */
  up(now: number, name: string): void {
    this.#act(now, () => this.#pursuit.begin(now, this.#tunnel(name)));
  }

  /** What the tunnel lacks is negotiated now, and again until it is up, whatever its `start` says. */
  pursue(now: number, name: string): void {
    this.#act(now, () => this.#pursuit.pursue(now, this.#tunnel(name)));
  }

  /** Time went by unseen, or the network was away: what is due is done, and all peers are asked whether they are there. */
  probe(now: number): void {
    for (const { retry } of this.#tunnels.values()) if (retry.at !== undefined) retry.planNow(now);
    this.handleTimeout(now);
    this.ike.probe(now);
    this.#drainIke(now);
  }

  /** Packets of an IKE SA take another way than before, or have one again: its peer is asked whether it is there. */
  probeIkeSa(now: number, ikeSaId: number): void {
    this.#now = now;
    this.ike.probeIkeSa(now, ikeSaId);
    this.#drainIke(now);
  }

  /** Nothing can be sent from the local address of an IKE SA any more: it ends, and is begun anew where that is our part. */
  pathLost(now: number, ikeSaId: number, detail: string): void {
    this.#now = now;
    this.ike.abandonIkeSa(now, ikeSaId, detail);
    this.#drainIke(now);
    this.handleTimeout(now);
  }

  /** An attempt that waits for its time is made at once: there is reason to think that it fares better. */
  retryNow(now: number, name: string): void {
    const { retry } = this.#tunnel(name);
    if (retry.at === undefined) return;
    retry.planNow(now);
    this.handleTimeout(now);
  }

  /** Closes the tunnel's SAs and starts no new ones. */
  down(now: number, name: string): void {
    this.#now = now;
    const tunnel = this.#tunnel(name);
    this.#pursuit.end(tunnel);
    for (const connection of tunnel.config.connections) this.ike.closeConnection(now, connection.name);
    this.#drainIke(now);
  }

  /**
   * Takes a UDP datagram. IKE is served at once; ESP is gathered. Returns true when `flush` must not wait.
   * @param trafficClass DSCP and ECN of its IP header; 0 where nobody can tell
   */
  receive(now: number, path: Path, data: Uint8Array, trafficClass = 0): boolean {
    switch (classify(path.local.port, data)) {
      case 'empty':
        this.counters.empty++;
        return false;
      case 'keepalive':
        this.counters.keepalives++;
        return false;
      case 'ike':
        this.ike.handleDatagram(now, path, stripMarker(path.local.port, data));
        this.#drainIke(now);
        return false;
      case 'esp':
        return this.#gather(path, data, trafficClass);
    }
  }

  /** Whether ESP packets wait for `flush`. */
  get hasGathered(): boolean {
    return this.planes?.hasGathered === true;
  }

  /**
   * Opens the ESP packets that were gathered.
   * @param deliver called once for each tunnel that packets came out for; slots with a length hold its packets
   */
  flush(now: number, deliver: (tunnel: string, batch: PacketBatch) => void): void {
    if (!this.hasGathered) return;
    this.#act(now, () => {
      this.planes?.flush(now, (index, batch) => {
        const tunnel = this.#tunnels.at(index);
        if (tunnel !== undefined) deliver(tunnel.config.name, batch);
      });
    });
  }

  /**
   * Takes a batch of packets that were read from the tunnel's device through its policy. Slots that hold a length
   * afterwards are ESP packets to be sent to `path(batch.tag[slot])`, each with its `batch.trafficClass`.
   */
  send(now: number, name: string, batch: PacketBatch): void {
    this.#now = now;
    this.planes?.sending.process(now, this.#tunnel(name).index, batch);
    this.#drainIke(now);
  }

  /** Takes what a data plane tells that is not the engine's own. */
  report(now: number, report: PlaneReport): void {
    this.#act(now, () => this.#heed(report));
  }

  /** Where packets with this tag go; `undefined` when their SA is gone. */
  path(tag: number): Path | undefined {
    return this.planes?.sending.path(tag);
  }

  /**
   * The path takes IP packets of up to `mtu` bytes in one piece. From now on packets that would be larger once they are
   * sealed, and that must not be fragmented, are dropped and their senders told the size that fits. To be called when a
   * CHILD SA comes up or its path changes, and when the system tells another size.
   */
  setPathMtu(path: Path, mtu: number): void {
    this.#sas.setPathMtu(path, mtu);
  }

  /** What a router says of a packet of ours; the path and its size when that is to be believed, else it is counted. */
  judgePathReport(report: PathReport): BelievedReport | undefined {
    const believed = this.#sas.judge(report);
    if (believed === undefined) this.counters['path-report-ignored']++;
    return believed;
  }

  nextTimeout(): number | undefined {
    const never = Number.POSITIVE_INFINITY;
    const planes = this.planes?.nextDeadline() ?? never;
    let next = Math.min(this.ike.nextTimeout() ?? never, this.#sas.nextDeadline(), planes);
    for (const { retry } of this.#tunnels.values()) next = Math.min(next, retry.at ?? never);
    return next === never ? undefined : next;
  }

  handleTimeout(now: number): void {
    this.#now = now;
    this.ike.handleTimeout(now);
    this.#sas.expire(now);
    this.planes?.expire(now);
    this.#drainIke(now);
    for (const tunnel of this.#tunnels.values()) this.#pursuit.retryIfDue(now, tunnel);
    this.#drainIke(now);
  }

  pollTransmit(): Transmit | undefined {
    // IKE first: the peer can open what was released only after it has read the message that makes the SA.
    const message = this.ike.pollTransmit();
    if (message === undefined) return this.#transmits.shift();
    const { path, data } = message;
    return { path, data: message.keepalive ? data : addMarker(path.local.port, data), trafficClass: 0 };
  }

  /** The next packet to be written to a tunnel's device. */
  pollAnswer(): Answer | undefined {
    return this.#answers.shift();
  }

  pollEvent(): EngineEvent | undefined {
    return this.#events.shift();
  }

  /** Answers a `need-secret` event; `undefined` when there is none. The bytes are copied. */
  answerSecret(now: number, requestId: number, secret: Uint8Array | undefined): void {
    this.#act(now, () => this.ike.answerSecret(now, requestId, secret));
  }

  /** Answers a `need-signature` event. */
  answerSignature(now: number, requestId: number, answer: SignatureAnswer): void {
    this.#act(now, () => this.ike.answerSignature(now, requestId, answer));
  }

  /** Answers a `need-verification` event. */
  answerVerification(now: number, requestId: number, verdict: VerificationAnswer): void {
    this.#act(now, () => this.ike.answerVerification(now, requestId, verdict));
  }

  tunnel(name: string): Tunnel | undefined {
    return this.#tunnels.get(name);
  }

  /** SAs that packets are received on, those that were replaced a moment ago included. */
  get inboundSas(): number {
    return this.#sas.receiving;
  }

  /** ESP packets that were dropped on the way in, of all tunnels and of none, by reason. */
  inboundDrops(): Record<string, number> {
    return namedDrops(this.#port.inboundDrops);
  }

  #act(now: number, action: () => void): void {
    this.#now = now;
    action();
    this.#drainIke(now);
  }

  #tunnel(name: string): Tunnel {
    const tunnel = this.#tunnels.get(name);
    if (tunnel === undefined) throw new RangeError(`there is no tunnel named ${name}`);
    return tunnel;
  }

  #gather(path: Path, data: Uint8Array, trafficClass: number): boolean {
    const { planes } = this;
    if (planes?.gather(path, data, trafficClass) !== true) {
      if (planes === undefined || planes.isFull) this.counters.overflow++;
      else this.counters.oversized++;
    }
    return planes?.isFull === true;
  }

  #heed(report: PlaneReport): void {
    const now = this.#now;
    switch (report.type) {
      case 'missing': {
        const tunnel = this.#tunnels.at(report.tunnel);
        const plan = tunnel?.plan(report.child);
        if (tunnel !== undefined && plan !== undefined) this.#pursuit.packetMissesSa(now, tunnel, plan, report);
        return;
      }
      case 'limit': {
        const { spiIn } = this.#sas.get(report.id)?.summary ?? {};
        if (spiIn === undefined) return;
        if (report.kind === 'soft') this.ike.childSoftExpired(now, spiIn);
        else this.ike.childHardExpired(now, spiIn);
        return;
      }
      case 'received': {
        const child = this.#sas.get(report.id);
        if (child !== undefined) this.ike.childReceived(now, child.summary.spiIn, report.path);
        return;
      }
      default:
        assertNever(report, 'report of the data plane');
    }
  }

  #drainIke(now: number): void {
    for (let event = this.ike.pollEvent(); event !== undefined; event = this.ike.pollEvent()) {
      const tunnel = this.#tunnels.ofEvent(event, this.#sas);
      const report = this.#apply(now, event, tunnel) ? engineEvent(event, tunnel?.config.name) : undefined;
      if (report !== undefined) this.#events.push(report);
    }
  }

  /** Follows what IKE did. Returns whether the owner is told. */
  #apply(now: number, event: IkeEvent, tunnel: Tunnel | undefined): boolean {
    switch (event.type) {
      case 'child-up':
        return tunnel !== undefined && this.#childUp(now, tunnel, event.child, event.sendNow);
      case 'child-offered':
        this.#port.receive({ type: 'expect', spi: event.spiIn, until: now + EARLY_WAIT });
        return false;
      case 'child-send':
        this.#sas.activate(event.childId, false);
        return false;
      case 'child-down': {
        const child = this.#sas.get(event.childId);
        // One that could not be installed was never up for the owner.
        if (child === undefined) return false;
        this.#sas.close(now, child, event.reason, event.replaced);
        if (tunnel !== undefined) this.#pursuit.childWentDown(now, tunnel, event.reason, child.summary);
        return true;
      }
      case 'ike-up':
        if (event.replaces !== undefined) this.#sas.adopt(event.replaces, event.ikeSa.id);
        return true;
      case 'ike-down':
        if (tunnel !== undefined) this.#pursuit.wentDown(now, tunnel, event.reason);
        return true;
      case 'path-changed':
        this.#sas.move(event.ikeSaId, event.path);
        return true;
      case 'failed':
        // What others try in vain, whoever they are, says nothing of our own attempts.
        if (tunnel !== undefined && event.initiator) this.#pursuit.failed(now, tunnel, event);
        return true;
      case 'declined':
      case 'need-secret':
      case 'need-signature':
      case 'need-verification':
      case 'note':
        return true;
      default:
        return assertNever(event, 'engine event');
    }
  }

  #childUp(now: number, tunnel: Tunnel, sa: ChildSa, sendNow: boolean): boolean {
    const child = this.#sas.install(now, tunnel, sa);
    if (child === undefined) {
      this.ike.closeChild(now, sa.id);
      const text = `CHILD SA ${sa.config.name} is given up: there are as many SAs for its packets as there may be`;
      this.#note(tunnel, text);
      this.#pursuit.wentDown(now, tunnel, 'failed');
      return false;
    }
    this.#pursuit.cameUp(tunnel);
    const news = tunnel.newsOfNarrowing(child);
    if (news !== undefined) this.#note(tunnel, news);
    // A peer that asked for its first SA has it when it has read our answer; one that is replaced must not be missed.
    if (sendNow) this.#sas.activate(sa.id, sa.replaces === undefined);
    return true;
  }

  #note({ config: { name } }: Tunnel, text: string): void {
    this.#events.push({ type: 'note', tunnel: name, level: 'warn', text });
  }

  /** Packets that waited go out behind what IKE has to say. */
  #keepReleased(batch: PacketBatch): void {
    for (let slot = 0; slot < batch.count; slot++) {
      const path = batch.length[slot] === 0 ? undefined : this.path(batch.tag[slot]!);
      if (path === undefined) continue;
      this.#transmits.push({ path, data: batch.packet(slot).slice(), trafficClass: batch.trafficClass[slot]! });
    }
  }
}
