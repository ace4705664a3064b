/**
 * A host on which something is missing that tunnels need: each start is refused in a sentence that says what, and what to do,
 * by the command and in the log. What is optional is done without.
 */
import { beforeEach, expect, it, onTestFinished } from 'vitest';
import { Lab } from '../support/lab/lab.ts';
import type { Namespace } from '../support/lab/namespace.ts';
import { Ours, sectunnelDocument } from '../support/lab/ours.ts';
import type { RunResult } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import type { Tunnel } from '../support/lab/tunnel.ts';
import { LEFT, SUITES, suiteTunnel } from './suites.ts';

const NAME = 'lacking';
const TUNNEL = suiteTunnel(NAME, SUITES[0]!);
const BOTH: Tunnel = {
  ...TUNNEL,
  left: { ...TUNNEL.left, inner: [...TUNNEL.left.inner, 'fd00:1::/64'] },
  right: { ...TUNNEL.right, inner: [...TUNNEL.right.inner, 'fd00:2::/64'] },
};
/** What no refusal has in it: a place in the sources, what nft was given, or that it is no fault of the user's. */
const RAW = /\n\s+at |internal error|\^\^|\/dev\/stdin/;

const within = (commands: string): string[] => ['unshare', '--mount', 'sh', '-c', `${commands} && exec "$@"`, 'sh'];
const NO_IPV6 = ['all', 'default'].map((which) => `net.ipv6.conf.${which}.disable_ipv6=1`);

interface Lack {
  readonly what: string;
  readonly launcher?: readonly string[];
  readonly sysctls?: readonly string[];
  readonly tunnel?: Tunnel;
  readonly says: readonly RegExp[];
}

const REFUSED: readonly Lack[] = [
  {
    what: 'CAP_NET_ADMIN',
    launcher: ['setpriv', '--bounding-set', '-net_admin', '--inh-caps', '-net_admin'],
    says: [/may not be used here/, /CAP_NET_ADMIN/, /--cap-add NET_ADMIN/],
  },
  {
    what: 'the device file',
    launcher: within('mount -t tmpfs none /dev/net'),
    says: [/device file is missing/, /mknod \/dev\/net\/tun/],
  },
  {
    what: 'the driver of the device',
    launcher: within('mount -t tmpfs -o dev none /dev/net && mknod /dev/net/tun c 10 254'),
    says: [/no TUN driver/, /modprobe tun/],
  },
  {
    what: 'IPv6, which the document has',
    sysctls: NO_IPV6,
    tunnel: BOTH,
    says: [/IPv6 is disabled/, /sysctl -w net\.ipv6\.conf\.all\.disable_ipv6=0/, /leave those ranges out/],
  },
];

const DONE_WITHOUT: readonly Lack[] = [
  {
    what: 'nft',
    launcher: within('mount --bind /dev/null $(command -v nft || echo /usr/sbin/nft)'),
    says: [],
  },
  { what: 'IPv6', sysctls: NO_IPV6, says: [] },
  {
    what: 'a /proc/sys that can be written',
    launcher: within('mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys'),
    says: [],
  },
];

describeInterop('a host without', ['namespaces', 'nftables', 'build'], () => {
  let lab: Lab;
  let host: Namespace;

  beforeEach(async () => {
    lab = new Lab();
    onTestFinished(() => lab.dispose());
    host = await lab.namespace('host');
    await host.ip([
      'link add line type veth peer name far',
      `address add ${LEFT[4].outer}/24 dev line`,
      'link set line up',
      'link set far up',
    ]);
  });

  async function started({ launcher, sysctls = [], tunnel = TUNNEL }: Lack): Promise<[RunResult, Ours]> {
    if (sysctls.length > 0) await host.exec(['sysctl', '-qw', ...sysctls]);
    const ours = await Ours.start(lab, host, launcher === undefined ? {} : { launcher });
    const secret = await ours.secret(tunnel.left.psk);
    await ours.defineDocument(NAME, sectunnelDocument(tunnel, 'left', { start: 'trap' }, secret));
    return [await ours.command(['start', NAME], { check: false }), ours];
  }

  it.each(REFUSED.map((lack) => [lack.what, lack] as const))('%s refuses the start in a sentence', async (_, lack) => {
    const [{ code, stderr }, ours] = await started(lack);
    expect(code).not.toBe(0);
    for (const words of lack.says) expect(stderr).toMatch(words);
    expect(stderr + ours.log()).not.toMatch(RAW);
    // It goes on serving.
    expect((await ours.command(['list', '--all'])).stdout).toContain(NAME);
  });

  it.each(DONE_WITHOUT.map((lack) => [lack.what, lack] as const))('%s has its tunnel', async (_, lack) => {
    const [{ code, stderr }, ours] = await started(lack);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    expect((await host.exec(['nft', 'list', 'chains'])).stdout).toMatch(/chain t[0-9a-f]+_leave/);
    expect(ours.log()).not.toMatch(RAW);
  });
});
