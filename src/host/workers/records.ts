/**
 * The commands that still hold, for a worker that replaces another. Sequence numbers and counters of the SAs are in shared
 * memory, and so are the keys, in slots that are kept until no worker has the SA any more.
 */
import type {
  InstallInbound,
  InstallOutbound,
  ReceiveCommand,
  ReceiveSaCommand,
  SendCommand,
} from '../../engine/commands.ts';
import type { KeySlot, KeySlots } from './key-slots.ts';

interface SendTunnel {
  add: Extract<SendCommand, { type: 'add-tunnel' }>;
  hold: SendCommand | undefined;
}

interface SaRecord<Install, State> {
  install: Install;
  readonly slot: KeySlot;
  state: State;
}

/** The SAs of one direction as they are installed now, the slots of their keys, and a state of each. */
class SaRecords<Install extends InstallInbound | InstallOutbound, State> {
  // BOUNDED: by the engine.
  readonly #sas = new Map<number, SaRecord<Install, State>>();
  readonly #slots: KeySlots;

  constructor(slots: KeySlots) {
    this.#slots = slots;
  }

  /** Records an SA. Returns the command with its keys in a slot. */
  install(command: Install, state: State): Install {
    const slot = this.#slots.take(command.keys);
    const install = { ...command, keys: slot.keys };
    this.#sas.set(command.id, { install, slot, state });
    return install;
  }

  /** Changes what would be installed now. */
  change(id: number, change: Partial<Install>): void {
    const sa = this.#sas.get(id);
    if (sa !== undefined) sa.install = { ...sa.install, ...change };
  }

  setState(id: number, state: State): void {
    const sa = this.#sas.get(id);
    if (sa !== undefined) sa.state = state;
  }

  remove(id: number): void {
    this.#sas.delete(id);
  }

  slotOf(id: number): KeySlot | undefined {
    return this.#sas.get(id)?.slot;
  }

  all(): IterableIterator<SaRecord<Install, State>> {
    return this.#sas.values();
  }

  clear(): void {
    this.#sas.clear();
  }
}

export class SendRecords {
  // BOUNDED: by the engine, both.
  readonly #devices = new Map<number, SendCommand>();
  readonly #tunnels = new Map<number, SendTunnel>();
  /** The state is the order in which SAs were activated; 0 for one that was not. */
  readonly #sas: SaRecords<InstallOutbound, number>;
  #activations = 0;

  constructor(slots: KeySlots) {
    this.#sas = new SaRecords(slots);
  }

  /** Records a command. Returns it as the workers get it: with its keys in a slot. */
  note(command: SendCommand): SendCommand {
    switch (command.type) {
      case 'add-device':
        this.#devices.set(command.device, command);
        return command;
      case 'remove-device':
        this.#devices.delete(command.device);
        return command;
      case 'add-tunnel':
        this.#tunnels.set(command.tunnel, { add: command, hold: undefined });
        return command;
      case 'remove-tunnel':
        this.#tunnels.delete(command.tunnel);
        return command;
      case 'policy': {
        const tunnel = this.#tunnels.get(command.tunnel);
        if (tunnel !== undefined) tunnel.add = { ...tunnel.add, policy: command.policy };
        return command;
      }
      case 'hold': {
        const tunnel = this.#tunnels.get(command.tunnel);
        if (tunnel !== undefined) tunnel.hold = { ...command, forget: false };
        return command;
      }
      // About packets that wait in this worker: means nothing to another.
      case 'ask-again':
      case 'refuse':
        return command;
      case 'install':
        return this.#sas.install(command, 0);
      case 'activate':
        this.#sas.setState(command.id, ++this.#activations);
        return command;
      case 'remove':
        this.#sas.remove(command.id);
        return command;
      case 'path':
      case 'fit': {
        const { type: _, ...change } = command;
        this.#sas.change(command.id, change);
        return command;
      }
    }
  }

  /** The slot with the keys of an SA, to be released when no worker has the SA any more. */
  slotOf(id: number): KeySlot | undefined {
    return this.#sas.slotOf(id);
  }

  /** All commands that hold, in an order in which they can be applied. */
  *restore(): Generator<SendCommand> {
    yield* this.#devices.values();
    for (const { add, hold } of this.#tunnels.values()) {
      yield add;
      if (hold !== undefined) yield hold;
    }
    const sas = [...this.#sas.all()];
    for (const { install } of sas) yield install;
    const active = sas.filter(({ state }) => state > 0).sort((a, b) => a.state - b.state);
    for (const { install } of active) yield { type: 'activate', id: install.id, afterIke: false };
  }

  clear(): void {
    this.#sas.clear();
    this.#tunnels.clear();
    this.#devices.clear();
  }
}

export class ReceiveRecords {
  /** The state says which SAs are superseded. */
  readonly #sas: SaRecords<InstallInbound, boolean>;

  constructor(slots: KeySlots) {
    this.#sas = new SaRecords(slots);
  }

  /** As `SendRecords.note`. */
  note(command: ReceiveCommand): ReceiveCommand {
    switch (command.type) {
      // About packets that come to this worker now: means nothing to another.
      case 'expect':
        return command;
      case 'install':
        return this.#sas.install(command, false);
      case 'supersede':
        this.#sas.setState(command.id, true);
        return command;
      case 'remove':
        this.#sas.remove(command.id);
        return command;
      case 'path':
      case 'fit':
      case 'guard': {
        const { type: _, ...change } = command;
        this.#sas.change(command.id, change);
        return command;
      }
    }
  }

  /** As `SendRecords.slotOf`. */
  slotOf(id: number): KeySlot | undefined {
    return this.#sas.slotOf(id);
  }

  *restore(): Generator<ReceiveSaCommand> {
    for (const { install, state } of this.#sas.all()) {
      yield install;
      if (state) yield { type: 'supersede', id: install.id };
    }
  }

  clear(): void {
    this.#sas.clear();
  }
}
