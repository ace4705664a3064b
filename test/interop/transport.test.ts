/** Transport mode with strongSwan and its kernel's ESP, and between two of ours: what is led into it, and what never leaks. */
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { Capture } from '../support/lab/capture.ts';
import { showLogsOnFailure } from '../support/lab/failure.ts';
import { Lab } from '../support/lab/lab.ts';
import { cable, type Host, type Namespace } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { type Burst, burst, ping, startEcho } from '../support/lab/traffic.ts';
import type { Tunnel } from '../support/lab/tunnel.ts';
import { agreed, buildRig, ECHO_PORT, figures, LINE, mirrored, RIG_NEEDS, RIG_TIMEOUT, type Rig } from './rig.ts';
import { LEFT, PSK, RIGHT } from './suites.ts';

const NAME = 'hosts';

function hostTunnel(outer: 4 | 6, transport: string, how: 'udp' | 'raw'): Tunnel {
  const bits = outer === 4 ? 32 : 128;
  const [left, right] = [LEFT[outer].outer, RIGHT[outer].outer];
  return {
    name: NAME,
    left: { address: left, id: { type: 'fqdn', value: 'left.example' }, inner: [`${left}/${bits}`], psk: PSK },
    right: { address: right, id: { type: 'fqdn', value: 'right.example' }, inner: [`${right}/${bits}`], psk: PSK },
    ike: { encryption: 'aes128gcm16', prf: 'sha256', dh: 'x25519' },
    esp: { encryption: 'aes256gcm16', esn: 'no' },
    transport,
    ...(how === 'raw' ? { encapsulation: 'needed' } : {}),
  };
}

/** UDP to the other end's own address, and back. */
function talk(
  from: Host,
  outer: 4 | 6,
  count: number,
  options: { size?: number; pause?: number } = {},
): Promise<Burst> {
  return burst(from, {
    source: LEFT[outer].outer,
    destination: RIGHT[outer].outer,
    port: ECHO_PORT,
    count,
    ...options,
  });
}

const whole = (count: number): Burst => ({ sent: count, received: count, damaged: 0 });

/** What must never be seen on the line: our echoes in the clear. In fragments there are no ports. */
const CLEAR = `port ${ECHO_PORT}`;

function reversePathFilter(value: 0 | 1): string[] {
  return ['sh', '-c', `echo ${value} >/proc/sys/net/ipv4/conf/all/rp_filter`];
}

describeInterop('transport mode with strongSwan', [...RIG_NEEDS.kernel, 'tcpdump', 'build'], () => {
  let lab: Lab;
  let rig: Rig;
  let ours: Ours;

  beforeAll(async () => {
    lab = new Lab();
    rig = await buildRig(lab, 'kernel');
    ours = await Ours.start(lab, rig.left);
  }, RIG_TIMEOUT);
  afterAll(() => lab.dispose(), 30_000);
  beforeEach(() => showLogsOnFailure(lab));

  it.each([
    ['initiator', 4, 'raw'],
    ['responder', 6, 'raw'],
    ['responder', 4, 'udp'],
  ] as const)(
    'as %s over IPv%d, ESP in %s, for UDP alone: rekeyed without loss, the same count on both ends',
    async (role, outer, how) => {
      await ours.reset();
      await rig.peer.reset();
      // Strict: what comes in must come from where its answers would go. Fragments of UDP have no ports to tell that by.
      await rig.left.exec(reversePathFilter(how === 'raw' ? 1 : 0));
      const line = await Capture.start(lab, rig.left, LINE);
      const tunnel = hostTunnel(outer, 'udp', how);
      await rig.peer.load(tunnel, 'right');
      await ours.load(tunnel, 'left', { start: role === 'initiator' ? 'trap' : 'respond' });
      if (role === 'responder') await rig.peer.initiate(NAME);
      // The first waits for its SA.
      expect(await talk(rig.left, outer, 20)).toEqual(whole(20));

      const [mine, its] = [await ours.single(NAME), await rig.peer.single()];
      expect(mine.child).toMatchObject({
        mode: 'transport',
        encapsulated: how === 'udp',
        packetsOut: 20,
        packetsIn: 20,
      });
      expect(figures(its.child)).toEqual(mirrored(mine.child));
      // What is not to be protected goes its normal way: ICMP, and TCP, by which the peer is driven.
      expect(await ping(rig.left, { source: LEFT[outer].outer, destination: RIGHT[outer].outer })).toBe(3);

      const rekeyed = async (): Promise<void> => {
        await rig.peer.rekeyChild(NAME);
        await agreed(ours, rig.peer, NAME, { child: mine.child.spiIn });
      };
      const [during] = await Promise.all([talk(rig.left, outer, 60, { pause: 8 }), rekeyed()]);
      expect(during).toEqual(whole(60));
      // Fragments outside: what is inside is whole.
      expect(await talk(rig.left, outer, 3, { size: 5000 })).toEqual(whole(3));
      await line.stop();
      expect(await line.packets(CLEAR)).toEqual([]);
      expect((await line.packets(outer === 4 ? 'icmp' : 'icmp6[0] == 128')).length).toBeGreaterThan(0);
    },
  );
});

describeInterop('transport mode between two of ours', ['namespaces', 'tcpdump', 'build'], () => {
  let lab: Lab;
  let left: Namespace;
  let right: Namespace;
  let ours: Ours;
  let theirs: Ours;

  beforeAll(async () => {
    lab = new Lab();
    left = await lab.namespace('left');
    right = await lab.namespace('right');
    const addresses = (side: typeof LEFT): string[] => [`${side[4].outer}/24`, `${side[6].outer}/64`];
    await cable(
      { namespace: left, device: LINE, addresses: addresses(LEFT) },
      { namespace: right, device: LINE, addresses: addresses(RIGHT) },
    );
    for (const namespace of [left, right]) await startEcho(lab, namespace, '::', ECHO_PORT);
    [ours, theirs] = [await Ours.start(lab, left), await Ours.start(lab, right)];
  }, 60_000);
  afterAll(() => lab.dispose(), 30_000);
  beforeEach(() => showLogsOnFailure(lab));

  const rules = async (family: 4 | 6): Promise<string> => (await left.exec(['ip', `-${family}`, 'rule'])).stdout;

  it.each([
    [4, 'raw'],
    [6, 'udp'],
  ] as const)(
    'protects all that hosts send each other over IPv%d, ESP in %s, and leaves nothing behind',
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

  it('lets nothing out in the clear: not before there is an SA, nor when the daemon has died', async () => {
    const tunnel = hostTunnel(4, 'any', 'raw');
    await theirs.load(tunnel, 'right', { start: 'respond' });
    await ours.load(tunnel, 'left', { start: 'respond' });
    const line = await Capture.start(lab, left, LINE);
    expect(await talk(left, 4, 3)).toMatchObject({ received: 0 });
    await ours.stop('SIGKILL');
    const refused = await left.exec(['ip', 'route', 'get', RIGHT[4].outer], { check: false });
    expect(refused.stdout + refused.stderr).toContain('No route to host');
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
