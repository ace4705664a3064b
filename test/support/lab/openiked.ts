/**
 * OpenIKED as a peer: Debian's iked in a guest, whose kernel carries its ESP. `scripts/setup.sh` unpacks it beside the
 * system, for its package has a daemon run that would want the ports of IKE; the guest has an `/etc` of its own for it.
 */
import { generateKeyPairSync } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab } from './lab.ts';
import type { Host, Namespace } from './namespace.ts';
import { OPENIKED } from './needs.ts';
import { type RunOptions, type RunResult, waitFor } from './process.ts';
import { BOOT_TIMEOUT, Guest, type GuestOptions, guestFolder } from './uml.ts';

/** Its processes run as this user, in its home. */
const PASSWD = `root:x:0:0:root:/root:/bin/sh
_iked:x:200:200:OpenIKED:/run/empty:/usr/sbin/nologin
`;
const GROUP = `root:x:0:
_iked:x:200:
`;
/** It speaks to the kernel by PF_KEY, and wants its files root's alone. */
const START = `
modprobe af_key
mkdir /run/empty
mount --bind "$1" /etc
exec ${OPENIKED}/usr/sbin/iked -d -v
`;

export interface OpenIkedOptions extends GuestOptions {
  /** iked.conf */
  readonly configuration: string;
}

export class OpenIked implements Host {
  readonly #guest: Guest;

  private constructor(guest: Guest) {
    this.#guest = guest;
  }

  static async boot(lab: Lab, namespace: Namespace, options: OpenIkedOptions): Promise<OpenIked> {
    const etc = join(guestFolder(lab, namespace), 'etc');
    const write = (name: string, text: string): void => writeFileSync(join(etc, name), text, { mode: 0o600 });
    for (const part of ['ca', 'certs', 'crls', 'private', 'pubkeys'])
      mkdirSync(join(etc, 'iked', part), { recursive: true });
    write('passwd', PASSWD);
    write('group', GROUP);
    write('iked.conf', options.configuration);
    // It does not start without a key, though all that is here is pre-shared.
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    write('iked/private/local.key', privateKey.export({ type: 'sec1', format: 'pem' }).toString());
    const daemon = { name: 'OpenIKED', argv: ['sh', '-c', START, 'sh', etc], env: {} };
    const peer = new OpenIked(await Guest.boot(lab, namespace, daemon, options));
    const control = async (): Promise<true | undefined> => (await peer.control('show', 'sa')).code === 0 || undefined;
    await waitFor('OpenIKED to be ready', control, BOOT_TIMEOUT, 500);
    return peer;
  }

  log(): string {
    return this.#guest.output();
  }

  /** Runs a command in the guest. Each takes some tenths of a second. */
  exec(argv: readonly string[], options?: RunOptions): Promise<RunResult> {
    return this.#guest.exec(argv, options);
  }

  /** Begins what is `active` of a configuration with `set passive`, and waits for nothing. */
  async activate(): Promise<void> {
    const { code, stdout } = await this.control('active');
    if (code !== 0) throw new Error(`ikectl active ended with ${code}\n${stdout}`);
  }

  /** `ikectl …` */
  control(...words: readonly string[]): Promise<RunResult> {
    return this.exec([`${OPENIKED}/usr/sbin/ikectl`, ...words]);
  }
}
