/** A daemon behind its control socket: what the `sectunneld` program runs. */
import { join } from 'node:path';
import { ControlServer } from './control.ts';
import { Daemon, type DaemonOptions } from './daemon.ts';
import { makePrivateFolder } from './files.ts';
import { CONTROL_SOCKET } from './protocol.ts';
import { dispatchVerb } from './verbs.ts';

export class Service {
  readonly daemon: Daemon;
  readonly #control: ControlServer;

  constructor(options: Omit<DaemonOptions, 'onEvent'>) {
    makePrivateFolder(options.runDir, 'the control socket (--run-dir)');
    this.daemon = new Daemon({ ...options, onEvent: (event) => this.#control.publish(event) });
    this.#control = new ControlServer(
      join(options.runDir, CONTROL_SOCKET),
      (verb, params, connection) => dispatchVerb(this.daemon, verb, params, connection),
      options.log,
    );
  }

  /** Listens first: the socket is also what keeps a second daemon out of the same folders. */
  async open(): Promise<void> {
    await this.#control.listen();
    await this.daemon.open();
  }

  async close(): Promise<void> {
    await this.#control.close();
    await this.daemon.close();
  }
}
