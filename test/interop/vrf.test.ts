/**
 * Tunnels in VRFs, on a kernel that has them: Debian's User-Mode Linux. Two tunnels are alike in all but their routing domains: outer
 * and inner addresses, ports, identities and keys are the same. Each has a peer of its own, in a namespace of its own. That kernel has no
 * nftables for IP, so the fence is not tried here, and the routes are the test's.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { Lab } from '../support/lab/lab.ts';
import { cable } from '../support/lab/namespace.ts';
import { Ours, sectunnelDocument } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { projectRoot } from '../support/lab/root.ts';
import { spawnGuest } from '../support/lab/uml.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { LEFT, RIGHT, SUITES, suiteTunnel } from './suites.ts';

const GUEST_TIME = 100_000;
const SECRET = '11111111-2222-3333-4444-5555555555a4';
const TUNNEL = suiteTunnel('vpn', SUITES[0]!);
/** The domains of a tunnel, inside and outside, and the packets that are sent through it. */
const TUNNELS = [
  { name: 'one', inside: 'blue', outside: 'line1', pings: 3 },
  { name: 'two', inside: 'red', outside: 'line2', pings: 5 },
] as const;

describeInterop('two tunnels that are alike but for their VRFs', ['namespaces', 'uml', 'build'], () => {
  /** What the commands in the guest wrote, by a word for each; and the log of its daemon. */
  let said: (step: string) => string;
  /** Packets out of the tunnel at each peer. */
  const received = new Map<string, number>();

  useLab(async (lab: Lab) => {
    const host = await lab.namespace('host');
    const peers: Ours[] = [];
    for (const { name } of TUNNELS) {
      const far = await lab.namespace(name);
      await cable(
        { namespace: host, device: `v${name}`, addresses: [] },
        { namespace: far, device: 'eth0', addresses: [] },
      );
      await far.ip([`address add ${RIGHT[4].outer}/24 dev eth0`, `address add ${RIGHT[4].inner}/32 dev lo`]);
      await host.ip([
        `link add b${name} type bridge`,
        `tuntap add dev t${name} mode tap`,
        ...['v', 't'].flatMap((kind) => [`link set ${kind}${name} master b${name}`, `link set ${kind}${name} up`]),
        `link set b${name} up`,
      ]);
      const peer = await Ours.start(lab, far, { arguments: ['--workers', '0'] });
      await peer.load(TUNNEL, 'right', { start: 'respond' });
      peers.push(peer);
    }
    const folder = join(lab.folder, 'guest');
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    said = (step) => (existsSync(join(folder, step)) ? readFileSync(join(folder, step), 'utf8') : '');
    writeFileSync(join(folder, 'secret.xml'), `<secret><uuid>${SECRET}</uuid></secret>`);
    writeFileSync(join(folder, 'key'), TUNNEL.left.psk);
    for (const { name, inside, outside } of TUNNELS)
      writeFileSync(join(folder, `${name}.xml`), document(name, inside, outside));
    writeFileSync(join(folder, 'inside.xml'), document('inside', 'gone', 'line1'));
    writeFileSync(join(folder, 'outside.xml'), document('outside', 'blue', 'gone'));
    writeFileSync(join(folder, 'init.sh'), script(folder), { mode: 0o755 });
    const guest = spawnGuest(host, folder, ...TUNNELS.map(({ name }) => `t${name}`));
    lab.log('guest: console', () => guest.output);
    lab.log('guest: commands', () => said('out'));
    lab.log('guest: daemon', () => said('log'));
    lab.defer(() => guest.stop('SIGKILL'));
    await waitFor('the guest to end', () => (said('end') !== '' || !guest.alive ? true : undefined), GUEST_TIME);
    for (const [at, peer] of peers.entries()) {
      const { rxPackets } = await peer.namespace.counters('stun-vpn');
      received.set(TUNNELS[at]!.name, rxPackets);
    }
  }, GUEST_TIME + 30_000);

  it.each(TUNNELS)('$name carries the packets of its domain to its own peer', ({ name, pings }) => {
    expect(said(`ping-${name}`)).toContain(`${pings} received, 0% packet loss`);
    expect(received.get(name)).toBe(pings);
  });

  it.each(TUNNELS)('the device of $name is in its VRF', ({ name, inside }) => {
    expect(said(`link-${name}`)).toContain(`master ${inside} `);
  });

  it('a VRF that is not there is told, with how to make one', () => {
    for (const step of ['inside', 'outside']) {
      expect(said(step)).toMatch(/^error: .*there is no VRF gone here: ip link add gone type vrf table NUMBER/m);
    }
  });

  it('their sockets are bound to the VRFs, at the same address and port', () => {
    for (const { outside } of TUNNELS) expect(said('sockets')).toContain(`${LEFT[4].outer}%${outside}:4500`);
  });
});

