/**
 * Releases of libvirt that tests run with: the one that is installed, and a newer one whose files stand in a folder of their
 * own (`scripts/newer-libvirt.sh`). Of that one libvirt's own programs run there, by the folder's own linker and libraries;
 * what they start (dnsmasq, nft, hooks) is the machine's.
 */
import { existsSync, readdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

export interface LibvirtRelease {
  readonly name: 'installed' | 'newer';
  /** The words that start `libvirtd` or `virsh`. */
  program(name: 'libvirtd' | 'virsh'): readonly string[];
  /** Files of the drivers. */
  readonly drivers: readonly string[];
  /** Folders that libvirtd is to see in the place of the machine's. */
  readonly binds: readonly (readonly [from: string, to: string])[];
  /** Of `network.conf`. */
  readonly firewall: 'iptables' | 'nftables';
  /** Whether virsh has `net-metadata`. */
  readonly metadata: boolean;
}

/** Other drivers want users and programs that only hypervisors need. */
const DRIVERS = ['network', 'secret', 'interface', 'nwfilter'] as const;

export const INSTALLED_LIBVIRT: LibvirtRelease = {
  name: 'installed',
  program: (name) => [name],
  get drivers() {
    return driversBelow('/usr/lib');
  },
  binds: [],
  firewall: 'iptables',
  metadata: false,
};

/** Made by `scripts/newer-libvirt.sh`. */
export const NEWER_LIBVIRT_FOLDER: string =
  process.env.SECTUNNEL_NEWER_LIBVIRT ?? join(homedir(), '.cache/sectunnel/newer-libvirt');

export function hasNewerLibvirt(): boolean {
  return existsSync(join(NEWER_LIBVIRT_FOLDER, 'usr/sbin/libvirtd'));
}

export const NEWER_LIBVIRT: LibvirtRelease = {
  name: 'newer',
  program: (name) => {
    const libraries = libraryFolders(join(NEWER_LIBVIRT_FOLDER, 'usr/lib')).join(':');
    const path = join(NEWER_LIBVIRT_FOLDER, 'usr', name === 'virsh' ? 'bin' : 'sbin', name);
    return [linker(), '--library-path', libraries, path];
  },
  get drivers() {
    return driversBelow(join(NEWER_LIBVIRT_FOLDER, 'usr/lib'));
  },
  binds: [[join(NEWER_LIBVIRT_FOLDER, 'usr/share/libvirt'), '/usr/share/libvirt']],
  firewall: 'nftables',
  metadata: true,
};

/** Below the folder of the machine's architecture. */
function driversBelow(lib: string): string[] {
  const [folder] = libraryFolders(lib)
    .map((each) => join(each, 'libvirt/connection-driver'))
    .filter(existsSync);
  if (folder === undefined) throw new Error(`no folder of libvirt drivers below ${lib}`);
  return DRIVERS.map((name) => join(folder, `libvirt_driver_${name}.so`)).filter(existsSync);
}

function libraryFolders(lib: string): string[] {
  return readdirSync(lib)
    .filter((name) => name.endsWith('-linux-gnu'))
    .map((name) => join(lib, name));
}

function linker(): string {
  for (const lib of ['usr/lib64', 'usr/lib'].map((each) => join(NEWER_LIBVIRT_FOLDER, each))) {
    const found = existsSync(lib) ? readdirSync(lib).find((name) => /^ld-linux.*\.so/.test(name)) : undefined;
    if (found !== undefined) return join(lib, found);
  }
  throw new Error(`no dynamic linker below ${NEWER_LIBVIRT_FOLDER}`);
}
