/**
 * The data plane in worker threads, as the control plane and the host see it: in each pair one worker sends and one
 * receives. An IKE message leaves only after the workers have applied all commands given before it, because the peer may
 * act on the message at once.
 */

import { NO_PORT, type SocketAddress } from '../../base/address.ts';
import { SectunnelError } from '../../base/error.ts';
import type { PathReport } from '../../base/path-report.ts';
import { IKE_PORT } from '../../base/ports.ts';
import type { DataPlane, PlaneReport, ReceiveCommand, SendCommand } from '../../engine/commands.ts';
import type { Transmit } from '../../engine/options.ts';
import type { DropCounters } from '../../esp/drops.ts';
import { bootNow } from '../../sys/boot-clock.ts';
import { addCounters, counterCount } from '../../tun/counters.ts';
import { type DeviceCounters, newDeviceCounters, type PacketDevice } from '../../tun/device.ts';
import { newUdpCounters, type UdpCounters, type UdpSendError, type UdpSocket } from '../../tun/udp/udp.ts';
import { type Handle, type HandleOptions, WorkerHandle, type WorkerStatus } from './handle.ts';
import { type KeySlot, KeySlots } from './key-slots.ts';
import { Control, type DescriptorCommand, type WorkerCommand, type WorkerReport, type WorkerRole } from './messages.ts';
import { ReceiveRecords, SendRecords } from './records.ts';
import { Shards } from './shards.ts';

/** IKE messages that may wait. The oldest are dropped first: IKE sends them again. */
const MAX_WAITING = 4096;

export interface WorkerPlanesOptions {
  /** Pairs of workers: one of each sends, one receives. */
  readonly pairs: number;
  /** The name of the host's cryptographic provider. */
  readonly crypto: string;
  readonly fragmentSeed: number;
  readonly now: () => number;
  readonly onReport: (report: PlaneReport) => void;
  readonly onDatagram: (data: Uint8Array, from: SocketAddress, local: SocketAddress) => void;
  /** Sends an IKE message: the workers have applied what was commanded before it. */
  readonly onTransmit: (message: Transmit) => void;
  readonly onDeviceLost: (device: number) => void;
  readonly onTooLarge: () => void;
  readonly onPathReport: (report: PathReport) => void;
  readonly onRefusal: (remote: SocketAddress, error: UdpSendError) => void;
  readonly onCrash: (text: string) => void;
}

/** A device or socket as each worker opened it, by role and shard; `undefined` for a worker without it. */
type Opened<Open extends DescriptorCommand> = Readonly<Record<WorkerRole, readonly (Open | undefined)[]>>;

/** The number of the last command that each worker had been given at some moment. */
type Tickets = readonly number[];

type Waiting = { readonly message: Transmit; readonly after: Tickets } | { readonly command: SendCommand };

type OpenDevice = Extract<DescriptorCommand, { type: 'open-device' }>;
type OpenSocket = Extract<DescriptorCommand, { type: 'open-socket' }>;

export class WorkerPlanes implements DataPlane {
  readonly inboundDrops: DropCounters;
  readonly #options: WorkerPlanesOptions;
  readonly #shards: Shards;
  readonly #sending: readonly Handle[];
  readonly #receiving: readonly Handle[];
  readonly #slots = new KeySlots();
  readonly #sendRecords = new SendRecords(this.#slots);
  readonly #receiveRecords = new ReceiveRecords(this.#slots);
  // BOUNDED: the host's tunnels and sockets.
  readonly #devices = new Map<number, Opened<OpenDevice>>();
  readonly #sockets = new Map<UdpSocket, Opened<OpenSocket>>();
  #lastSocket = 0;
  // BOUNDED: MAX_WAITING messages, and an activation for each SA.
  readonly #waiting: Waiting[] = [];
  /** Activations that follow the IKE messages that the host will fetch next. BOUNDED: it fetches them after each call. */
  #afterIke: SendCommand[] = [];
  // BOUNDED: devices and sockets that are being closed, and two entries for each SA whose keys are to be erased.
  #settled: { readonly after: Tickets; readonly resolve: () => void }[] = [];

