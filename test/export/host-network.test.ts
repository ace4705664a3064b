import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { SectunnelError } from '../../src/base/error.ts';
import { run } from '../../src/cli/run.ts';
import { parseDocument } from '../../src/config/parse.ts';
import { EXPORT_FORMATS, type ExportFormat } from '../../src/export/formats.ts';
import { EXPORT_MARK, exportHostNetwork } from '../../src/export/host-network.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { address, TestDaemon, temporaryFolder, tunnelDocument } from '../support/daemon.ts';

interface Words {
  readonly name?: string;
  readonly device?: string;
  readonly ranges?: string;
}

function documentWith({ name = 'lan', device = '', ranges }: Words = {}): string {
  const xml = tunnelDocument({ name, extra: `<device name='stun0' ${device}/>` });
  return ranges === undefined ? xml : xml.replace(/<dst_range[^>]*>/, ranges);
}

function exported(
  format: ExportFormat,
  words: Words = {},
): { paths: string[]; text: string; steps: readonly string[] } {
  const { files, steps } = exportHostNetwork(parseDocument(documentWith(words)), format);
  for (const { content } of files) expect(content.startsWith(`${EXPORT_MARK}\n`) && content.endsWith('\n')).toBe(true);
  return { paths: files.map(({ path }) => path), text: files.map(({ content }) => content).join(''), steps };
}

/** A line that is no remark. */
function lines(text: string): string[] {
  return text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
}

describe('files for systemd-networkd', () => {
  it('keep networkd from a device whose routes the daemon sets', () => {
    const { paths, text, steps } = exported('networkd');
    expect(paths).toEqual([
      '/etc/systemd/network/10-sectunnel-lan.network',
      '/etc/systemd/networkd.conf.d/10-sectunnel.conf',
    ]);
    expect(lines(text)).toEqual([
      ...['[Match]', 'Name=stun0', '[Link]', 'Unmanaged=yes'],
      ...['[Network]', 'ManageForeignRoutes=no', 'ManageForeignRoutingPolicyRules=no'],
    ]);
    expect(steps).toContain('systemctl enable --now sectunnel@lan.service');
  });

  it('set the routes when the daemon does not, each once, in the table that is named', () => {
    const ranges = `<dst_range address='10.2.0.0' prefixlen='24'/><dst_range address='10.3.0.1' end='10.3.0.2'/>`;
    const { text } = exported('networkd', { device: "routes='none' table='77'", ranges });
    const destinations = lines(text).filter((line) => line.startsWith('Destination='));
    expect(destinations).toEqual(['Destination=10.2.0.0/24', 'Destination=10.3.0.1/32', 'Destination=10.3.0.2/32']);
    expect(lines(text).filter((line) => line === 'Table=77')).toHaveLength(3);
    expect(text).not.toContain('Unmanaged');
  });
});

describe('files for NetworkManager', () => {
  it('keep it from the device', () => {
    const { paths, text } = exported('networkmanager');
    expect(paths).toEqual(['/etc/NetworkManager/conf.d/10-sectunnel-lan.conf']);
    expect(lines(text)).toEqual(['[device-sectunnel-lan]', 'match-device=interface-name:=stun0', 'managed=0']);
  });

  it('are refused when it would have to set routes', () => {
    expect(() => exported('networkmanager', { device: "routes='none'" })).toThrow(
      /sets no routes.*write routes='auto'/,
    );
  });
});

describe('files for ifupdown', () => {
  it('start and stop the tunnel with its interface, and set routes that the daemon does not', () => {
    const { paths, text } = exported('ifupdown', { name: 'my.lan' });
    expect(paths).toEqual(['/etc/network/interfaces.d/sectunnel-my_lan']);
    const stanza = ['auto stun0', 'iface stun0 inet manual', '    pre-up sectunnel start my.lan'];
    expect(lines(text)).toEqual([...stanza, '    post-down sectunnel destroy my.lan']);
    const routed = lines(exported('ifupdown', { name: 'my.lan', device: "routes='none'" }).text);
    expect(routed.slice(3, -1)).toEqual(['    up ip route replace 10.2.0.0/24 dev $IFACE']);
  });
});

describe('documents that cannot be part of a host’s configuration', () => {
  it.each(EXPORT_FORMATS)('are those whose device is in another namespace (%s)', (format) => {
    const xml = documentWith({ device: "netns='blue'" });
    expect(() => exportHostNetwork(parseDocument(xml), format)).toThrow(SectunnelError);
  });

  it.each(['networkd', 'ifupdown'] as const)(
    'are those that would lead themselves into their device (%s)',
    (format) => {
      const words = { device: "routes='none'", ranges: `<dst_range address='0.0.0.0' prefixlen='0'/>` };
      expect(() => exported(format, words)).toThrow(/own packets would be routed into stun0/);
      expect(() => exported(format, { ranges: words.ranges })).not.toThrow();
    },
  );

  it('are those whose names no unit can have', () => {
    expect(() => exported('networkd', { name: 'a+b' })).toThrow(/no \+; give the tunnel another name/);
    expect(() => exported('ifupdown', { name: 'a+b' })).not.toThrow();
  });
});

describe('sectunnel export', () => {
  async function command(...words: string[]): Promise<{ code: number; out: string; err: string }> {
    const daemon = await TestDaemon.start(new MemoryNetwork().host([address('192.0.2.1')]));
    await daemon.client.call('define', { xml: documentWith() });
    let [out, err] = ['', ''];
    const code = await run(['--run-dir', daemon.runDir, 'export', ...words], {
      out: (text) => {
        out += text;
      },
      err: (text) => {
        err += text;
      },
      readStdin: async () => Buffer.of(),
      interrupted: async () => undefined,
    });
    return { code, out, err };
  }

  it('prints the files under their paths, and what is to be done then', async () => {
    const { code, out, err } = await command('lan', '--format', 'ifupdown');
    expect(code).toBe(0);
    expect(out).toMatch(/^# \/etc\/network\/interfaces\.d\/sectunnel-lan\n# Written by/);
    expect(err).toBe('next steps:\n  sectunnel autostart --disable lan\n  ifup stun0\n');
  });

  it('writes them below a folder, again too, but never over those of others', async () => {
    const folder = temporaryFolder();
    const path = join(folder, 'etc/NetworkManager/conf.d/10-sectunnel-lan.conf');
    const words = ['lan', '--format', 'networkmanager', '--output', folder];
    expect(await command(...words)).toMatchObject({ code: 0, out: `${path}\n` });
    expect(readFileSync(path, 'utf8')).toContain('managed=0');
    expect((await command(...words)).code).toBe(0);
    writeFileSync(path, 'mine');
    expect(await command(...words)).toMatchObject({
      code: 1,
      err: expect.stringContaining('was not written by sectunnel'),
    });
    expect(readFileSync(path, 'utf8')).toBe('mine');
    mkdirSync(join(folder, 'taken'));
    writeFileSync(join(folder, 'taken', 'etc'), '');
    expect(await command(...words.slice(0, 3), '--output', join(folder, 'taken'))).toMatchObject({ code: 1 });
  });

  it.each([
    [['lan'], '--format is missing'],
    [['lan', '--format', 'netplan'], 'expected: --format with one of networkd, networkmanager, ifupdown'],
  ])('refuses %j', async (words, message) => {
    expect(await command(...words)).toMatchObject({ code: 2, err: expect.stringContaining(message) });
  });
});
