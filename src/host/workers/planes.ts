/**
 * The data plane in worker threads, as the engine and its host see it: in each pair one worker sends, one receives. What
 * IKE says goes out only when the workers have carried out what was asked of them before: the peer may act on it at once.
 */

import { NO_PORT, type SocketAddress } from '../../base/address.ts';
import type { PathReport } from '../../base/path-report.ts';
import { IKE_PORT } from '../../base/ports.ts';
import type { DataPlane, PlaneReport, ReceiveCommand, SendCommand } from '../../engine/commands.ts';
import type { Transmit } from '../../engine/options.ts';
import type { DropCounters } from '../../esp/drops.ts';
import { bootNow } from '../../sys/boot-clock.ts';
import { addCounters, counterCount } from '../../tun/counters.ts';
import { type DeviceCounters, newDeviceCounters, type PacketDevice } from '../../tun/device.ts';
import { newUdpCounters, type UdpCounters, type UdpSendError, type UdpSocket } from '../../tun/udp/udp.ts';
import { type KeySlot, KeySlots } from './key-slots.ts';
import { Lanes } from './lanes.ts';
import { type Link, type LinkOptions, WorkerLink, type WorkerStatus } from './link.ts';
import { Control, type DescriptorCommand, type WorkerCommand, type WorkerReport, type WorkerRole } from './messages.ts';
import { ReceiveRecords, SendRecords } from './records.ts';

/** IKE messages that may wait. The oldest go first: they are sent again. */
const MAX_WAITING = 4096;

export interface WorkerPlanesOptions {
  /** Of workers; one of each pair sends, one receives. */
  readonly pairs: number;
  /** The name of the host's cryptographic provider. */
  readonly crypto: string;
  readonly fragmentSeed: number;
  readonly now: () => number;
  readonly onReport: (report: PlaneReport) => void;
  readonly onDatagram: (data: Uint8Array, from: SocketAddress, local: SocketAddress) => void;
  /** Takes an IKE message whose time has come. */
  readonly onTransmit: (message: Transmit) => void;
  readonly onDeviceLost: (tunnel: number) => void;
  readonly onTooLarge: () => void;
  readonly onPathReport: (report: PathReport) => void;
  readonly onRefusal: (remote: SocketAddress, error: UdpSendError) => void;
  readonly onCrash: (text: string) => void;
}

/** A device or socket as the workers have it: of each role, in their order; some have it not. */
type Opened<Open extends DescriptorCommand> = Readonly<Record<WorkerRole, readonly (Open | undefined)[]>>;

/** How many commands each worker had been given at some time. */
type Tickets = readonly number[];

type Waiting = { readonly message: Transmit; readonly after: Tickets } | { readonly command: SendCommand };

type OpenDevice = Extract<DescriptorCommand, { type: 'open-device' }>;
type OpenSocket = Extract<DescriptorCommand, { type: 'open-socket' }>;

export class WorkerPlanes implements DataPlane {
  readonly inboundDrops: DropCounters;
  readonly #options: WorkerPlanesOptions;
  readonly #lanes: Lanes;
  readonly #sending: readonly Link[];
  readonly #receiving: readonly Link[];
  readonly #slots = new KeySlots();
  readonly #sendRecords = new SendRecords(this.#slots);
  readonly #receiveRecords = new ReceiveRecords(this.#slots);
  // BOUNDED: the host's tunnels and sockets.
  readonly #devices = new Map<number, Opened<OpenDevice>>();
  readonly #sockets = new Map<UdpSocket, Opened<OpenSocket>>();
  #lastSocket = 0;
  // BOUNDED: MAX_WAITING messages, and an activation for each SA.
  readonly #waiting: Waiting[] = [];
  /** Activations that wait for what IKE has just written, which the host has not fetched yet. BOUNDED: fetched after each call. */
  #afterIke: SendCommand[] = [];
  // BOUNDED: by who waits for devices and sockets to be let go, and by SAs, each twice, whose keys are to be erased.
  #settled: { readonly after: Tickets; readonly resolve: () => void }[] = [];

  /** @param start how a worker comes about, for tests */
  constructor(options: WorkerPlanesOptions, start: (options: LinkOptions) => Link = startLink) {
    this.#options = options;
    this.#lanes = new Lanes(options.pairs);
    this.inboundDrops = this.#lanes.inboundDrops.whole;
    const lanes = [...Array(options.pairs).keys()];
    this.#sending = lanes.map((lane) => this.#link(start, 'send', lane, () => this.#restoreSending(lane)));
    this.#receiving = lanes.map((lane) => this.#link(start, 'receive', lane, () => this.#restoreReceiving(lane)));
  }