function document(name: string, inside: string, outside: string): string {
  return sectunnelDocument(TUNNEL, 'left', { start: 'initiate' }, SECRET)
    .replace(/<name>.*<\/name>/, `<name>${name}</name><device name='stun-${name}' vrf='${inside}' routes='none'/>`)
    .replace('<sa>', `<sa vrf='${outside}'>`);
}

/** Each step of the guest writes a file. Commands fork as little as they can. */
function script(folder: string): string {
  const command = (words: string, step: string): string =>
    `node ${projectRoot()}/dist/programs/sectunnel.js --run-dir /run/sectunnel ${words} >${folder}/${step} 2>&1`;
  const links = TUNNELS.flatMap(({ inside, outside }, at) => [
    `link add ${outside} type vrf table ${at + 11}`,
    `link add ${inside} type vrf table ${at + 21}`,
    `link add lan${at} type dummy`,
    `link set vec${at} master ${outside}`,
    `link set lan${at} master ${inside}`,
    ...[outside, inside, `vec${at}`, `lan${at}`].map((link) => `link set ${link} up`),
    `address add ${LEFT[4].outer}/24 dev vec${at}`,
    `address add ${LEFT[4].inner}/32 dev lan${at}`,
  ]);
  const tries = TUNNELS.map(
    (
      { name, inside, pings },
      at,
    ) => `ip route add ${RIGHT[4].inner}/32 dev stun-${name} table ${at + 21} src ${LEFT[4].inner}
ip -d link show stun-${name} >link-${name}
ping -n -c ${pings} -i 0.2 -W 2 -I ${inside} ${RIGHT[4].inner} >ping-${name}`,
  );
  return `#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:${join(process.execPath, '..')}
cd ${folder}
exec >out 2>&1
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t tmpfs tmpfs /run; mount --bind /usr/lib/uml/modules /lib/modules
modprobe -a tun vrf dummy
mount -t tmpfs tmpfs /dev; mkdir -p /dev/net /dev/shm
mknod /dev/net/tun c 10 200; mknod /dev/null c 1 3; mknod /dev/zero c 1 5; mknod /dev/random c 1 8; mknod /dev/urandom c 1 9
ip -batch - <<'END'
link set lo up
${links.join('\n')}
END
node ${projectRoot()}/dist/programs/sectunneld.js --config-dir ${folder}/config --run-dir /run/sectunnel --libvirt-socket off --log-format text --workers 0 </dev/null >log 2>&1 &
daemon=$!
for turn in {1..60}; do grep -q 'is ready' log && break; sleep 0.5; done
${command('secret-define secret.xml', 'secret')}
${command(`secret-set-value ${SECRET} --plain --file key`, 'value')}
${TUNNELS.map(({ name }) => command(`create ${name}.xml`, `create-${name}`)).join('\n')}
${command('create inside.xml', 'inside')}
${command('create outside.xml', 'outside')}
for turn in {1..40}; do [ "$(grep -c 'CHILD SA.* established' log)" -ge 2 ] && break; sleep 0.2; done
${tries.join('\n')}
ss -uanp >sockets
kill $daemon; wait $daemon
echo end >end
halt -f
`;
}
