/**
 * What the header around ESP says, and what becomes of packets on their way through two gateways that forward: DSCP and
 * ECN, hop limits, fragments inside and outside. Between the gateways stands a router that marks, and has a narrow line.
 */
import { describe, expect, it } from 'vitest';
import type { ChildStatus } from '../../src/host/status.ts';
import { Capture } from '../support/lab/capture.ts';
import type { Lab } from '../support/lab/lab.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import type { Tunnel } from '../support/lab/tunnel.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { PSK } from './suites.ts';

/** A tunnel over each IP version; each has networks of its own at both ends, of which one is IPv4 and one IPv6. */
const NETS = {
  4: { left: { 4: '10.1.4', 6: '2001:db8:14' }, right: { 4: '10.2.4', 6: '2001:db8:24' } },
  6: { left: { 4: '10.1.6', 6: '2001:db8:16' }, right: { 4: '10.2.6', 6: '2001:db8:26' } },
} as const;
const OUTER = {
  4: { left: '198.51.100.2', right: '203.0.113.2' },
  6: { left: '2001:db8:a::2', right: '2001:db8:b::2' },
} as const;
type Family = 4 | 6;
const FAMILIES = [4, 6] as const;
const NARROW = 1340;

const host = (net: string, number: number): string => (net.includes(':') ? `${net}::${number}` : `${net}.${number}`);
const withPrefix = (net: string, number: number): string => `${host(net, number)}/${net.includes(':') ? 64 : 24}`;
const network = (net: string): string => (net.includes(':') ? `${net}::/64` : `${net}.0/24`);
const nameOf = (outer: Family): string => `over${outer}`;
const withHosts = (side: 'left' | 'right', number: number): string[] =>
  FAMILIES.flatMap((outer) => FAMILIES.map((inner) => withPrefix(NETS[outer][side][inner], number)));

function tunnelOver(outer: Family): Tunnel {
  const end = (side: 'left' | 'right'): Tunnel['left'] => ({
    address: OUTER[outer][side],
    id: { type: 'fqdn', value: `${side}.example` },
    inner: FAMILIES.map((inner) => network(NETS[outer][side][inner])),
    psk: PSK,
  });
  return {
    name: nameOf(outer),
    left: end('left'),
    right: end('right'),
    ike: { encryption: 'aes128gcm16', prf: 'sha256', dh: 'x25519' },
    esp: { encryption: 'aes128gcm16', esn: 'no' },
  };
}

async function forward(router: Namespace): Promise<void> {
  const files = ['ipv4/ip_forward', 'ipv6/conf/all/forwarding'];
  await router.exec(['sh', '-c', files.map((file) => `echo 1 >/proc/sys/net/${file}`).join('; ')]);
}

