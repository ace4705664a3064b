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
  readonly add: SendCommand;
  hold: SendCommand | undefined;
}

interface SendSa {
  install: InstallOutbound;
  readonly slot: KeySlot;
  /** The order in which SAs were activated; 0 for one that was not. */
  activation: number;
}

interface ReceiveSa {
  install: InstallInbound;
  readonly slot: KeySlot;
  superseded: boolean;
}

export class SendRecords {
  // BOUNDED: by the engine, both.
  readonly #tunnels = new Map<number, SendTunnel>();
  readonly #sas = new Map<number, SendSa>();
  readonly #slots: KeySlots;
  #activations = 0;

  constructor(slots: KeySlots) {
    this.#slots = slots;
  }

  /** Records a command. Returns it as the workers get it: with its keys in a slot. */
  note(command: SendCommand): SendCommand {
    switch (command.type) {
      case 'add-tunnel':
        this.#tunnels.set(command.tunnel, { add: command, hold: undefined });
        return command;
      case 'remove-tunnel':
        this.#tunnels.delete(command.tunnel);
        return command;
      case 'hold': {
        const tunnel = this.#tunnels.get(command.tunnel);
        if (tunnel !== undefined) tunnel.hold = { ...command, forget: false };
        return command;
      }
      // About packets that wait in this worker: means nothing to another.
      case 'ask-again':
      case 'refuse':
        return command;
      case 'install': {
        const slot = this.#slots.take(command.keys);
        const install = { ...command, keys: slot.keys };
        this.#sas.set(command.id, { install, slot, activation: 0 });
        return install;
      }
      case 'activate': {
        const sa = this.#sas.get(command.id);
        if (sa !== undefined) sa.activation = ++this.#activations;
        return command;
      }
      case 'remove':
        this.#sas.delete(command.id);
        return command;
      case 'path':
      case 'fit': {
        const { type: _, ...change } = command;
        const sa = this.#sas.get(command.id);
        if (sa !== undefined) sa.install = { ...sa.install, ...change };
        return command;
      }
    }
  }

  /** The slot with the keys of an SA, to be released when no worker has the SA any more. */
  slotOf(id: number): KeySlot | undefined {
    return this.#sas.get(id)?.slot;
  }

  /** All commands that hold, in an order in which they can be applied. */
  *restore(): Generator<SendCommand> {
    for (const { add, hold } of this.#tunnels.values()) {
      yield add;
      if (hold !== undefined) yield hold;
    }
    const sas = [...this.#sas.values()];
    for (const { install } of sas) yield install;
    const active = sas.filter(({ activation }) => activation > 0).sort((a, b) => a.activation - b.activation);
    for (const { install } of active) yield { type: 'activate', id: install.id, afterIke: false };
  }

  clear(): void {
    this.#sas.clear();
    this.#tunnels.clear();
  }
}

export class ReceiveRecords {
  // BOUNDED: by the engine.
  readonly #sas = new Map<number, ReceiveSa>();
  readonly #slots: KeySlots;

  constructor(slots: KeySlots) {
    this.#slots = slots;
  }

  /** As `SendRecords.note`. */
  note(command: ReceiveCommand): ReceiveCommand {
    switch (command.type) {
      // About packets that come to this worker now: means nothing to another.
      case 'expect':
        return command;
      case 'install': {
        const slot = this.#slots.take(command.keys);
        const install = { ...command, keys: slot.keys };
        this.#sas.set(command.id, { install, slot, superseded: false });
        return install;
      }
      case 'supersede': {
        const sa = this.#sas.get(command.id);
        if (sa !== undefined) sa.superseded = true;
        return command;
      }
      case 'remove':
        this.#sas.delete(command.id);
        return command;
      case 'path':
      case 'fit': {
        const { type: _, ...change } = command;
        const sa = this.#sas.get(command.id);
        if (sa !== undefined) sa.install = { ...sa.install, ...change };
        return command;
      }
    }
  }

  /** As `SendRecords.slotOf`. */
  slotOf(id: number): KeySlot | undefined {
    return this.#sas.get(id)?.slot;
  }

  *restore(): Generator<ReceiveSaCommand> {
    for (const { install, superseded } of this.#sas.values()) {
      yield install;
      if (superseded) yield { type: 'supersede', id: install.id };
    }
  }

  clear(): void {
    this.#sas.clear();
  }
}
