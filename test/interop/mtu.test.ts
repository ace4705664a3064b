/**
 * Two of ours with a narrow line in the middle of their path, which neither can see: two routers are joined by it, and
 * say so with ICMP. Nothing may vanish, and what may not be fragmented must not be, inside or outside.
 */
import { expect, it } from 'vitest';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { ping } from '../support/lab/traffic.ts';
import { transfer } from '../support/lab/transfer.ts';
import type { Tunnel } from '../support/lab/tunnel.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { addInner, LINE } from './rig.ts';
import { LEFT, PSK, RIGHT } from './suites.ts';

const NAME = 'narrow';
const NARROW = 1400;
const LEFT_OUTER = '198.51.100.2';
const RIGHT_OUTER = '203.0.113.2';
const PORT = 7100;
const BYTES = 2_000_000;

/** Outer IPv4 and UDP, SPI and sequence number, IV, trailer, ICV, with both lengths at their best: see `maxPayload`. */
const DEVICE_MTU = 1436;
const FITS = NARROW - 20 - 8 - 8 - 8 - 2 - 16;
const ICMP = { 4: 20 + 8, 6: 40 + 8 } as const;

const TUNNEL: Tunnel = {
  name: NAME,
  left: {
    address: LEFT_OUTER,
    id: { type: 'fqdn', value: 'left.example' },
    inner: [LEFT[4].network, LEFT[6].network],
    psk: PSK,
  },
  right: {
    address: RIGHT_OUTER,
    id: { type: 'fqdn', value: 'right.example' },
    inner: [RIGHT[4].network, RIGHT[6].network],
    psk: PSK,
  },
  ike: { encryption: 'aes128gcm16', prf: 'sha256', dh: 'x25519' },
  esp: { encryption: 'aes128gcm16', esn: 'no' },
};

describeInterop('a path that is narrower in its middle than at its ends', ['namespaces', 'build'], () => {
  let left: Namespace;
  let right: Namespace;
  let ends: { readonly left: Ours; readonly right: Ours };

  useLab(async (lab) => {
    left = await lab.namespace('left');
    right = await lab.namespace('right');
    const routers = [await lab.namespace('near'), await lab.namespace('far')] as const;
    const [near, far] = routers;
    await cable(
      { namespace: left, device: LINE, addresses: [`${LEFT_OUTER}/24`] },
      { namespace: near, device: LINE, addresses: ['198.51.100.1/24'] },
    );
    await cable(
      { namespace: near, device: 'middle', addresses: ['192.0.2.1/24'] },
      { namespace: far, device: 'middle', addresses: ['192.0.2.2/24'] },
    );
    await cable(
      { namespace: far, device: LINE, addresses: ['203.0.113.1/24'] },
      { namespace: right, device: LINE, addresses: [`${RIGHT_OUTER}/24`] },
    );
    for (const router of routers) {
      await router.ip([`link set middle mtu ${NARROW}`]);
      await router.exec(['sh', '-c', 'echo 1 >/proc/sys/net/ipv4/ip_forward']);
    }
    await near.ip(['route add 203.0.113.0/24 via 192.0.2.2']);
    await far.ip(['route add 198.51.100.0/24 via 192.0.2.1']);
    await left.ip(['route add default via 198.51.100.1']);
    await right.ip(['route add default via 203.0.113.1']);
    await addInner(left, LEFT);
    await addInner(right, RIGHT);
    ends = { left: await Ours.start(lab, left), right: await Ours.start(lab, right) };
    await ends.right.load(TUNNEL, 'right', { start: 'respond' });
    await ends.left.load(TUNNEL, 'left', { start: 'initiate' });
    await ends.left.up(NAME);
    await ends.right.up(NAME);
  }, 120_000);

  /** Sends a file's worth of bytes; whether what arrived is what was sent. */
  async function carries(from: Namespace, source: string, to: Namespace, destination: string): Promise<boolean> {
    const options = { source, destination, port: PORT, bytes: BYTES, timeout: 10_000 };
    const { sent, arrived } = await transfer(from, to, options);
    return arrived === sent;
  }

  /** What is said of echo requests of `size` bytes in all that must not be fragmented. */
  async function probe(from: Namespace, source: string, destination: string, size: number): Promise<string> {
    const payload = String(size - ICMP[source.includes(':') ? 6 : 4]);
    const argv = [
      'ping',
      '-n',
      '-M',
      'do',
      '-c',
      '3',
      '-i',
      '0.2',
      '-W',
      '1',
      '-s',
      payload,
      '-I',
      source,
      destination,
    ];
    const { stdout, stderr } = await from.exec(argv, { check: false, timeout: 8_000 });
    return stdout + stderr;
  }

  async function fragmentsMade(host: Namespace): Promise<number> {
    const { stdout } = await host.exec(['cat', '/proc/net/snmp']);
    const [names, values] = stdout.split('\n').filter((line) => line.startsWith('Ip:'));
    return Number(values!.split(' ')[names!.split(' ').indexOf('FragCreates')]);
  }

  it('devices start with what fits the ends', async () => {
    for (const end of [ends.left, ends.right]) expect((await end.tunnel(NAME)).device?.mtu).toBe(DEVICE_MTU);
    expect((await ends.left.command(['dumpxml', NAME])).stdout).not.toContain('mtu=');
  });

  it.each([4, 6] as const)('a sender of IPv%i packets that are too large is told what fits', async (family) => {
    const [source, destination] = [LEFT[family].inner, RIGHT[family].inner];
    // The first one may be lost: only then the line in the middle is known.
    const told = await probe(left, source, destination, DEVICE_MTU);
    expect(told).toMatch(new RegExp(`mtu ?[=:] ?${FITS}\\b`));
    expect(await probe(left, source, destination, FITS)).toContain(' 3 received');
    expect((await ends.left.tunnel(NAME)).drops['too-big']).toBeGreaterThan(0);
  });

  it('TCP carries as much as one likes, either way, and needs no fragments', async () => {
    for (const family of [4, 6] as const) {
      expect(await carries(left, LEFT[family].inner, right, RIGHT[family].inner)).toBe(true);
      expect(await carries(right, RIGHT[family].inner, left, LEFT[family].inner)).toBe(true);
    }
    const before = [await fragmentsMade(left), await fragmentsMade(right)];
    expect(await carries(left, LEFT[4].inner, right, RIGHT[4].inner)).toBe(true);
    expect(await carries(right, RIGHT[4].inner, left, LEFT[4].inner)).toBe(true);
    expect([await fragmentsMade(left), await fragmentsMade(right)]).toEqual(before);
  });

  it('packets that may be fragmented arrive at any size', async () => {
    const [source, destination] = [LEFT[4].inner, RIGHT[4].inner];
    // The right end has sent nothing so large yet. What it sends alone has DF, as long as the kernel knows no smaller path.
    await ping(left, { source, destination, size: 4_000, count: 1 });
    expect(await ping(left, { source, destination, size: 4_000 })).toBe(3);
  });
});
