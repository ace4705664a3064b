/** strongSwan on a Linux kernel of its own, with that kernel's ESP; its charon is driven over TCP. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab } from './lab.ts';
import type { Namespace } from './namespace.ts';
import type { RunOptions, RunResult } from './process.ts';
import { type StrongSwanOptions, Swanctl, strongswanConf } from './strongswan.ts';
import { BOOT_TIMEOUT, bare, Guest, type GuestOptions, guestFolder } from './uml.ts';

const VICI_PORT = 4502;

/** charon is driven over the first of the guest's addresses. */
export type UmlStrongSwanOptions = GuestOptions & StrongSwanOptions;

export class UmlStrongSwan extends Swanctl {
  readonly #guest: Guest;

  private constructor(guest: Guest, namespace: Namespace, address: string) {
    super(guest.folder, `tcp://${address}:${VICI_PORT}`, namespace.command([]));
    this.#guest = guest;
  }

  static async boot(lab: Lab, namespace: Namespace, options: UmlStrongSwanOptions): Promise<UmlStrongSwan> {
    const folder = guestFolder(lab, namespace);
    const [address] = options.guestAddresses;
    if (address === undefined) throw new Error('the guest needs an address');
    const [conf, swanctl] = [join(folder, 'strongswan.conf'), join(folder, 'swanctl')];
    mkdirSync(swanctl, { recursive: true });
    const log = join(folder, 'charon.log');
    writeFileSync(conf, strongswanConf('kernel-netlink', `tcp://0.0.0.0:${VICI_PORT}`, log, options));
    const env = { STRONGSWAN_CONF: conf, SWANCTL_DIR: swanctl };
    const daemon = { name: 'strongSwan', argv: ['/usr/sbin/charon-systemd'], env };
    const guest = await Guest.boot(lab, namespace, daemon, options);
    const peer = new UmlStrongSwan(guest, namespace, bare(address));
    lab.log(`guest of ${namespace.name}: strongSwan`, () => peer.log());
    await peer.ready(BOOT_TIMEOUT);
    return peer;
  }

  /** Runs a command in the guest. Each takes some tenths of a second. */
  exec(argv: readonly string[], options?: RunOptions): Promise<RunResult> {
    return this.#guest.exec(argv, options);
  }
}
