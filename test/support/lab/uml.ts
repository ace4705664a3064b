/**
 * A Linux kernel of its own, for peers that need that kernel's ESP: Debian's User-Mode Linux as a process in a namespace,
 * on a tap device there. The guest sees the host's files (hostfs); a loop in its init runs what is dropped into a shared
 * folder. One guest serves a whole test file: booting takes seconds.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Lab } from './lab.ts';
import { addressCommand, type Host, type Namespace } from './namespace.ts';
import { type Background, type RunOptions, type RunResult, waitFor } from './process.ts';

export const BOOT_TIMEOUT = 60_000;
/** Loaded before a daemon starts: the kernel's own autoload would delay the first SA by seconds. */
const MODULES =
  'esp4 esp6 xfrm_user xfrm_algo authenc authencesn gcm ghash-generic ccm ctr cbc ecb crypto_null seqiv echainiv ' +
  'hmac xcbc cmac sha512_generic chacha20poly1305 chacha_generic poly1305_generic';

/** Put together and self-tested once before a daemon starts, for the same reason. */
const TRANSFORMS: readonly string[] = [
  ...['gcm', 'ccm'].map(
    (mode) => `aead rfc${mode === 'gcm' ? 4106 : 4309}(${mode}(aes)) 0x${'11'.repeat(mode === 'gcm' ? 20 : 19)} 128`,
  ),
  `aead rfc7539esp(chacha20,poly1305) 0x${'11'.repeat(36)} 128`,
  ...[
    ['hmac(sha256)', 128, 32],
    ['hmac(sha384)', 192, 48],
    ['hmac(sha512)', 256, 64],
    ['hmac(sha1)', 96, 20],
    ['xcbc(aes)', 96, 16],
    ['cmac(aes)', 96, 16],
  ].map(
    ([name, bits, length]) =>
      `enc cbc(aes) 0x${'11'.repeat(16)} auth-trunc ${name} 0x${'11'.repeat(Number(length))} ${bits}`,
  ),
  `enc rfc3686(ctr(aes)) 0x${'11'.repeat(20)} auth-trunc hmac(sha256) 0x${'11'.repeat(32)} 128`,
  `enc ecb(cipher_null) "" auth-trunc hmac(sha256) 0x${'11'.repeat(32)} 128`,
  // ESN has an authenticator of its own (authencesn).
  `enc cbc(aes) 0x${'11'.repeat(16)} auth-trunc hmac(sha256) 0x${'11'.repeat(32)} 128 replay-window 64 flag esn`,
];

/** What tells where a packet went. Counters that are 0 say nothing. */
const INSPECTION =
  'ip -s link; ip neigh; ip -6 neigh; ip -s xfrm state | grep -v -e auth -e enc -e aead; ' +
  'for file in xfrm_stat snmp6 netstat; do grep -v "[[:space:]]0$" /proc/net/$file; done';

export interface GuestOptions {
  /** The device that appears in the namespace, with the namespace's own addresses. */
  readonly device: string;
  readonly hostAddresses: readonly string[];
  /** The guest's outer addresses on that line, with prefix length. */
  readonly guestAddresses: readonly string[];
  /** The guest's inner addresses. */
  readonly innerAddresses: readonly string[];
  /** Servers in the guest, which counts as ready when each has printed `ready`. */
  readonly services?: readonly (readonly string[])[];
}

/** What the guest is booted for. */
export interface GuestDaemon {
  readonly name: string;
  readonly argv: readonly string[];
  /** Of everything that runs in the guest. */
  readonly env: Readonly<Record<string, string>>;
}

/**
 * What makes UML run on processors whose register state it does not know the size of: `uml-xstate.c` says why. Nothing for
 * others.
 */
function xstatePreload(folder: string): Record<string, string> {
  if (!/^flags\s*:.*\bamx_tile\b/m.test(readFileSync('/proc/cpuinfo', 'latin1'))) return {};
  const source = fileURLToPath(new URL('uml-xstate.c', import.meta.url));
  const library = join(folder, 'uml-xstate.so');
  execFileSync('cc', ['-shared', '-fPIC', '-O1', '-o', library, source, '-ldl']);
  return { LD_PRELOAD: library };
}

/** A guest whose first process is `init.sh` of the folder, with the other ends of tap devices of the namespace as `vec0`, `vec1` … */
export function spawnGuest(namespace: Namespace, folder: string, ...devices: readonly string[]): Background {
  mkdirSync('/lib/modules', { recursive: true });
  const words = [
    ...['linux.uml', 'root=/dev/root', 'rootfstype=hostfs', 'rootflags=/', 'rw', 'mem=512M', 'quiet'],
    `init=${join(folder, 'init.sh')}`,
    ...devices.map((device, at) => `vec${at}:transport=tap,ifname=${device}`),
    ...['con=null', 'con0=null,fd:1'],
  ];
  return namespace.spawn('linux.uml', words, xstatePreload(folder));
}

function quote(argv: readonly string[]): string {
  return argv.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
}