describeInterop('between two gateways', ['namespaces', 'tcpdump', 'nftables', 'build'], () => {
  let lab: Lab;
  let client: Namespace;
  let server: Namespace;
  let near: Namespace;
  let far: Namespace;
  let router: Namespace;
  let ends: { readonly left: Ours; readonly right: Ours };

  useLab(async (made) => {
    lab = made;
    client = await lab.namespace('client');
    near = await lab.namespace('near');
    router = await lab.namespace('router');
    far = await lab.namespace('far');
    server = await lab.namespace('server');
    await cable(
      { namespace: client, device: 'lan', addresses: withHosts('left', 2) },
      { namespace: near, device: 'lan', addresses: withHosts('left', 1) },
    );
    await cable(
      { namespace: near, device: 'wan', addresses: [`${OUTER[4].left}/24`, `${OUTER[6].left}/64`] },
      { namespace: router, device: 'near', addresses: ['198.51.100.1/24', '2001:db8:a::1/64'] },
    );
    await cable(
      { namespace: router, device: 'far', addresses: ['203.0.113.1/24', '2001:db8:b::1/64'] },
      { namespace: far, device: 'wan', addresses: [`${OUTER[4].right}/24`, `${OUTER[6].right}/64`] },
    );
    await cable(
      { namespace: far, device: 'lan', addresses: withHosts('right', 1) },
      { namespace: server, device: 'lan', addresses: withHosts('right', 2) },
    );
    for (const namespace of [near, router, far]) await forward(namespace);
    await near.ip(['route add default via 198.51.100.1', 'route add default via 2001:db8:a::1']);
    await far.ip(['route add default via 203.0.113.1', 'route add default via 2001:db8:b::1']);
    for (const [namespace, side] of [
      [client, 'left'],
      [server, 'right'],
    ] as const) {
      const other = side === 'left' ? 'right' : 'left';
      for (const outer of FAMILIES) {
        for (const inner of FAMILIES) {
          const way = `${network(NETS[outer][other][inner])} via ${host(NETS[outer][side][inner], 1)}`;
          await namespace.ip([`route add ${way}`]);
        }
      }
    }
    ends = { left: await Ours.start(lab, near), right: await Ours.start(lab, far) };
    for (const outer of FAMILIES) {
      await ends.right.load(tunnelOver(outer), 'right', { start: 'respond' });
      await ends.left.load(tunnelOver(outer), 'left', { start: 'initiate' });
      await ends.left.up(nameOf(outer));
      await ends.right.up(nameOf(outer));
    }
  });

  /** What ping says that goes from one network of a tunnel to the other. */
  async function ping(outer: Family, inner: Family, ...options: readonly string[]): Promise<string> {
    const [source, destination] = [host(NETS[outer].left[inner], 2), host(NETS[outer].right[inner], 2)];
    const argv = ['ping', '-n', '-i', '0.2', '-W', '5', '-I', source, ...options, destination];
    return (await client.exec(argv, { check: false, timeout: 15_000 })).stdout;
  }

  const child = async (side: 'left' | 'right', outer: Family): Promise<ChildStatus> =>
    (await ends[side].single(nameOf(outer))).child;

  describe.each(FAMILIES)('over IPv%i', (outer) => {
    it.each(FAMILIES)('IPv%i: each gateway is one hop, and nothing between them is seen', async (inner) => {
      for (const [ttl, gateway] of [
        ['1', host(NETS[outer].left[inner], 1)],
        ['2', host(NETS[outer].right[inner], 1)],
      ] as const) {
        // The tunnel itself takes nothing off: the kernels of the gateways do, when they forward.
        expect(await ping(outer, inner, '-c', '1', '-t', ttl)).toMatch(
          new RegExp(`From ${gateway} .*(live exceeded|Hop limit)`),
        );
      }
      expect(await ping(outer, inner, '-c', '1', '-t', '3')).toMatch(/bytes from .* ttl=62/);
    });

    it('DSCP and ECN are seen outside as they are inside, with a hop limit of the gateway', async () => {
      const outside = await Capture.start(lab, router, 'near');
      const inside = await Capture.start(lab, server, 'lan');
      const marks = { 4: 0xba, 6: 0x29 } as const;
      for (const inner of FAMILIES)
        expect(await ping(outer, inner, '-c', '1', '-Q', String(marks[inner]))).toContain('ttl=62');
      await outside.stop();
      await inside.stop();
      const [packets, echoes] = [
        await outside.headers('udp port 4500 and dst port 4500'),
        await inside.headers('icmp or icmp6'),
      ];
      for (const inner of FAMILIES) {
        const [marked, mark] = [markOf(outer, marks[inner]), markOf(inner, marks[inner])];
        expect(packets.filter((line) => line.includes(marked) && /(ttl|hlim) 64/.test(line))).not.toEqual([]);
        expect(echoes.filter((line) => line.includes('echo request') && line.includes(mark))).not.toEqual([]);
      }
    });

    it('congestion that a router marks is told inside, or the packet dropped', async () => {
      const before = await child('right', outer);
      const { congestion = 0 } = (await ends.right.tunnel(nameOf(outer))).drops;
      const inside = await Capture.start(lab, server, 'lan');
      const rule = `table inet marks {
  chain forward { type filter hook forward priority 0; iifname "near" udp dport 4500 ip${outer === 6 ? '6' : ''} ecn set ce; }
}`;
      await router.exec(['nft', '-f', '-'], { input: rule });
      try {
        for (const inner of FAMILIES) expect(await ping(outer, inner, '-c', '1', '-Q', '0x02')).toContain('ttl=62');
        expect(await ping(outer, 4, '-c', '1', '-W', '1')).toContain(' 0 received');
      } finally {
        await router.exec(['nft', 'delete', 'table', 'inet', 'marks']);
      }
      await inside.stop();
      const echoes = (await inside.headers('icmp or icmp6')).filter((line) => line.includes('echo request'));
      expect(echoes.map((line) => FAMILIES.filter((inner) => line.includes(markOf(inner, 3))))).toEqual([[4], [6]]);
      const after = await child('right', outer);
      expect(after.ecnMarked - before.ecnMarked).toBe(2);
      expect(after.ecnUnexpected - before.ecnUnexpected).toBe(1);
      expect((await ends.right.tunnel(nameOf(outer))).drops.congestion).toBe(congestion + 1);
      const told = (await ends.right.command(['status'])).stdout;
      expect(told).toMatch(/ bytes, 2 marked with congestion, 1 with invalid ECN$/m);
    });
  });

  /** Runs `action` with a narrow line behind the router. */
  async function narrowed(action: () => Promise<void>): Promise<void> {
    const set = async (mtu: number): Promise<void> => {
      await router.ip([`link set far mtu ${mtu}`]);
      await far.ip([`link set wan mtu ${mtu}`]);
    };
    await set(NARROW);
    try {
      await action();
    } finally {
      await set(1500);
    }
  }

  it.each(FAMILIES)('fragments of ESP over IPv%i are put together and opened', async (outer) => {
    const before = await child('right', outer);
    const line = await Capture.start(lab, far, 'wan');
    await narrowed(async () => {
      // As large as fits the tunnel's device, and not marked as whole: the gateway is told, and fragments what is outside.
      const answers = await ping(outer, 4, '-c', '5', '-M', 'dont', '-s', '1380');
      expect(Number(/(\d+) received/.exec(answers)![1])).toBeGreaterThanOrEqual(3);
    });
    await line.stop();
    const from = `src ${OUTER[outer].left}`;
    const fragments = await line.packets(
      outer === 4 ? `${from} and ip[6:2] & 0x3fff != 0` : `${from} and ip6 proto 44`,
    );
    expect(fragments.length).toBeGreaterThanOrEqual(6);
    expect((await child('right', outer)).packetsIn - before.packetsIn).toBeGreaterThanOrEqual(3);
  });

  it.each(FAMILIES)('fragments of IPv%i pass through the tunnel', async (inner) => {
    const before = await child('right', 4);
    // Of IPv6 the first are lost: only their sender may fragment, and either has to be told, of the device and of the path.
    const answers = await ping(4, inner, '-c', inner === 4 ? '3' : '9', '-M', 'dont', '-s', '4000');
    expect(Number(/(\d+) received/.exec(answers)![1])).toBeGreaterThanOrEqual(3);
    expect((await child('right', 4)).packetsIn - before.packetsIn).toBeGreaterThanOrEqual(9);
  });
});

/** How tcpdump shows a traffic class. */
function markOf(family: Family, trafficClass: number): string {
  const hex = trafficClass.toString(16);
  return family === 4 ? `tos 0x${hex},` : `class 0x${hex.padStart(2, '0')},`;
}
