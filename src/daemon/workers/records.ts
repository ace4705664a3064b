/**
 * What the workers were told and still holds: the only place of the main thread that has the keys of SAs, until they go.
 * A worker that takes another's place is told it again; what the SAs did meanwhile stands in their shared state.
 */
import type { InstallInbound, InstallOutbound, ReceiveCommand, SendCommand } from '../../engine/commands.ts';
import { wipeKeys } from '../../engine/suite.ts';

interface SendTunnel {
  readonly add: SendCommand;
  hold: SendCommand | undefined;
}

interface SendSa {
  install: InstallOutbound;
  /** The order in which SAs were activated; 0 for one that was not. */
  activation: number;
}

interface ReceiveSa {
  install: InstallInbound;
  retired: boolean;
}

export class SendRecords {
  // BOUNDED: by the engine, both.
  readonly #tunnels = new Map<number, SendTunnel>();
  readonly #sas = new Map<number, SendSa>();
  #activations = 0;

  /** Keeps what holds from now on. Returns the command as it is to be passed on, and whose keys stay here. */
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
      // About packets that wait now: nothing of it holds for another worker.
      case 'ask-again':
      case 'refuse':
        return command;
      case 'install': {
        const install = withOwnKeys(command);
        this.#sas.set(command.id, { install, activation: 0 });
        return install;
      }
      case 'activate': {
        const sa = this.#sas.get(command.id);
        if (sa !== undefined) sa.activation = ++this.#activations;
        return command;
      }
      case 'remove':
        wipe(this.#sas, command.id);
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

  /** All of it again, in an order in which it can be carried out. */
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
    for (const id of [...this.#sas.keys()]) wipe(this.#sas, id);
    this.#tunnels.clear();
  }
}

export class ReceiveRecords {
  // BOUNDED: by the engine.
  readonly #sas = new Map<number, ReceiveSa>();

  /** As `SendRecords.note`. */
  note(command: ReceiveCommand): ReceiveCommand {
    switch (command.type) {
      case 'install': {
        const install = withOwnKeys(command);
        this.#sas.set(command.id, { install, retired: false });
        return install;
      }
      case 'retire': {
        const sa = this.#sas.get(command.id);
        if (sa !== undefined) sa.retired = true;
        return command;
      }
      case 'remove':
        wipe(this.#sas, command.id);
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

  *restore(): Generator<ReceiveCommand> {
    for (const { install, retired } of this.#sas.values()) {
      yield install;
      if (retired) yield { type: 'retire', id: install.id };
    }
  }

  clear(): void {
    for (const id of [...this.#sas.keys()]) wipe(this.#sas, id);
  }
}

/** A message takes the whole memory along in which a key lies, so each key gets one of its own size. */
function withOwnKeys<Install extends InstallInbound | InstallOutbound>(command: Install): Install {
  const keys = { encryption: command.keys.encryption.slice(), integrity: command.keys.integrity.slice() };
  wipeKeys(command.keys);
  return { ...command, keys };
}

function wipe(sas: Map<number, SendSa> | Map<number, ReceiveSa>, id: number): void {
  const sa = sas.get(id);
  if (sa !== undefined) wipeKeys(sa.install.keys);
  sas.delete(id);
}
