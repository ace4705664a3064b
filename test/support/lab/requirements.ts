/**
 * What the lab needs of the machine. A suite that cannot run names what is missing in the report and is skipped;
 * with SECTUNNEL_REQUIRE_INTEROP=1 it fails instead.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { describe, it } from 'vitest';

export type Need = 'namespaces' | 'strongswan' | 'uml' | 'tcpdump' | 'tshark' | 'nftables' | 'build';

function onPath(program: string): boolean {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return folders.some((folder) => existsSync(join(folder, program)));
}

function programs(names: readonly string[], debianPackage: string): string[] {
  const missing = names.filter((name) => !onPath(name));
  return missing.length === 0 ? [] : [`no ${missing.join(', ')} (Debian package ${debianPackage})`];
}

function namespaces(): string[] {
  if (process.platform !== 'linux') return [`network namespaces need Linux, this is ${process.platform}`];
  if (process.getuid?.() !== 0) return ['network namespaces need root'];
  const missing = [
    ...programs(['ip'], 'iproute2'),
    ...programs(['setpriv'], 'util-linux'),
    ...programs(['ping'], 'iputils-ping'),
  ];
  if (missing.length > 0) return missing;
  try {
    accessSync('/dev/net/tun', constants.R_OK | constants.W_OK);
  } catch {
    missing.push('/dev/net/tun cannot be opened');
  }
  const probe = spawnSync('unshare', ['--net', 'true']);
  if (probe.status !== 0) missing.push('network namespaces cannot be created here (CAP_SYS_ADMIN)');
  return missing;
}

const CHECKS: Readonly<Record<Need, () => string[]>> = {
  namespaces,
  strongswan: () => [
    ...programs(['charon-systemd'], 'charon-systemd'),
    ...programs(['swanctl'], 'strongswan-swanctl'),
    ...(existsSync('/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so')
      ? []
      : ['no plugin kernel-libipsec (Debian package libcharon-extra-plugins)']),
  ],
  uml: () => [
    ...programs(['linux.uml'], 'user-mode-linux'),
    ...programs(['modprobe'], 'kmod'),
    ...(process.arch === 'x64' ? [] : [`User-Mode Linux needs x86-64, this is ${process.arch}`]),
  ],
  tcpdump: () => programs(['tcpdump'], 'tcpdump'),
  tshark: () => programs(['tshark'], 'tshark'),
  nftables: () => programs(['nft'], 'nftables'),
  build: () =>
    ['daemon', 'cli']
      .filter((part) => !existsSync(new URL(`../../../dist/${part}/main.js`, import.meta.url)))
      .map((part) => `no dist/${part}/main.js (npm run build)`),
};

/** What is missing, as text; empty when everything is there. */
export function missing(needs: readonly Need[]): string[] {
  return needs.flatMap((need) => CHECKS[need]());
}

/** A `describe` that runs only where its needs are met. */
export function describeInterop(name: string, needs: readonly Need[], body: () => void): void {
  const reasons = missing(needs);
  if (reasons.length === 0) {
    describe(name, body);
    return;
  }
  const reason = reasons.join('; ');
  if (process.env.SECTUNNEL_REQUIRE_INTEROP === '1') {
    it(`${name}: can run`, () => {
      throw new Error(`SECTUNNEL_REQUIRE_INTEROP=1, but ${reason}`);
    });
  } else {
    describe.skip(`${name} (not run: ${reason})`, body);
  }
}