/** The guest's first process. It forks as little as it can: a fork takes some 50 ms there. */
function initScript(folder: string, daemon: GuestDaemon, options: GuestOptions): string {
  const addresses = [
    'link set lo up',
    'link set vec0 up',
    ...options.guestAddresses.map((address) => addressCommand(address, 'vec0')),
    ...options.innerAddresses.map((address) => addressCommand(address, 'lo')),
    ...options.hostAddresses.map((address) => {
      const gateway = bare(address);
      return `${gateway.includes(':') ? '-6 ' : ''}route add default via ${gateway}`;
    }),
  ];
  const environment = Object.entries(daemon.env).map(([name, value]) => `export ${quote([`${name}=${value}`])}`);
  return `#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
${environment.join('\n')}
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mount --bind /usr/lib/uml/modules /lib/modules
for module in ${MODULES}; do modprobe $module || echo "no module $module"; done
ip -batch - <<'END'
${addresses.join('\n')}
END
ip -batch - <<'END'
${TRANSFORMS.map((transform, index) => `xfrm state add src 10.0.0.1 dst 10.0.0.2 proto esp spi ${index + 256} mode tunnel ${transform}`).join('\n')}
xfrm state flush
END
${quote(daemon.argv)} >${folder}/daemon.out 2>&1 &
${(options.services ?? []).map((argv, index) => `${quote(argv)} >${folder}/service-${index}.out 2>&1 &`).join('\n')}
echo "guest ready"
while [ ! -e ${folder}/halt ]; do
  for job in ${folder}/jobs/*.sh; do
    [ -e "$job" ] || continue
    . "$job" >"\${job%.sh}.out" 2>&1
    echo $? >"\${job%.sh}.rc"
    mv "$job" "\${job%.sh}.done"
  done
  read -r -t 0.05 <>${folder}/pause
done
halt -f
`;
}

/** The folder that a guest on a namespace's line shares with the host; its daemon's files go there before it is booted. */
export function guestFolder(lab: Lab, namespace: Namespace): string {
  const folder = join(lab.folder, `uml-${namespace.name}`);
  mkdirSync(join(folder, 'jobs'), { recursive: true });
  return folder;
}

/** A host's address without its prefix length. */
export function bare(address: string): string {
  return address.slice(0, address.indexOf('/'));
}

export class Guest implements Host {
  readonly folder: string;
  readonly #kernel: Background;
  #jobs = 0;

  private constructor(folder: string, kernel: Background) {
    this.folder = folder;
    this.#kernel = kernel;
  }

  static async boot(lab: Lab, namespace: Namespace, daemon: GuestDaemon, options: GuestOptions): Promise<Guest> {
    const folder = guestFolder(lab, namespace);
    writeFileSync(join(folder, 'init.sh'), initScript(folder, daemon, options), { mode: 0o755 });
    await namespace.exec(['mkfifo', join(folder, 'pause')]);
    await namespace.ip([
      `tuntap add dev ${options.device} mode tap`,
      ...options.hostAddresses.map((address) => addressCommand(address, options.device)),
      `link set ${options.device} up`,
    ]);
    const kernel = spawnGuest(namespace, folder, options.device);
    const guest = new Guest(folder, kernel);
    lab.log(`guest of ${namespace.name}: console`, () => kernel.output);
    lab.log(`guest of ${namespace.name}: ${daemon.name}, output`, () => guest.output());
    lab.inspect(`guest of ${namespace.name}: network`, async () => (await guest.exec(['sh', '-c', INSPECTION])).stdout);
    lab.defer(() => guest.halt());
    await waitFor(
      'the guest to boot',
      () => {
        if (!kernel.alive) throw new Error(`the guest died:\n${kernel.output}`);
        return kernel.output.includes('guest ready') ? true : undefined;
      },
      BOOT_TIMEOUT,
    );
    for (const index of (options.services ?? []).keys()) {
      const ready = (): true | undefined => guest.#read(`service-${index}.out`).includes('ready') || undefined;
      await waitFor(`service ${index} of the guest`, ready, BOOT_TIMEOUT);
    }
    return guest;
  }

  /** What the daemon that it was booted for has written. */
  output(): string {
    return this.#read('daemon.out');
  }

  #read(name: string): string {
    const file = join(this.folder, name);
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  }

  /** Runs a command in the guest. Each takes some tenths of a second. */
  async exec(argv: readonly string[], { timeout = 20_000 }: RunOptions = {}): Promise<RunResult> {
    const job = join(this.folder, 'jobs', `${this.#jobs++}`);
    writeFileSync(`${job}.new`, `${quote(argv)}\n`);
    renameSync(`${job}.new`, `${job}.sh`);
    await waitFor(`the guest to run ${argv.join(' ')}`, () => existsSync(`${job}.done`) || undefined, timeout);
    return { code: Number(readFileSync(`${job}.rc`, 'utf8')), stdout: readFileSync(`${job}.out`, 'utf8'), stderr: '' };
  }

  /** Ends the guest in good order, and its process if it does not. */
  async halt(): Promise<void> {
    writeFileSync(join(this.folder, 'halt'), '');
    await waitFor('the guest to halt', () => !this.#kernel.alive || undefined, 5_000).catch(() => undefined);
    await this.#kernel.stop('SIGKILL');
  }
}
