/** ESP straight over IP, and transport mode, between two of ours: what is led into it, and what never leaks. */
import { expect, it } from 'vitest';
import { Capture } from '../support/lab/capture.ts';
import type { Lab } from '../support/lab/lab.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { burst, ping, startEcho } from '../support/lab/traffic.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { CLEAR, hostTunnel, NAME, onlyRaw, rawTunnel, reversePathFilter, talk, whole } from './direct.ts';
import { addInner, ECHO_PORT, figures, LINE, mirrored } from './rig.ts';
import { LEFT, RIGHT } from './suites.ts';

describeInterop('what needs no UDP, between two of ours', ['namespaces', 'tcpdump', 'build'], () => {
  let lab: Lab;
  let left: Namespace;
  let right: Namespace;
  let ours: Ours;
  let theirs: Ours;

  useLab(async (made) => {
    lab = made;
    left = await lab.namespace('left');
    right = await lab.namespace('right');
    const addresses = (side: typeof LEFT): string[] => [`${side[4].outer}/24`, `${side[6].outer}/64`];
    await cable(
      { namespace: left, device: LINE, addresses: addresses(LEFT) },
      { namespace: right, device: LINE, addresses: addresses(RIGHT) },
    );
    await addInner(left, LEFT);
    await addInner(right, RIGHT);
    for (const namespace of [left, right]) await startEcho(lab, namespace, '::', ECHO_PORT);
    [ours, theirs] = [await Ours.start(lab, left), await Ours.start(lab, right)];
  });

  const rules = async (family: 4 | 6): Promise<string> => (await left.exec(['ip', `-${family}`, 'rule'])).stdout;

  it('ESP straight over IP carries everything, also what needs fragments, and counts the same', async () => {
    const line = await Capture.start(lab, left, LINE);
    await theirs.load(rawTunnel(4, 4, 'needed'), 'right', { start: 'respond' });
    await ours.load(rawTunnel(4, 4, 'never'), 'left', { start: 'initiate' });
    await ours.up(NAME);
    const inner = { source: LEFT[4].inner, destination: RIGHT[4].inner };
    expect(await ping(left, { ...inner, count: 3, size: 4000 })).toBe(3);
    expect(await burst(left, { ...inner, port: ECHO_PORT, count: 50, pause: 0 })).toMatchObject({ received: 50 });
    const [mine, its] = [await ours.single(NAME), await theirs.single(NAME)];
    expect(figures(its.child)).toEqual(mirrored(mine.child));
    // Eight bytes more than where ESP might go in UDP.
    expect((await ours.tunnel(NAME)).device?.mtu).toBe(1444);
    expect((await theirs.tunnel(NAME)).device?.mtu).toBe(1436);
    expect((await ours.status()).io.udp).toContain('esp');
    await onlyRaw(line, 4, 100);
    for (const end of [ours, theirs]) await end.destroy(NAME);
  });

  it.each([
    [4, 'raw'],
    [6, 'udp'],
  ] as const)(
    'transport mode protects all that hosts send each other over IPv%d, ESP in %s, and leaves nothing behind',
    async (outer, how) => {
      const line = await Capture.start(lab, left, LINE);
      const before = await rules(outer);
      const tunnel = hostTunnel(outer, 'any', how);
      await theirs.load(tunnel, 'right', { start: 'respond' });
      await ours.load(tunnel, 'left', { start: 'trap' });
      const ends = { source: LEFT[outer].outer, destination: RIGHT[outer].outer };
      expect(await ping(left, { ...ends, size: 3000 })).toBe(3);
      expect(await ping(right, { source: ends.destination, destination: ends.source })).toBe(3);
      expect(await talk(left, outer, 50, { pause: 0 })).toEqual(whole(50));
      const [mine, its] = [await ours.single(NAME), await theirs.single(NAME)];
      expect(mine.child).toMatchObject({ mode: 'transport', encapsulated: how === 'udp', packetsOut: 56 });
      expect(figures(its.child)).toEqual(mirrored(mine.child));
      await line.stop();
      expect(await line.packets(`${CLEAR} or icmp or icmp6[0] == 128`)).toEqual([]);

      for (const end of [ours, theirs]) await end.destroy(NAME);
      expect(await rules(outer)).toBe(before);
      // In the clear again, as nothing is wanted otherwise.
      expect(await talk(left, outer, 5)).toEqual(whole(5));
    },
  );

  it('transport mode lets nothing out in the clear: not before there is an SA, nor when the daemon has died', async () => {
    const knock = ['bash', '-c', `echo hello >/dev/udp/${RIGHT[4].outer}/${ECHO_PORT}`];
    const tunnel = hostTunnel(4, 'any', 'raw');
    await theirs.load(tunnel, 'right', { start: 'respond' });
    await ours.load(tunnel, 'left', { start: 'respond' });
    const line = await Capture.start(lab, left, LINE);
    await left.exec(knock);
    await waitFor('the device to get the packet', async () => {
      return (await ours.tunnel(NAME)).drops['no-sa'] === 1 || undefined;
    });
    await ours.stop('SIGKILL');
    expect((await left.exec(knock, { check: false })).stderr).toContain('No route to host');
    await line.stop();
    expect(await line.packets(CLEAR)).toEqual([]);
    // The next daemon takes up the tunnel, with the rules that the former left.
    await ours.startDaemon();
    await ours.destroy(NAME);
    expect(await rules(4)).not.toContain(RIGHT[4].outer);
    await ours.load(tunnel, 'left', { start: 'trap' });
    expect(await talk(left, 4, 5)).toEqual(whole(5));
    for (const end of [ours, theirs]) await end.destroy(NAME);
    expect(await rules(4)).not.toContain(RIGHT[4].outer);

    await left.exec(reversePathFilter(1));
    const strict = await ours.command(['start', NAME], { check: false });
    expect(strict.stderr).toContain(`set net.ipv4.conf.${LINE}.rp_filter (and net.ipv4.conf.all.rp_filter) to 2 or 0`);
    expect(await rules(4)).not.toContain(RIGHT[4].outer);
  });
});
