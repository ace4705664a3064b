/** A daemon behind its control socket: what the `sectunneld` program runs. */
import { join } from 'node:path';
import { ControlServer } from './control.ts';
import { Daemon, type DaemonOptions } from './daemon.ts';
import { makePrivateFolder } from './files.ts';
import { lockFolder } from './lock.ts';
import { CONTROL_SOCKET } from './protocol.ts';
import { dispatchVerb, laneOf } from './verbs.ts';

export class Service {
  readonly daemon: Daemon;
  readonly #control: ControlServer;
  readonly #configDir: string;
  #unlock: (() => void) | undefined;

  constructor(options: Omit<DaemonOptions, 'onEvent'>) {
    makePrivateFolder(options.runDir, 'the control socket (--run-dir)');
    this.#configDir = options.configDir;
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
    const unlock = lockFolder(this.#configDir);
    try {
      await this.#control.listen();
    } catch (error) {
      unlock();
      throw error;
    }
    this.#unlock = unlock;
    await this.daemon.open();
  }

  async close(): Promise<void> {
    await this.#control.close();
    await this.daemon.close();
    this.#unlock?.();
  }
}