  /** @param start makes the handle of a worker; tests pass their own */
  constructor(options: WorkerPlanesOptions, start: (options: HandleOptions) => Handle = startHandle) {
    this.#options = options;
    this.#shards = new Shards(options.pairs);
    this.inboundDrops = this.#shards.inboundDrops.whole;
    const shards = [...Array(options.pairs).keys()];
    this.#sending = shards.map((shard) => this.#startWorker(start, 'send', shard, () => this.#restoreSending(shard)));
    this.#receiving = shards.map((shard) =>
      this.#startWorker(start, 'receive', shard, () => this.#restoreReceiving(shard)),
    );
  }

  #startWorker(
    start: (options: HandleOptions) => Handle,
    role: WorkerRole,
    shard: number,
    restore: HandleOptions['restore'],
  ): Handle {
    const { crypto, fragmentSeed, now, onCrash } = this.#options;
    const clockOffset = now() - bootNow();
    const inboundDrops = this.#shards.inboundDrops.parts[shard]!;
    return start({
      setup: { role, crypto, fragmentSeed, clockOffset, inboundDrops },
      restore,
      onReports: (reports) => {
        for (const report of reports) this.#onReport(shard, report);
      },
      onProgress: () => this.#proceed(),
      onCrash: (reason, pause) => {
        const [does, done] = role === 'send' ? ['sends', 'sent'] : ['receives', 'received'];
        onCrash(
          `${this.#shards.count === 1 ? 'the' : 'a'} worker that ${does} packets has ended (${reason}). ` +
            `A new one starts in ${pause} ms; until then no packets are ${done} by it`,
        );
      },
    });
  }

  get #handles(): readonly Handle[] {
    return [...this.#sending, ...this.#receiving];
  }

  /** Resolved when all workers have started. @throws Error when one cannot start */
  async ready(): Promise<void> {
    await Promise.all(this.#handles.map((handle) => handle.ready));
  }

  commandSender(command: SendCommand): void {
    if (command.type === 'activate' && command.afterIke) this.#afterIke.push(command);
    else this.#sendNow(command);
  }

  commandReceiver(command: ReceiveCommand): void {
    const removed = command.type === 'remove' ? this.#receiveRecords.slotOf(command.id) : undefined;
    const noted = this.#receiveRecords.note(command);
    for (const [shard, handle] of this.#receiving.entries()) {
      const part = this.#shards.receiveCommand(shard, noted);
      if (part !== undefined) handle.post({ type: 'receive-plane', command: part });
    }
    this.#shards.received(noted);
    if (removed !== undefined) this.#releaseKeys(removed);
  }

  #sendNow(command: SendCommand): void {
    const removed = command.type === 'remove' ? this.#sendRecords.slotOf(command.id) : undefined;
    const noted = this.#sendRecords.note(command);
    for (const [shard, handle] of this.#sending.entries()) {
      handle.post(this.#sendMessage(shard, noted));
    }
    this.#shards.sent(noted);
    if (removed !== undefined) this.#releaseKeys(removed);
  }

  /** Erases keys after all workers have removed the SA: one that still installs it must not read an empty or reused slot. */
  #releaseKeys(slot: KeySlot): void {
    this.#settled.push({ after: this.#tickets(), resolve: () => slot.release() });
    this.#proceed();
  }

  #sendMessage(shard: number, command: SendCommand): WorkerCommand {
    let scope = 0;
    if ('path' in command) {
      const { address } = command.path.remote;
      for (const socket of this.#sockets.keys()) scope ||= socket.scopeOf?.(address) ?? 0;
    }
    return { type: 'send-plane', command: this.#shards.sendCommand(shard, command), scope };
  }

  /** To be called after every call of the control plane, with all its messages in their order. */
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

  openDevice(device: number, opened: PacketDevice): void {
    const queues = opened.handOver?.();
    if (queues === undefined || queues.length < this.#shards.count) {
      throw new SectunnelError('unsupported', `device ${opened.name} cannot be handed to worker threads`);
    }
    const open = (shard: number): OpenDevice => {
      const counters = sharedCounters(newDeviceCounters());
      return { type: 'open-device', device, descriptor: queues[shard]!, counters };
    };
    this.#devices.set(
      device,
      this.#open((_, shard) => open(shard)),
    );
  }

  /** Resolved when no worker uses the descriptors any more. */
  closeDevice(device: number): Promise<void> {
    if (!this.#devices.delete(device)) return Promise.resolve();
    return this.#closeEverywhere({ type: 'close-device', device });
  }

  /** Has the workers read and write the socket, unless it carries IKE alone. @throws Error when it cannot be shared */
  openSocket(socket: UdpSocket): void {
    const { port } = socket.local;
    if (port === IKE_PORT) return;
    const queues = socket.handOver?.() ?? [];
    const needed = port === NO_PORT ? 1 : this.#shards.count;
    if (queues.length < needed) {
      throw new SectunnelError(
        'unsupported',
        `UDP port ${port} cannot be divided among ${needed} worker threads here: use fewer (--workers)`,
      );
    }
    const key = ++this.#lastSocket;
    const opened = this.#open((role, shard): OpenSocket | undefined => {
      // A sender without a queue of its own uses the first.
      const descriptor = queues[shard] ?? (role === 'send' ? queues[0] : undefined);
      if (descriptor === undefined) return undefined;
      return { type: 'open-socket', socket: key, descriptor, counters: sharedCounters(newUdpCounters()) };
    });
    this.#sockets.set(socket, opened);
  }

  /** Has each worker open its part of a device or socket. When `make` throws (there may be no memory), none opens any. */
  #open<Open extends DescriptorCommand>(make: (role: WorkerRole, shard: number) => Open | undefined): Opened<Open> {
    const opened = {
      send: this.#sending.map((_, shard) => make('send', shard)),
      receive: this.#receiving.map((_, shard) => make('receive', shard)),
    };
    for (const [at, handle] of this.#handles.entries()) {
      const command = [...opened.send, ...opened.receive][at];
      if (command !== undefined) handle.post(command);
    }
    return opened;
  }

  closeSocket(socket: UdpSocket): Promise<void> {
    const opened = this.#sockets.get(socket);
    if (opened === undefined) return Promise.resolve();
    this.#sockets.delete(socket);
    return this.#closeEverywhere({ type: 'close-socket', socket: opened.send[0]!.socket });
  }

  /** What the workers counted at a device. */
  deviceCounters(device: number): DeviceCounters {
    const sum = newDeviceCounters();
    const opened = this.#devices.get(device);
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

  /** Adds up the counters of all workers for those who read them. */
  refresh(): void {
    this.#shards.gather();
  }

  /** Datagrams that reached neither IKE nor ESP, since the receiving workers started. */
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
    return this.#handles.map((handle) => handle.status);
  }

  async close(): Promise<void> {
    await Promise.all(this.#handles.map((handle) => handle.stop()));
    this.#sendRecords.clear();
    this.#receiveRecords.clear();
    this.#slots.eraseAll();
  }

  #closeEverywhere(command: DescriptorCommand): Promise<void> {
    for (const handle of this.#handles) handle.post(command);
    const after = this.#tickets();
    return new Promise((resolve) => {
      this.#settled.push({ after, resolve });
      this.#proceed();
    });
  }

  #onReport(shard: number, report: WorkerReport): void {
    const { onDatagram, onDeviceLost, onTooLarge, onPathReport, onRefusal, onReport } = this.#options;
    switch (report.type) {
      case 'datagram':
        Atomics.sub(this.#receiving[shard]!.control, Control.underWay, 1);
        onDatagram(report.data, report.from, report.local);
        return;
      case 'device-lost':
        onDeviceLost(report.device);
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
    return this.#handles.map((handle) => handle.issued);
  }

  /** A worker has applied commands, or ended: does everything that waited for just that. */
  #proceed(): void {
    const handles = this.#handles;
    const isDone = (after: Tickets): boolean => handles.every((handle, i) => handle.hasApplied(after[i]!));
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

  *#restoreSending(shard: number): Generator<WorkerCommand> {
    yield* this.#opened('send', shard);
    for (const command of this.#sendRecords.restore()) {
      yield this.#sendMessage(shard, command);
    }
  }

  *#restoreReceiving(shard: number): Generator<WorkerCommand> {
    // SAs before sockets, so that no packet comes before its SA is there.
    for (const command of this.#receiveRecords.restore()) {
      const part = this.#shards.receiveCommand(shard, command);
      if (part !== undefined) yield { type: 'receive-plane', command: part };
    }
    yield* this.#opened('receive', shard);
  }

  *#opened(role: WorkerRole, shard: number): Generator<WorkerCommand> {
    for (const opened of [...this.#sockets.values(), ...this.#devices.values()]) {
      const command = opened[role][shard];
      if (command !== undefined) yield command;
    }
  }
}

function startHandle(options: HandleOptions): Handle {
  return new WorkerHandle(options);
}

function sharedCounters(like: object): Float64Array {
  return new Float64Array(new SharedArrayBuffer(counterCount(like) * Float64Array.BYTES_PER_ELEMENT));
}
