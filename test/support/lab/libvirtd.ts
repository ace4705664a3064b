/**
 * A real libvirtd, without systemd, for the drivers that need no hypervisor: networks and secrets. It sees private
 * folders in the place of /etc/libvirt, /run/libvirt and the like, which the test can look into.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { Lab } from './lab.ts';
import { INSTALLED_LIBVIRT, type LibvirtRelease } from './libvirt-release.ts';
import type { Namespace } from './namespace.ts';
import { type Background, type RunOptions, type RunResult, run, STARTING, waitFor } from './process.ts';

/** Folders of libvirt's own, by what they are called in the lab. */
const FOLDERS = {
  etc: '/etc/libvirt',
  lib: '/var/lib/libvirt',
  cache: '/var/cache/libvirt',
  log: '/var/log/libvirt',
  run: '/run/libvirt',
} as const;

const CONFIGURATION = `auth_unix_rw="none"
auth_unix_ro="none"
unix_sock_group="root"
unix_sock_rw_perms="0700"
unix_sock_ro_perms="0700"
`;

/**
 * With nftables libvirt has tc(8) write checksums into answers of DHCP, for guests with old clients. The labs' kernels need
 * not have that action, and no guest of theirs asks for addresses.
 */
const TC = `#!/bin/sh
case "$*" in *"action csum"*) exit 0 ;; esac
PATH=\${PATH#*:} exec tc "$@"
`;

export interface LibvirtdOptions {
  /** Default: the one that is installed. */
  readonly release?: LibvirtRelease | undefined;
  /** More lines of libvirtd.conf; the last of several that set the same counts. */
  readonly configuration?: string;
}

export class Libvirtd {
  readonly release: LibvirtRelease;
  readonly #namespace: Namespace;
  readonly #folder: string;
  #daemon: Background | undefined;
  #formerLog = '';
  #files = 0;

  private constructor(folder: string, namespace: Namespace, release: LibvirtRelease) {
    this.#folder = folder;
    this.#namespace = namespace;
    this.release = release;
  }

  static async start(lab: Lab, namespace: Namespace, options: LibvirtdOptions = {}): Promise<Libvirtd> {
    const { release = INSTALLED_LIBVIRT, configuration = '' } = options;
    const libvirtd = new Libvirtd(join(lab.folder, `libvirt-${namespace.name}`), namespace, release);
    libvirtd.#prepare(configuration);
    lab.log(`libvirtd in ${namespace.name}`, () => libvirtd.#formerLog + (libvirtd.#daemon?.output ?? ''));
    lab.defer(async () => {
      await libvirtd.stop();
      libvirtd.#endNameServers();
    });
    await libvirtd.run();
    return libvirtd;
  }

  /** The socket for reading and writing. */
  get socket(): string {
    return join(this.folder('run'), 'libvirt-sock');
  }

  /** What libvirtd sees as /etc/libvirt, /run/libvirt … */
  folder(which: keyof typeof FOLDERS): string {
    return join(this.#folder, which);
  }

  get pid(): number {
    if (this.#daemon === undefined) throw new Error('libvirtd does not run');
    return this.#daemon.pid;
  }

  /** Starts it, the first time or again. */
  async run(): Promise<void> {
    const binds = Object.entries(FOLDERS).map(([name, path]) => `mount --bind "${join(this.#folder, name)}" ${path}`);
    const script = [
      'set -e',
      ...Object.values(FOLDERS).map((path) => `mkdir -p ${path}`),
      ...binds,
      ...this.release.binds.map(([from, to]) => `mount --bind "${from}" ${to}`),
      // It looks for programs there, and keeps the path for those that it starts.
      `export PATH="${join(this.#folder, 'bin')}:$PATH"`,
      `LIBVIRT_DRIVER_DIR="${join(this.#folder, 'drivers')}" exec ${this.release.program('libvirtd').join(' ')} -f "${join(this.#folder, 'libvirtd.conf')}" -p "${join(this.#folder, 'libvirtd.pid')}"`,
    ].join('\n');
    const daemon = this.#namespace.spawn('libvirtd', ['unshare', '--mount', 'sh', '-c', script]);
    this.#daemon = daemon;
    await waitFor(
      'libvirtd to answer',
      async () => {
        if (!daemon.alive) throw new Error(`libvirtd ended with ${daemon.exitCode}:\n${daemon.output}`);
        return (await this.virsh(['net-list'], { check: false })).code === 0 ? true : undefined;
      },
      STARTING,
    );
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const daemon = this.#daemon;
    if (daemon === undefined) return;
    this.#daemon = undefined;
    await daemon.stop(signal);
    this.#formerLog += daemon.output;
  }

  /** `virsh VERB …` on the URI of a driver. */
  virsh(words: readonly string[], options: RunOptions & { driver?: 'network' | 'secret' } = {}): Promise<RunResult> {
    const { driver = 'network', ...more } = options;
    return run(
      [...this.release.program('virsh'), '-q', '-c', `${driver}+unix:///system?socket=${this.socket}`, ...words],
      more,
    );
  }

  /** Defines a secret from the inside of a `<secret>` element, and gives it a value unless that is left out. */
  async secret(uuid: string, value: string | undefined, content = '', attributes = "private='no'"): Promise<void> {
    const xml = `<secret ${attributes}><uuid>${uuid}</uuid>${content}</secret>\n`;
    await this.virsh(['secret-define', this.file(xml)], { driver: 'secret' });
    if (value !== undefined) await this.setSecret(uuid, value);
  }

  async setSecret(uuid: string, value: string): Promise<void> {
    await this.virsh(['secret-set-value', uuid, '--plain', '--file', this.file(value)], { driver: 'secret' });
  }

  /** A file for virsh, which cannot read what Node pipes. */
  file(content: string): string {
    const path = join(this.#folder, `input-${this.#files++}`);
    writeFileSync(path, content, { mode: 0o600 });
    return path;
  }

  /** Of networks that run on without it, as when a test failed. */
  #endNameServers(): void {
    const folder = join(this.folder('run'), 'network');
    for (const file of existsSync(folder) ? readdirSync(folder) : []) {
      const pid = file.endsWith('.pid') ? readFileSync(join(folder, file), 'utf8').trim() : '';
      const name = `/proc/${pid}/comm`;
      if (pid !== '' && existsSync(name) && readFileSync(name, 'utf8') === 'dnsmasq\n')
        process.kill(Number(pid), 'SIGKILL');
    }
  }

  #prepare(configuration: string): void {
    for (const name of [...Object.keys(FOLDERS), 'drivers', 'bin']) {
      mkdirSync(join(this.#folder, name), { recursive: true, mode: 0o700 });
    }
    for (const file of this.release.drivers) symlinkSync(file, join(this.#folder, 'drivers', basename(file)));
    writeFileSync(join(this.#folder, 'libvirtd.conf'), CONFIGURATION + configuration);
    writeFileSync(join(this.folder('etc'), 'network.conf'), `firewall_backend = "${this.release.firewall}"\n`);
    writeFileSync(join(this.#folder, 'bin', 'tc'), TC, { mode: 0o755 });
  }
}
