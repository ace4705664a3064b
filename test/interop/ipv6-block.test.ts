/** `<device ipv6='block'/>`: a tunnel for all IPv4, over IPv6, on a host that has IPv6 too. */
import { expect, it } from 'vitest';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours, sectunnelDocument } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { ping } from '../support/lab/traffic.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { addInner, LINE } from './rig.ts';
import { LEFT, RIGHT, SUITES, suiteTunnel } from './suites.ts';

const NAME = 'block6';
const [MORE_LEFT, MORE_RIGHT] = ['2001:db8:6::1', '2001:db8:6::2'] as const;
const BASE = suiteTunnel(NAME, { ...SUITES[0]!, outer: 6 });
const TUNNEL = { ...BASE, right: { ...BASE.right, inner: ['0.0.0.0/0'] } };

describeInterop('a tunnel for all IPv4 that blocks IPv6', ['namespaces', 'build'], () => {
  let left: Namespace;
  let right: Namespace;
  let ours: Ours;

  useLab(async (lab) => {
    [left, right] = [await lab.namespace('left'), await lab.namespace('right')];
    await cable(
      { namespace: left, device: LINE, addresses: [`${LEFT[6].outer}/64`, `${MORE_LEFT}/64`] },
      { namespace: right, device: LINE, addresses: [`${RIGHT[6].outer}/64`, `${MORE_RIGHT}/64`] },
    );
    await addInner(left, LEFT);
    await addInner(right, RIGHT);
    ours = await Ours.start(lab, left);
    const other = await Ours.start(lab, right);
    await other.load(TUNNEL, 'right', { start: 'respond' });
    const xml = sectunnelDocument(TUNNEL, 'left', { start: 'initiate' }, await ours.secret(TUNNEL.left.psk));
    expect(await ours.defineDocument(NAME, xml)).toContain("write <device ipv6='block'/>");
    const blocking = xml.replace('<sa>', "<device ipv6='block'/><sa>");
    expect(await ours.defineDocument(NAME, blocking)).not.toContain('IPv6');
  });

  const answered = (from: Namespace, source: string, destination: string): Promise<boolean> =>
    from
      .exec(['ping', '-n', '-c', '1', '-W', '1', '-I', source, destination], { check: false, timeout: 8_000 })
      .then(({ code }) => code === 0);

  /** Out and in of what is no tunnel's; and a link-local address, which never leaves the link. */
  async function passes(): Promise<{ out: boolean; in: boolean; link: boolean }> {
    const { stdout } = await right.exec(['ip', '-6', '-o', 'addr', 'show', 'dev', LINE, 'scope', 'link']);
    const [, address] = /inet6 (fe80:[^/]+)/.exec(stdout)!;
    return {
      out: await answered(left, MORE_LEFT, MORE_RIGHT),
      in: await answered(right, MORE_RIGHT, MORE_LEFT),
      link: await answered(left, LINE, `${address}%${LINE}`),
    };
  }

  it('carries IPv4 over IPv6, and nothing else of IPv6 leaves or comes in', async () => {
    expect(await passes()).toEqual({ out: true, in: true, link: true });
    await ours.command(['start', NAME]);
    await ours.up(NAME);
    expect(await ping(left, { source: LEFT[4].inner, destination: RIGHT[4].inner })).toBe(3);
    expect(await passes()).toEqual({ out: false, in: false, link: true });
    await waitFor(
      'the fence to be asked',
      async () => {
        const { drops } = await ours.tunnel(NAME);
        return (drops['fence-discarded'] ?? 0) > 0 ? true : undefined;
      },
      40_000,
    );
    const packet = ['--src', MORE_LEFT, '--dst', `[${MORE_RIGHT}]:443`, '--proto', 'tcp'];
    const { code, stdout, stderr } = await ours.command(['explain', NAME, ...packet], { check: false });
    expect(code, stdout + stderr).toBe(4);
    expect(stdout).toContain("device ipv6='block'");
  });

  it('blocks on when the daemon is killed, and no longer when the tunnel is stopped', async () => {
    await ours.stop('SIGKILL');
    expect(await passes()).toEqual({ out: false, in: false, link: true });
    await ours.startDaemon();
    await ours.up(NAME);
    expect(await passes()).toEqual({ out: false, in: false, link: true });
    await ours.destroy(NAME);
    expect(await passes()).toEqual({ out: true, in: true, link: true });
  });
});
