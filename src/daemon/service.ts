/** A daemon behind its control socket: what the `sectunneld` program runs. */
import { join } from 'node:path';
import type { Logger } from '../base/log.ts';
import { messageOf } from '../base/text.ts';
import { CONTROL_SOCKET } from '../control/protocol.ts';
import { ControlServer } from './control/server.ts';
import { dispatchVerb, laneOf } from './control/verbs.ts';
import { Daemon, type DaemonOptions } from './daemon.ts';
import { isUnwritable, makePrivateFolder } from './store/files.ts';
import { lockDefinitions, lockIfPossible } from './store/lock.ts';

export interface ServiceOptions extends Omit<DaemonOptions, 'onEvent'> {
  /** For the locks, the same for all daemons that could meet; left out: the run folder. */
  readonly lockDir?: string;
}

/** How often it is tried to listen where the socket cannot be made, in milliseconds. */
const LISTEN_AGAIN = 30_000;

export class Service {
  readonly daemon: Daemon;
  readonly #control: ControlServer;
  readonly #lock: () => () => void;
  readonly #log: Logger;
  #listening: NodeJS.Timeout | undefined;
  #unlock: (() => void) | undefined;

  constructor(options: ServiceOptions) {
    makePrivateFolder(options.runDir, 'the control socket (--run-dir)');
    const { configDir, runDir, log } = options;
    this.#lock = () => lockIfPossible(log, () => lockDefinitions(configDir, options.lockDir ?? runDir));
    this.#log = log;
    this.daemon = new Daemon({ ...options, onEvent: (event) => this.#control.publish(event) });
    this.#control = new ControlServer(
      join(options.runDir, CONTROL_SOCKET),
      (verb, params, connection) => dispatchVerb(this.daemon, verb, params, connection),
      options.log,
      { laneOf },
    );
  }

  /** Listens first: the socket is also what keeps a second daemon out of the same run folder. */
  async open(): Promise<void> {
    const unlock = this.#lock();
    try {
      await this.#listen();
    } catch (error) {
      unlock();
      throw error;
    }
    this.#unlock = unlock;
    await this.daemon.open();
  }

  /** Where the run folder is read-only or full, tunnels come first: they run, and it is tried again. */
  async #listen(): Promise<void> {
    try {
      await this.#control.listen();
    } catch (error) {
      if (!isUnwritable(error)) throw error;
      const again = LISTEN_AGAIN / 1000;
      this.#log.error({}, `the control socket cannot be opened, next attempt in ${again} s: ${messageOf(error)}`);
      this.#listening = setTimeout(() => void this.#listenAgain(), LISTEN_AGAIN).unref();
    }
  }

  async #listenAgain(): Promise<void> {
    try {
      await this.#listen();
    } catch (error) {
      this.#log.error({}, `the control socket cannot be opened: ${messageOf(error)}`);
    }
  }

  /** @param how as of `Daemon.close` */
  async close(how: Parameters<Daemon['close']>[0] = {}): Promise<void> {
    clearTimeout(this.#listening);
    await this.#control.close();
    await this.daemon.close(how);
    this.#unlock?.();
  }
}
