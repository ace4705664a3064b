/**
 * What `sectunnel export` writes, in the hands of those it is written for: Debian's ifupdown and systemd-networkd, each
 * in a namespace with files of its own.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { showLogsOnFailure } from '../support/lab/failure.ts';
import { Lab } from '../support/lab/lab.ts';
import type { Namespace } from '../support/lab/namespace.ts';
import { Ours, sectunnelDocument } from '../support/lab/ours.ts';
import { type Background, waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { builtProgram } from '../support/lab/root.ts';
import type { Tunnel } from '../support/lab/tunnel.ts';

const NAME = 'lan';
const DEVICE = 'stun0';
const UUID = '11111111-2222-3333-4444-555555555501';

const TUNNEL: Tunnel = {
  name: NAME,
  left: { address: '192.0.2.1', id: { type: 'fqdn', value: 'l.example' }, inner: ['10.1.0.0/24'], psk: 'a key' },
  right: { address: '192.0.2.2', id: { type: 'fqdn', value: 'r.example' }, inner: ['10.2.0.0/24'], psk: 'a key' },
  ike: { encryption: 'aes128gcm16', prf: 'sha256', dh: 'x25519' },
  esp: { encryption: 'aes128gcm16', esn: 'no' },
};

function documentWith(routes: 'auto' | 'none'): string {
  const device = `<device name='${DEVICE}' routes='${routes}'/>`;
  return sectunnelDocument(TUNNEL, 'left', { start: 'respond' }, UUID).replace('</name>', `</name>${device}`);
}

describeInterop('a tunnel in the configuration of its host', ['namespaces', 'systemd', 'ifupdown', 'build'], () => {
  const lab = new Lab();
  let host: Namespace;
  let ours: Ours;

  beforeAll(async () => {
    host = await lab.namespace('host');
    await host.ip(['addr add 192.0.2.1/24 dev lo', 'addr add 10.1.0.1/24 dev lo']);
    ours = await Ours.start(lab, host);
    await ours.secret('a key', UUID);
  }, 120_000);

  afterAll(() => lab.dispose(), 60_000);

  beforeEach(async () => {
    showLogsOnFailure(lab);
    await ours.reset();
  });

  async function exported(format: string): Promise<string> {
    const folder = join(lab.folder, format);
    await ours.command(['export', NAME, '--format', format, '--output', folder]);
    return folder;
  }

  const routes = async (): Promise<string> => (await host.exec(['ip', 'route', 'show', 'dev', DEVICE])).stdout.trim();

  it.each(['auto', 'none'] as const)('comes and goes with ifup and ifdown (routes: %s)', async (kind) => {
    await ours.defineDocument(NAME, documentWith(kind));
    const folder = await exported('ifupdown');
    // ifup looks for programs in a path of its own: there the command stands in a folder that is over another one.
    const bin = join(folder, 'bin');
    const state = join(folder, kind);
    for (const made of [bin, state]) mkdirSync(made, { recursive: true });
    const command = `#!/bin/sh\nexec '${process.execPath}' '${builtProgram('cli')}' --run-dir '${join(ours.folder, 'run')}' "$@"\n`;
    writeFileSync(join(bin, 'sectunnel'), command, { mode: 0o755 });
    const options = `--no-scripts --state-dir='${state}' --interfaces='${folder}/etc/network/interfaces.d/sectunnel-${NAME}'`;
    const run = (program: 'ifup' | 'ifdown'): Promise<unknown> =>
      host.exec([
        'unshare',
        '--mount',
        'sh',
        '-ec',
        `mount --bind '${bin}' /usr/local/sbin; ${program} ${options} ${DEVICE}`,
      ]);

    await run('ifup');
    expect(await ours.tunnel(NAME)).toMatchObject({ active: true, device: { name: DEVICE } });
    if (kind === 'none') expect(await routes()).toBe('10.2.0.0/24 scope link');
    await run('ifdown');
    expect(await ours.tunnel(NAME)).toMatchObject({ active: false });
    expect(await host.interfaces()).toEqual(['lo']);
    await run('ifup');
    expect((await ours.tunnel(NAME)).active).toBe(true);
  });

  /** systemd-networkd with files of its own, and without udev, which it does not wait for where /sys is read-only. */
  function networkd(folder: string): Background {
    const script = `
      mount --make-rprivate /
      mount -o remount,ro /sys
      mount -t tmpfs tmpfs /run
      mkdir -p /run/systemd/netif/links /run/systemd/netif/leases
      chown -R systemd-network:systemd-network /run/systemd/netif
      mount --bind '${folder}/etc/systemd' /etc/systemd
      exec /lib/systemd/systemd-networkd`;
    return host.spawn('systemd-networkd', ['unshare', '--mount', 'sh', '-ec', script], { SYSTEMD_LOG_LEVEL: 'debug' });
  }

  it.each(['auto', 'none'] as const)('is understood by systemd-networkd (routes: %s)', async (kind) => {
    await ours.defineDocument(NAME, documentWith(kind));
    const folder = await exported('networkd');
    const catchAll = '[Match]\nName=stun*\n[Network]\nAddress=198.51.100.1/24\n';
    writeFileSync(join(folder, 'etc/systemd/network/80-all.network'), catchAll);
    await ours.command(['start', NAME]);
    const before = await routes();
    const daemon = networkd(folder);
    lab.log(`systemd-networkd (${kind})`, () => daemon.output);
    lab.defer(() => daemon.stop());
    if (kind === 'none') {
      expect(before).toBe('');
      await waitFor('the route', async () => ((await routes()) === '' ? undefined : true));
      expect(await routes()).toMatch(/^10\.2\.0\.0\/24 proto static scope link/);
    } else {
      await waitFor('its decision', () => (/stun0: .*unmanaged/.test(daemon.output) ? true : undefined));
      expect(await routes()).toBe(before);
    }
    expect(daemon.output).not.toMatch(/Unknown (key|section)|Failed to parse|198\.51\.100\.1/);
    expect(readFileSync(join(folder, 'etc/systemd/network', `10-sectunnel-${NAME}.network`), 'utf8')).toContain(DEVICE);
    await daemon.stop();
  });
});
