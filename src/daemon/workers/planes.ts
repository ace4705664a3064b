/**
 * The data plane in worker threads, as the engine and its host see it: one worker sends, one receives. What IKE says goes
 * out only when the workers have carried out what was asked of them before: the peer may act on it at once.
 */
import type { SocketAddress } from '../../base/address.ts';
import type { PlanePort, PlaneReport, ReceiveCommand, SendCommand } from '../../engine/commands.ts';
import type { Transmit } from '../../engine/options.ts';
import { type DropCounters, newDropCounters } from '../../esp/drops.ts';
import { addCounters, counterCount } from '../../tun/counters.ts';
import { type DeviceCounters, newDeviceCounters, type PacketDevice } from '../../tun/device.ts';
import { newUdpCounters, type UdpCounters, type UdpSocket } from '../../tun/udp.ts';
import { IKE_PORT } from '../sockets.ts';
import { type Link, type LinkOptions, WorkerLink, type WorkerStatus } from './link.ts';
import { Control, type DescriptorCommand, type WorkerCommand, type WorkerReport, type WorkerRole } from './messages.ts';
import { ReceiveRecords, SendRecords } from './records.ts';

/** IKE messages that may wait. The oldest go first: they are sent again. */
const MAX_WAITING = 4096;

export interface WorkerPlanesOptions {
  /** The choice of a cryptographic provider, by name, as for the host. */
  readonly crypto: string;
  readonly fragmentSeed: number;
  readonly now: () => number;
  readonly onReport: (report: PlaneReport) => void;
  readonly onDatagram: (data: Uint8Array, from: SocketAddress, local: SocketAddress) => void;
  /** Takes an IKE message whose time has come. */
  readonly onTransmit: (message: Transmit) => void;
  readonly onDeviceLost: (tunnel: number) => void;
  readonly onTooLarge: () => void;
  readonly onCrash: (text: string) => void;
}

/** A device or socket as the workers have it. */
interface Opened<Open extends DescriptorCommand> {
  readonly commands: Readonly<Record<WorkerRole, Open | undefined>>;
}

type Waiting =
  | { readonly message: Transmit; readonly sent: number; readonly received: number }
  | { readonly command: SendCommand };

type OpenDevice = Extract<DescriptorCommand, { type: 'open-device' }>;
type OpenSocket = Extract<DescriptorCommand, { type: 'open-socket' }>;

export class WorkerPlanes implements PlanePort {
  readonly inboundDrops: DropCounters;
  readonly #options: WorkerPlanesOptions;
  readonly #sending: Link;
  readonly #receiving: Link;
  readonly #sendRecords = new SendRecords();
  readonly #receiveRecords = new ReceiveRecords();
  // BOUNDED: the host's tunnels and sockets.
  readonly #devices = new Map<number, Opened<OpenDevice>>();
  readonly #sockets = new Map<UdpSocket, Opened<OpenSocket>>();
  #lastSocket = 0;
  // BOUNDED: MAX_WAITING.
  readonly #waiting: Waiting[] = [];
  /** Activations that wait for what IKE has just written, which the host has not fetched yet. BOUNDED: fetched after each call. */
  #afterIke: SendCommand[] = [];
  // BOUNDED: by who waits for devices and sockets to be let go.
  #settled: { readonly sent: number; readonly received: number; readonly resolve: () => void }[] = [];

  /** @param start how a worker comes about, for tests */
  constructor(options: WorkerPlanesOptions, start: (options: LinkOptions) => Link = startLink) {
    this.#options = options;
    this.inboundDrops = new Float64Array(new SharedArrayBuffer(newDropCounters().byteLength));
    this.#sending = this.#link(start, 'send', () => this.#restoreSending());
    this.#receiving = this.#link(start, 'receive', () => this.#restoreReceiving());
  }