  #link(start: (options: LinkOptions) => Link, role: WorkerRole, lane: number, restore: LinkOptions['restore']): Link {
    const { crypto, fragmentSeed, now, onCrash } = this.#options;
    const clockOffset = now() - bootNow();
    const inboundDrops = this.#lanes.inboundDrops.parts[lane]!;
    return start({
      setup: { role, crypto, fragmentSeed, clockOffset, inboundDrops },
      restore,
      onReports: (reports) => {
        for (const report of reports) this.#heed(lane, report);
      },
      onProgress: () => this.#proceed(),
      onCrash: (reason, pause) => {
        const [does, done] = role === 'send' ? ['sends', 'sent'] : ['receives', 'received'];
        onCrash(
          `${this.#lanes.count === 1 ? 'the' : 'a'} worker that ${does} packets has ended, and nothing is ${done} ` +
            `by it until another takes its place in ${pause} ms: ${reason}`,
        );
      },
    });
  }

  get #links(): readonly Link[] {
    return [...this.#sending, ...this.#receiving];
  }

  /** Resolved when all workers are there. @throws Error when one cannot start */
  async ready(): Promise<void> {
    await Promise.all(this.#links.map((link) => link.ready));
  }

  commandSender(command: SendCommand): void {
    if (command.type === 'activate' && command.afterIke) this.#afterIke.push(command);
    else this.#sendNow(command);
  }

  commandReceiver(command: ReceiveCommand): void {
    const removed = command.type === 'remove' ? this.#receiveRecords.slotOf(command.id) : undefined;
    const noted = this.#receiveRecords.note(command);
    for (const [lane, link] of this.#receiving.entries()) {
      const part = this.#lanes.receiveCommand(lane, noted);
      if (part !== undefined) link.post({ type: 'receive-plane', command: part });
    }
    this.#lanes.received(noted);
    if (removed !== undefined) this.#releaseKeys(removed);
  }

  #sendNow(command: SendCommand): void {
    const removed = command.type === 'remove' ? this.#sendRecords.slotOf(command.id) : undefined;
    const noted = this.#sendRecords.note(command);
    for (const [lane, link] of this.#sending.entries()) {
      link.post(this.#sendMessage(lane, noted));
    }
    this.#lanes.sent(noted);
    if (removed !== undefined) this.#releaseKeys(removed);
  }

  /** Not before all workers have removed the SA: one that installs it yet must not find the slot empty, or another's keys. */
  #releaseKeys(slot: KeySlot): void {
    this.#settled.push({ after: this.#tickets(), resolve: () => slot.release() });
    this.#proceed();
  }

  #sendMessage(lane: number, command: SendCommand): WorkerCommand {
    let scope = 0;
    if ('path' in command) {
      const { address } = command.path.remote;
      for (const socket of this.#sockets.keys()) scope ||= socket.scopeOf?.(address) ?? 0;
    }
    return { type: 'send-plane', command: this.#lanes.sendCommand(lane, command), scope };
  }

  /** To be called with all that the engine has to say, in its order, after every call of it. */
  transmit(messages: readonly Transmit[]): void {
    const after = this.#tickets();
    for (const message of messages) this.#waiting.push({ message, after });
    for (const command of this.#afterIke) this.#waiting.push({ command });
    this.#afterIke = [];
    this.#proceed();
    for (let surplus = this.#waiting.length - MAX_WAITING; surplus > 0; surplus--) {
      const oldest = this.#waiting.findIndex((waiting) => 'message' in waiting);
      if (oldest >= 0) this.#waiting.splice(oldest, 1);
    }
  }

  openDevice(tunnel: number, device: PacketDevice): void {
    const queues = device.handOver?.();
    if (queues === undefined || queues.length < this.#lanes.count) {
      throw new Error(`device ${device.name} cannot be handed to worker threads`);
    }
    const open = (lane: number): OpenDevice => {
      const counters = sharedCounters(newDeviceCounters());
      return { type: 'open-device', tunnel, descriptor: queues[lane]!, counters };
    };
    this.#devices.set(
      tunnel,
      this.#open((_, lane) => open(lane)),
    );
  }

  /** Resolved when no worker touches the descriptors any more. */
  closeDevice(tunnel: number): Promise<void> {
    if (!this.#devices.delete(tunnel)) return Promise.resolve();
    return this.#letGo({ type: 'close-device', tunnel });
  }

  /** The workers read and write it from now on, but for one that is IKE's alone. @throws Error when that cannot be */
  openSocket(socket: UdpSocket): void {
    const { port } = socket.local;
    if (port === IKE_PORT) return;
    const queues = socket.handOver?.() ?? [];
    const needed = port === NO_PORT ? 1 : this.#lanes.count;
    if (queues.length < needed) {
      throw new Error(`UDP port ${port} cannot be divided among ${needed} worker threads here: use fewer (--workers)`);
    }
    const key = ++this.#lastSocket;
    const opened = this.#open((role, lane): OpenSocket | undefined => {
      // One that has no queue of its own sends by the first.
      const descriptor = queues[lane] ?? (role === 'send' ? queues[0] : undefined);
      if (descriptor === undefined) return undefined;
      return { type: 'open-socket', socket: key, descriptor, counters: sharedCounters(newUdpCounters()) };
    });
    this.#sockets.set(socket, opened);
  }

  /** Has all workers open what each is to have of something; none when `make` throws, as there may be no memory. */
  #open<Open extends DescriptorCommand>(make: (role: WorkerRole, lane: number) => Open | undefined): Opened<Open> {
    const opened = {
      send: this.#sending.map((_, lane) => make('send', lane)),
      receive: this.#receiving.map((_, lane) => make('receive', lane)),
    };
    for (const [at, link] of this.#links.entries()) {
      const command = [...opened.send, ...opened.receive][at];
      if (command !== undefined) link.post(command);
    }
    return opened;
  }

  closeSocket(socket: UdpSocket): Promise<void> {
    const opened = this.#sockets.get(socket);
    if (opened === undefined) return Promise.resolve();
    this.#sockets.delete(socket);
    return this.#letGo({ type: 'close-socket', socket: opened.send[0]!.socket });
  }

  /** What the workers counted at a device. */
  deviceCounters(tunnel: number): DeviceCounters {
    const sum = newDeviceCounters();
    const opened = this.#devices.get(tunnel);
    for (const command of [...(opened?.send ?? []), ...(opened?.receive ?? [])]) {
      if (command !== undefined) addCounters(command.counters, sum);
    }
    return sum;
  }

  /** What the workers counted at all sockets that are open. */
  socketCounters(): UdpCounters {
    const sum = newUdpCounters();
    for (const { send, receive } of this.#sockets.values()) {
      for (const command of [...send, ...receive]) if (command !== undefined) addCounters(command.counters, sum);
    }
    return sum;
  }

  /** Makes what the engine reads of its data plane up to date. */
  refresh(): void {
    this.#lanes.gather();
  }

  /** Datagrams that reached neither IKE nor ESP, since the workers that receive were started. */
  strayCounters(): { keepalives: number; empty: number; oversized: number; overflow: number } {
    const at = (place: number): number => this.#receiving.reduce((sum, { control }) => sum + control[place]!, 0);
    return {
      keepalives: at(Control.keepalives),
      empty: at(Control.empty),
      oversized: at(Control.oversized),
      overflow: at(Control.overflow),
    };
  }

  status(): WorkerStatus[] {
    return this.#links.map((link) => link.status);
  }

  async close(): Promise<void> {
    await Promise.all(this.#links.map((link) => link.stop()));
    this.#sendRecords.clear();
    this.#receiveRecords.clear();
    this.#slots.eraseAll();
  }

  #letGo(command: DescriptorCommand): Promise<void> {
    for (const link of this.#links) link.post(command);
    const after = this.#tickets();
    return new Promise((resolve) => {
      this.#settled.push({ after, resolve });
      this.#proceed();
    });
  }

  #heed(lane: number, report: WorkerReport): void {
    const { onDatagram, onDeviceLost, onTooLarge, onPathReport, onRefusal, onReport } = this.#options;
    switch (report.type) {
      case 'datagram':
        Atomics.sub(this.#receiving[lane]!.control, Control.underWay, 1);
        onDatagram(report.data, report.from, report.local);
        return;
      case 'device-lost':
        onDeviceLost(report.tunnel);
        return;
      case 'too-large':
        onTooLarge();
        return;
      case 'path-report':
        onPathReport(report.report);
        return;
      case 'refused':
        onRefusal(report.remote, report.error);
        return;
      default:
        onReport(report);
    }
  }

  #tickets(): Tickets {
    return this.#links.map((link) => link.issued);
  }

  /** Whatever the workers have done may be what something waits for. */
  #proceed(): void {
    const links = this.#links;
    const isDone = (after: Tickets): boolean => links.every((link, i) => link.hasApplied(after[i]!));
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if ('message' in next && !isDone(next.after)) break;
      this.#waiting.shift();
      if ('message' in next) this.#options.onTransmit(next.message);
      else this.#sendNow(next.command);
    }
    const settled = this.#settled.filter(({ after }) => isDone(after));
    if (settled.length === 0) return;
    this.#settled = this.#settled.filter((entry) => !settled.includes(entry));
    for (const { resolve } of settled) resolve();
  }

  *#restoreSending(lane: number): Generator<WorkerCommand> {
    yield* this.#opened('send', lane);
    for (const command of this.#sendRecords.restore()) {
      yield this.#sendMessage(lane, command);
    }
  }

  *#restoreReceiving(lane: number): Generator<WorkerCommand> {
    // SAs before sockets: nothing that comes may find them missing.
    for (const command of this.#receiveRecords.restore()) {
      const part = this.#lanes.receiveCommand(lane, command);
      if (part !== undefined) yield { type: 'receive-plane', command: part };
    }
    yield* this.#opened('receive', lane);
  }

  *#opened(role: WorkerRole, lane: number): Generator<WorkerCommand> {
    for (const opened of [...this.#sockets.values(), ...this.#devices.values()]) {
      const command = opened[role][lane];
      if (command !== undefined) yield command;
    }
  }
}

function startLink(options: LinkOptions): Link {
  return new WorkerLink(options);
}

function sharedCounters(like: object): Float64Array {
  return new Float64Array(new SharedArrayBuffer(counterCount(like) * Float64Array.BYTES_PER_ELEMENT));
}
