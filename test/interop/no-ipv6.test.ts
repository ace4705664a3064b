/**
 * sectunnel on a kernel of its own that has no IPv6, nor nftables' family inet, nor segmentation of UDP in TUN devices: Debian's
 * User-Mode Linux without its module ipv6. Its peer is another sectunnel, in the namespace around it.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { Lab } from '../support/lab/lab.ts';
import { Ours, sectunnelDocument } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { projectRoot } from '../support/lab/root.ts';
import type { Tunnel } from '../support/lab/tunnel.ts';
import { spawnGuest } from '../support/lab/uml.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { LEFT, RIGHT, SUITES, suiteTunnel } from './suites.ts';

const NAME = 'four';
const TAP = 'utap';
const GUEST_TIME = 120_000;
const SECRET = '11111111-2222-3333-4444-5555555555a4';
const FOUR = suiteTunnel(NAME, SUITES[0]!);
const SIX: Tunnel = {
  ...FOUR,
  name: 'six',
  left: { ...FOUR.left, address: LEFT[6].outer },
  right: { ...FOUR.right, address: RIGHT[6].outer },
};

describeInterop('on a kernel without IPv6', ['namespaces', 'uml', 'build'], () => {
  /** What the commands in the guest wrote, by a word for each; and the log of its daemon. */
  let said: (step: string) => string;

  useLab(async (lab: Lab) => {
    const host = await lab.namespace('host');
    await host.ip([
      `tuntap add dev ${TAP} mode tap`,
      `address add ${RIGHT[4].outer}/24 dev ${TAP}`,
      `link set ${TAP} up`,
      `address add ${RIGHT[4].inner}/32 dev lo`,
    ]);
    const peer = await Ours.start(lab, host, { arguments: ['--workers', '0'] });
    await peer.load(FOUR, 'right', { start: 'respond' });
    const folder = join(lab.folder, 'guest');
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    said = (step) => (existsSync(join(folder, step)) ? readFileSync(join(folder, step), 'utf8') : '');
    const document = (tunnel: Tunnel, bare = false): string => {
      const xml = sectunnelDocument(tunnel, 'left', { start: 'initiate' }, SECRET);
      return bare ? xml.replace('</name>', "</name>\n  <device routes='none'/>") : xml;
    };
    writeFileSync(join(folder, 'secret.xml'), `<secret><uuid>${SECRET}</uuid></secret>`);
    writeFileSync(join(folder, 'key'), FOUR.left.psk);
    writeFileSync(join(folder, 'fenced.xml'), document(FOUR));
    writeFileSync(join(folder, 'bare.xml'), document(FOUR, true));
    writeFileSync(join(folder, 'six.xml'), document(SIX, true));
    writeFileSync(join(folder, 'init.sh'), script(folder), { mode: 0o755 });
    const guest = spawnGuest(host, folder, TAP);
    lab.log('guest: console', () => guest.output);
    lab.log('guest: daemon', () => said('log'));
    lab.defer(() => guest.stop('SIGKILL'));
    await waitFor('the guest to end', () => (said('end') !== '' || !guest.alive ? true : undefined), GUEST_TIME);
  }, GUEST_TIME + 30_000);

  it('the daemon starts, and finds nothing of a family that is not there', () => {
    expect(said('families')).toBe('no IPv6\n');
    const [start, rest] = said('log').split('sectunneld is ready');
    expect(rest).toBeDefined();
    expect(start).not.toMatch(/EAFNOSUPPORT|EOPNOTSUPP|could not be/);
  });

  it('a fence without the family inet is refused in a sentence', () => {
    expect(said('fenced')).toMatch(/^error: nftables.*family inet.*CONFIG_NF_TABLES_INET.*routes='none'/);
    expect(said('fenced')).not.toMatch(/\^\^|\/dev\/stdin/);
  });

  it('a tunnel that leaves routes and fence to its owner carries IPv4', () => {
    expect(said('bare')).toContain('created from bare.xml');
    expect(said('ping')).toContain(' 0% packet loss');
    expect(said('status')).toMatch(/io: tun (?!.*uso)/);
  });

  it('one over IPv6 is refused, saying that the kernel has none', () => {
    expect(said('six')).toMatch(/^error: .*has no IPv6/);
  });
});

/** Each step of the guest writes a file. Commands fork as little as they can. */
function script(folder: string): string {
  const command = (words: string, step: string): string =>
    `node ${projectRoot()}/dist/programs/sectunnel.js --run-dir /run/sectunnel ${words} >${folder}/${step} 2>&1`;
  return `#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:${join(process.execPath, '..')}
cd ${folder}
exec >out 2>&1
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t tmpfs tmpfs /run; mount --bind /usr/lib/uml/modules /lib/modules
modprobe tun; modprobe nf_tables
# So that IPv6 is not loaded when somebody asks for it.
umount /lib/modules
mount -t tmpfs tmpfs /dev; mkdir -p /dev/net /dev/shm
mknod /dev/net/tun c 10 200; mknod /dev/null c 1 3; mknod /dev/zero c 1 5; mknod /dev/random c 1 8; mknod /dev/urandom c 1 9
ip -batch - <<'END'
link set lo up
address add ${LEFT[4].inner}/32 dev lo
address add ${LEFT[4].outer}/24 dev vec0
link set vec0 up
END
if [ -e /proc/sys/net/ipv6 ]; then echo "IPv6" >families; else echo "no IPv6" >families; fi
node ${projectRoot()}/dist/programs/sectunneld.js --config-dir ${folder}/config --run-dir /run/sectunnel --libvirt-socket off --log-format text --workers 0 </dev/null >log 2>&1 &
daemon=$!
for turn in {1..60}; do grep -q 'is ready' log && break; sleep 0.5; done
${command('secret-define secret.xml', 'secret')}
${command(`secret-set-value ${SECRET} --plain --file key`, 'value')}
${command('create fenced.xml', 'fenced')}
${command('create six.xml', 'six')}
${command('create bare.xml', 'bare')}
ip route add ${RIGHT[4].inner}/32 dev stun-${NAME} src ${LEFT[4].inner}
ping -n -c 5 -i 0.5 -W 2 -I ${LEFT[4].inner} ${RIGHT[4].inner} >ping
${command('status', 'status')}
kill $daemon; wait $daemon
echo end >end
halt -f
`;
}
