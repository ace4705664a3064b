/**
 * The shards of the data plane, when several workers send and several receive: which worker gets which command, and
 * counters that each worker writes for itself, added up for readers. Every sender has all tunnels and all SAs, because the
 * kernel gives each of them some of the flows. An SA is received by one worker alone, chosen by its SPI, so that its replay
 * window is in one place.
 */
import { NO_PORT } from '../../base/address.ts';
import {
  type InstallInbound,
  type InstallOutbound,
  newTunnelCounters,
  type ReceiveCommand,
  type SendCommand,
  type TunnelCounters,
} from '../../engine/commands.ts';
import { type DropCounters, newDropCounters } from '../../esp/drops.ts';
import { newSaState, SaCounter, type SaState } from '../../esp/usage.ts';

/** Counters as the control plane reads them, and the part that each worker writes. */
interface Parted<T> {
  readonly whole: T;
  readonly parts: readonly T[];
}

const shared = (bytes: number): SharedArrayBuffer => new SharedArrayBuffer(bytes);

export class Shards {
  readonly count: number;
  /** ESP packets that each receiver dropped, of all tunnels and of none. */
  readonly inboundDrops: Parted<DropCounters>;
  // BOUNDED: by the engine, all of these.
  readonly #devices = new Map<number, Parted<DropCounters>>();
  readonly #tunnels = new Map<number, Parted<TunnelCounters>>();
  readonly #sent = new Map<number, Parted<SaState>>();
  /** By child SA, the shard that receives its packets. */
  readonly #receivers = new Map<number, number>();

  constructor(count: number) {
    this.count = count;
    this.inboundDrops = this.#part(() => new Float64Array(shared(newDropCounters().byteLength)));
  }

  /** The command as the sender of a shard gets it. */
  sendCommand(shard: number, command: SendCommand): SendCommand {
    if (this.count === 1) return command;
    if (command.type === 'add-device') return { ...command, drops: this.#deviceOf(command).parts[shard]! };
    if (command.type === 'add-tunnel') return { ...command, counters: this.#tunnelOf(command).parts[shard]! };
    return command.type === 'install' ? this.#installOutbound(shard, command) : command;
  }

  /** The command as the receiver of a shard gets it; `undefined` when it is for another shard. */
  receiveCommand(shard: number, command: ReceiveCommand): ReceiveCommand | undefined {
    if (this.count === 1) return command;
    if (command.type === 'expect') return command;
    if (command.type !== 'install') return this.#receivers.get(command.id) === shard ? command : undefined;
    this.#receivers.set(command.id, this.#receiverOf(command));
    if (this.#receivers.get(command.id) !== shard) return undefined;
    return { ...command, drops: this.#tunnels.get(command.tunnel)?.parts[shard]?.inboundDrops ?? command.drops };
  }

  /** Forgets what the command removes, after every sender got it. */
  sent(command: SendCommand): void {
    if (this.count === 1) return;
    switch (command.type) {
      case 'remove':
        this.gather();
        this.#sent.delete(command.id);
        return;
      case 'remove-tunnel':
        this.gather();
        this.#tunnels.delete(command.tunnel);
        return;
      case 'remove-device':
        this.#devices.delete(command.device);
    }
  }

  /** The same after the receivers got it. */
  received(command: ReceiveCommand): void {
    if (command.type === 'remove') this.#receivers.delete(command.id);
  }

  /** Adds up what the workers wrote. */
  gather(): void {
    if (this.count === 1) return;
    addUp(this.inboundDrops);
    for (const drops of this.#devices.values()) addUp(drops);
    for (const { whole, parts } of this.#tunnels.values()) {
      addUp({ whole: whole.outboundDrops, parts: parts.map((part) => part.outboundDrops) });
      addUp({ whole: whole.inboundDrops, parts: parts.map((part) => part.inboundDrops) });
      addUp({ whole: whole.sending, parts: parts.map((part) => part.sending) });
    }
    for (const { whole, parts } of this.#sent.values()) {
      const counters = parts.map((part) => part.counters);
      addUp({ whole: whole.counters, parts: counters });
      whole.counters[SaCounter.lastUsed] = Math.max(...counters.map((part) => part[SaCounter.lastUsed]!));
    }
  }

  /** ESP over IP, without ports, comes to every raw socket, so one worker alone reads it. */
  #receiverOf({ spi, path }: InstallInbound): number {
    return path.remote.port === NO_PORT ? 0 : spi % this.count;
  }

  #installOutbound(shard: number, command: InstallOutbound): InstallOutbound {
    let parted = this.#sent.get(command.id);
    if (parted === undefined) {
      // All senders draw from the same sequence numbers.
      const parts = Array.from({ length: this.count }, () => ({
        ...newSaState(shared),
        sequence: command.state.sequence,
      }));
      parted = { whole: command.state, parts };
      this.#sent.set(command.id, parted);
    }
    return { ...command, state: parted.parts[shard]!, sharers: this.count };
  }

  #deviceOf({ device, drops }: Extract<SendCommand, { type: 'add-device' }>): Parted<DropCounters> {
    let parted = this.#devices.get(device);
    if (parted?.whole !== drops) {
      parted = {
        whole: drops,
        parts: Array.from({ length: this.count }, () => new Float64Array(shared(drops.byteLength))),
      };
      this.#devices.set(device, parted);
    }
    return parted;
  }

  #tunnelOf({ tunnel, counters }: Extract<SendCommand, { type: 'add-tunnel' }>): Parted<TunnelCounters> {
    let parted = this.#tunnels.get(tunnel);
    if (parted?.whole !== counters) {
      parted = { whole: counters, parts: Array.from({ length: this.count }, () => newTunnelCounters(shared)) };
      this.#tunnels.set(tunnel, parted);
    }
    return parted;
  }

  /** With one worker its part is the whole. */
  #part<T>(make: () => T): Parted<T> {
    const whole = make();
    return { whole, parts: this.count === 1 ? [whole] : Array.from({ length: this.count }, make) };
  }
}

function addUp({ whole, parts }: Parted<Float64Array>): void {
  for (let i = 0; i < whole.length; i++) whole[i] = parts.reduce((sum, part) => sum + part[i]!, 0);
}