  #link(start: (options: LinkOptions) => Link, role: WorkerRole, restore: LinkOptions['restore']): Link {
    const { crypto, fragmentSeed, now, onCrash } = this.#options;
    const [seconds, nanoseconds] = process.hrtime();
    const clockOffset = now() - seconds * 1e3 - nanoseconds / 1e6;
    return start({
      setup: { role, crypto, fragmentSeed, clockOffset, inboundDrops: this.inboundDrops },
      restore,
      onReports: (reports) => {
        for (const report of reports) this.#heed(report);
      },
      onProgress: () => this.#proceed(),
      onCrash: (reason, pause) => {
        onCrash(
          `the worker that ${role === 'send' ? 'sends' : 'receives'} packets has ended, and nothing is ` +
            `${role === 'send' ? 'sent' : 'received'} until another takes its place in ${pause} ms: ${reason}`,
        );
      },
    });
  }

  /** Resolved when both workers are there. @throws Error when one cannot start */
  async ready(): Promise<void> {
    await Promise.all([this.#sending.ready, this.#receiving.ready]);
  }

  send(command: SendCommand): void {
    if (command.type === 'activate' && command.afterIke) this.#afterIke.push(command);
    else this.#sendNow(command);
  }

  receive(command: ReceiveCommand): void {
    this.#receiving.post({ type: 'receive-plane', command: this.#receiveRecords.note(command) });
  }

  #sendNow(command: SendCommand): void {
    this.#sending.post({ type: 'send-plane', command: this.#sendRecords.note(command) });
  }

  /** To be called with all that the engine has to say, in its order, after every call of it. */
  transmit(messages: readonly Transmit[]): void {
    const [sent, received] = [this.#sending.issued, this.#receiving.issued];
    for (const message of messages) this.#waiting.push({ message, sent, received });
    for (const command of this.#afterIke) this.#waiting.push({ command });
    this.#afterIke = [];
    while (this.#waiting.length > MAX_WAITING) this.#waiting.shift();
    this.#proceed();
  }

  openDevice(tunnel: number, device: PacketDevice): void {
    const descriptor = device.handOver?.();
    if (descriptor === undefined) throw new Error(`device ${device.name} cannot be handed to worker threads`);
    const open = (): OpenDevice => {
      const counters = sharedCounters(newDeviceCounters());
      return { type: 'open-device', tunnel, descriptor, counters };
    };
    const commands = { send: open(), receive: open() };
    this.#devices.set(tunnel, { commands });
    this.#sending.post(commands.send);
    this.#receiving.post(commands.receive);
  }

  /** Resolved when no worker touches the descriptor any more. */
  closeDevice(tunnel: number): Promise<void> {
    if (!this.#devices.delete(tunnel)) return Promise.resolve();
    return this.#letGo({ type: 'close-device', tunnel });
  }

  /** The workers read and write it from now on, but for one that is IKE's alone. */
  openSocket(socket: UdpSocket): void {
    if (socket.local.port === IKE_PORT) return;
    const descriptor = socket.handOver?.();
    if (descriptor === undefined) throw new Error('a UDP socket cannot be handed to worker threads');
    const key = ++this.#lastSocket;
    const open = (): OpenSocket => {
      return { type: 'open-socket', socket: key, descriptor, counters: sharedCounters(newUdpCounters()) };
    };
    const commands = { send: open(), receive: open() };
    this.#sockets.set(socket, { commands });
    this.#sending.post(commands.send);
    this.#receiving.post(commands.receive);
  }

  closeSocket(socket: UdpSocket): Promise<void> {
    const opened = this.#sockets.get(socket);
    if (opened === undefined) return Promise.resolve();
    this.#sockets.delete(socket);
    return this.#letGo({ type: 'close-socket', socket: opened.commands.send!.socket });
  }

  /** What the workers counted at a device. */
  deviceCounters(tunnel: number): DeviceCounters {
    const sum = newDeviceCounters();
    for (const command of Object.values(this.#devices.get(tunnel)?.commands ?? {})) {
      if (command !== undefined) addCounters(command.counters, sum);
    }
    return sum;
  }

  /** What the workers counted at all sockets that are open. */
  socketCounters(): UdpCounters {
    const sum = newUdpCounters();
    for (const { commands } of this.#sockets.values()) {
      for (const command of Object.values(commands)) if (command !== undefined) addCounters(command.counters, sum);
    }
    return sum;
  }

  /** Datagrams that reached neither IKE nor ESP, since the worker that receives was started. */
  strayCounters(): { keepalives: number; empty: number; oversized: number; overflow: number } {
    const at = (place: number): number => this.#receiving.control[place]!;
    return {
      keepalives: at(Control.keepalives),
      empty: at(Control.empty),
      oversized: at(Control.oversized),
      overflow: at(Control.overflow),
    };
  }

  status(): WorkerStatus[] {
    return [this.#sending.status, this.#receiving.status];
  }

  async close(): Promise<void> {
    await Promise.all([this.#sending.stop(), this.#receiving.stop()]);
    this.#sendRecords.clear();
    this.#receiveRecords.clear();
  }

  #letGo(command: DescriptorCommand): Promise<void> {
    this.#sending.post(command);
    this.#receiving.post(command);
    const [sent, received] = [this.#sending.issued, this.#receiving.issued];
    return new Promise((resolve) => {
      this.#settled.push({ sent, received, resolve });
      this.#proceed();
    });
  }

  #heed(report: WorkerReport): void {
    const { onDatagram, onDeviceLost, onTooLarge, onReport } = this.#options;
    switch (report.type) {
      case 'datagram':
        Atomics.sub(this.#receiving.control, Control.underWay, 1);
        onDatagram(report.data, report.from, report.local);
        return;
      case 'device-lost':
        onDeviceLost(report.tunnel);
        return;
      case 'too-large':
        onTooLarge();
        return;
      default:
        onReport(report);
    }
  }

  /** Whatever the workers have done may be what something waits for. */
  #proceed(): void {
    const isDone = (sent: number, received: number): boolean =>
      this.#sending.hasApplied(sent) && this.#receiving.hasApplied(received);
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if ('message' in next && !isDone(next.sent, next.received)) break;
      this.#waiting.shift();
      if ('message' in next) this.#options.onTransmit(next.message);
      else this.#sendNow(next.command);
    }
    const settled = this.#settled.filter(({ sent, received }) => isDone(sent, received));
    if (settled.length === 0) return;
    this.#settled = this.#settled.filter((entry) => !settled.includes(entry));
    for (const { resolve } of settled) resolve();
  }

  *#restoreSending(): Generator<WorkerCommand> {
    yield* this.#opened('send');
    for (const command of this.#sendRecords.restore()) yield { type: 'send-plane', command };
  }

  *#restoreReceiving(): Generator<WorkerCommand> {
    // SAs before sockets: nothing that comes may find them missing.
    for (const command of this.#receiveRecords.restore()) yield { type: 'receive-plane', command };
    yield* this.#opened('receive');
  }

  *#opened(role: WorkerRole): Generator<WorkerCommand> {
    for (const { commands } of [...this.#sockets.values(), ...this.#devices.values()]) {
      const command = commands[role];
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
