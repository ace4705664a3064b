/**
 * libreswan as a peer: Debian's pluto in a guest, whose kernel carries its ESP. Its package and strongSwan's exclude each
 * other, so that `scripts/setup.sh` unpacks it beside the system, and it is told where it is.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab } from './lab.ts';
import type { Host, Namespace } from './namespace.ts';
import { LIBRESWAN } from './needs.ts';
import { type RunOptions, type RunResult, run, waitFor } from './process.ts';
import { BOOT_TIMEOUT, Guest, type GuestOptions, guestFolder } from './uml.ts';

/** In the guest, where pluto looks for what belongs to it. */
const PROGRAMS = '/usr/libexec/ipsec';
const START = `
mount -t tmpfs tmpfs /usr/libexec
ln -s ${LIBRESWAN}${PROGRAMS} ${PROGRAMS}
mkdir -p /run/pluto
exec "$@"
`;

export interface LibreswanOptions extends GuestOptions {
  /** ipsec.conf: its connections have `auto=add`. */
  readonly configuration: string;
  /** Of all connections. */
  readonly psk: string;
}

export class Libreswan implements Host {
  readonly #guest: Guest;

  private constructor(guest: Guest) {
    this.#guest = guest;
  }

  static async boot(lab: Lab, namespace: Namespace, options: LibreswanOptions): Promise<Libreswan> {
    const folder = guestFolder(lab, namespace);
    const inFolder = (name: string): string => join(folder, name);
    writeFileSync(inFolder('ipsec.conf'), options.configuration);
    writeFileSync(inFolder('ipsec.secrets'), `: PSK "${options.psk}"\n`, { mode: 0o600 });
    for (const part of ['nss', 'ipsec.d']) mkdirSync(inFolder(part), { mode: 0o700 });
    await run(['certutil', '-N', '-d', `sql:${inFolder('nss')}`, '--empty-password']);
    const pluto = [
      ...[join(PROGRAMS, 'pluto'), '--nofork', '--logfile', inFolder('pluto.log'), '--config', inFolder('ipsec.conf')],
      ...['--secretsfile', inFolder('ipsec.secrets'), '--nssdir', inFolder('nss'), '--ipsecdir', inFolder('ipsec.d')],
    ];
    const daemon = { name: 'libreswan', argv: ['sh', '-c', START, 'sh', ...pluto], env: {} };
    const peer = new Libreswan(await Guest.boot(lab, namespace, daemon, options));
    lab.log(`guest of ${namespace.name}: libreswan`, () => peer.log());
    // The last that it does, when it has the connections and listens.
    const ready = (): true | undefined => peer.log().includes('loading secrets from') || undefined;
    await waitFor('libreswan to be ready', ready, BOOT_TIMEOUT);
    return peer;
  }

  log(): string {
    const file = join(this.#guest.folder, 'pluto.log');
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  }

  /** Runs a command in the guest. Each takes some tenths of a second. */
  exec(argv: readonly string[], options?: RunOptions): Promise<RunResult> {
    return this.#guest.exec(argv, options);
  }

  /** Begins, and waits for nothing. */
  async initiate(connection: string): Promise<void> {
    const words = ['--name', connection, '--initiate', '--asynchronous'];
    const { code, stdout } = await this.exec([join(PROGRAMS, 'whack'), ...words]);
    if (code !== 0) throw new Error(`whack ${words.join(' ')} ended with ${code}\n${stdout}`);
  }
}
