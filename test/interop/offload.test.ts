/**
 * Much traffic through a tunnel whose devices divide and join packets: it arrives whole and in whole runs, its headers
 * and checksums as they were. With one of ours at the other end, and with strongSwan, which knows only single packets.
 */
import { expect, it } from 'vitest';
import type { Lab } from '../support/lab/lab.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { StrongSwan } from '../support/lab/strongswan.ts';
import { burst, ping, startEcho } from '../support/lab/traffic.ts';
import { type Transfer, type TransferOptions, transfer } from '../support/lab/transfer.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { addInner, ECHO_PORT, LINE } from './rig.ts';
import { LEFT, RIGHT, SUITES, suiteTunnel } from './suites.ts';

const BYTES = 20_000_000;
const PORT = 7200;
const TTL = 17;
const NAME = 'runs';

const PLAIN = suiteTunnel(NAME, SUITES[0]!);
/** Both IP versions inside. */
const TUNNEL: typeof PLAIN = {
  ...PLAIN,
  left: { ...PLAIN.left, inner: [LEFT[4].network, LEFT[6].network] },
  right: { ...PLAIN.right, inner: [RIGHT[4].network, RIGHT[6].network] },
};

interface Hosts {
  readonly left: Namespace;
  readonly right: Namespace;
}

async function twoHosts(lab: Lab): Promise<Hosts> {
  const [left, right] = [await lab.namespace('left'), await lab.namespace('right')];
  await cable(
    { namespace: left, device: LINE, addresses: [`${LEFT[4].outer}/24`] },
    { namespace: right, device: LINE, addresses: [`${RIGHT[4].outer}/24`] },
  );
  await addInner(left, LEFT);
  await addInner(right, RIGHT);
  return { left, right };
}

/** From left to right, and from right to left at the same time. */
function bothWays(
  { left, right }: Hosts,
  family: 4 | 6,
  bytes: number,
  timeout: number,
): Promise<[Transfer, Transfer]> {
  const [source, destination] = [LEFT[family].inner, RIGHT[family].inner];
  const options = { bytes, timeout };
  return Promise.all([
    transfer(left, right, { ...options, source, destination, port: PORT }),
    transfer(right, left, { ...options, source: destination, destination: source, port: PORT + 1 }),
  ]);
}

/** A counter of `/proc/net/snmp`. */
async function kernelCounter(host: Namespace, protocol: 'Tcp' | 'Udp', name: string): Promise<number> {
  const { stdout } = await host.exec(['cat', '/proc/net/snmp']);
  const [names, values] = stdout.split('\n').filter((line) => line.startsWith(`${protocol}:`));
  return Number(values!.split(' ')[names!.split(' ').indexOf(name)]);
}

/** Checksums that the stacks of both hosts found wrong, of TCP and of UDP, ESP's included. */
async function badChecksums({ left, right }: Hosts): Promise<number> {
  let bad = 0;
  for (const host of [left, right]) {
    bad += (await kernelCounter(host, 'Tcp', 'InCsumErrors')) + (await kernelCounter(host, 'Udp', 'InCsumErrors'));
  }
  return bad;
}

describeInterop('runs of packets, with one of ours', ['namespaces', 'nftables', 'tcpdump', 'build'], () => {
  let lab: Lab;
  let hosts: Hosts;
  let ends: { readonly left: Ours; readonly right: Ours };

  useLab(async (made) => {
    lab = made;
    hosts = await twoHosts(lab);
    await startEcho(lab, hosts.right, '::', ECHO_PORT);
    ends = { left: await Ours.start(lab, hosts.left), right: await Ours.start(lab, hosts.right) };
    await ends.right.load(TUNNEL, 'right', { start: 'respond' });
    await ends.left.load(TUNNEL, 'left', { start: 'initiate' });
    await ends.left.up(NAME);
    await ends.right.up(NAME);
  }, 120_000);

  it('the device tells what the kernel leaves to it', async () => {
    expect((await ends.left.status()).io.tun).toEqual(expect.arrayContaining(['csum', 'tso', 'gro']));
    expect((await ends.left.command(['status'])).stdout).toMatch(/^io: tun csum, tso/m);
  });

  it.each([4, 6] as const)(
    'TCP over IPv%i arrives as it was sent, both ways at once, in runs',
    async (family) => {
      const { name } = (await ends.left.tunnel(NAME)).device!;
      const { left } = hosts;
      const packets = async (): Promise<Record<'carriedOut' | 'carriedIn' | 'out' | 'in', number>> => {
        const { child } = await ends.left.single(NAME);
        // What the kernel hands to the device it counts as sent, in runs.
        const { txPackets, rxPackets } = await left.counters(name);
        return { carriedOut: child.packetsOut, carriedIn: child.packetsIn, out: txPackets, in: rxPackets };
      };
      const before = await packets();
      for (const { sent, arrived } of await bothWays(hosts, family, BYTES, 20_000)) expect(arrived).toBe(sent);
      const after = await packets();
      expect(after.out - before.out).toBeLessThan((after.carriedOut - before.carriedOut) / 2);
      expect(after.in - before.in).toBeLessThan((after.carriedIn - before.carriedIn) / 2);
      expect(await badChecksums(hosts)).toBe(0);
    },
    30_000,
  );

  it('ping and datagrams pass among it', async () => {
    const [source, destination] = [LEFT[4].inner, RIGHT[4].inner];
    const options: TransferOptions = { source, destination, port: PORT, bytes: BYTES, timeout: 20_000 };
    const [{ sent, arrived }, echoes, pings] = await Promise.all([
      transfer(hosts.left, hosts.right, options),
      burst(hosts.left, { source: LEFT[6].inner, destination: RIGHT[6].inner, port: ECHO_PORT, count: 50, size: 1200 }),
      ping(hosts.left, { source, destination, count: 5 }),
    ]);
    expect(arrived).toBe(sent);
    expect(echoes).toEqual({ sent: 50, received: 50, damaged: 0 });
    expect(pings).toBe(5);
  }, 120_000);

  it('TTL, ECN and DF of what was divided and joined are what they were', async () => {
    const { left, right } = hosts;
    const set = (host: Namespace, name: string, value: number): Promise<unknown> =>
      host.exec(['sh', '-c', `echo ${value} >/proc/sys/net/ipv4/${name}`]);
    await set(left, 'ip_default_ttl', TTL);
    for (const host of [left, right]) await set(host, 'tcp_ecn', 1);
    // TCP sends again without ECT (RFC 3168, section 6.1.5), and a slow host does send again: so all are marked.
    const marks = `table inet marks {
  chain marks { type filter hook output priority 0; tcp dport ${PORT} meta length > 1000 ip ecn set ect0; }
}`;
    await left.exec(['nft', '-f', '-'], { input: marks });
    const { name } = (await ends.right.tunnel(NAME)).device!;
    const filter = `src ${LEFT[4].inner} and tcp dst port ${PORT} and greater 1000`;
    const argv = ['tcpdump', '--immediate-mode', '-l', '-n', '-v', '-i', name, '-c', '20', ...filter.split(' ')];
    const tcpdump = right.spawn('tcpdump', argv);
    lab.defer(() => tcpdump.stop());
    await waitFor('tcpdump to listen', () => tcpdump.output.includes('listening on') || undefined);
    const [source, destination] = [LEFT[4].inner, RIGHT[4].inner];
    await transfer(left, right, { source, destination, port: PORT, bytes: 5_000_000, timeout: 20_000 });
    await waitFor('what was captured', () => !tcpdump.alive || undefined);
    const headers = tcpdump.output.split('\n').filter((line) => line.includes(' IP ('));
    expect(headers).toHaveLength(20);
    for (const header of headers) {
      expect(header).toMatch(new RegExp(`tos 0x2,ECT\\(0\\), ttl ${TTL}, id \\d+, offset 0, flags \\[DF\\]`));
    }
  }, 120_000);
});

describeInterop('runs of packets, with strongSwan', ['namespaces', 'strongswan', 'build'], () => {
  let hosts: Hosts;
  let ours: Ours;

  useLab(async (lab) => {
    hosts = await twoHosts(lab);
    const peer = await StrongSwan.start(lab, hosts.right);
    ours = await Ours.start(lab, hosts.left);
    await peer.load(TUNNEL, 'right');
    await ours.load(TUNNEL, 'left', { start: 'initiate' });
    await ours.up(NAME);
  }, 120_000);

  it('TCP arrives as it was sent, both ways at once', async () => {
    for (const { sent, arrived } of await bothWays(hosts, 4, BYTES, 40_000)) expect(arrived).toBe(sent);
    expect(await badChecksums(hosts)).toBe(0);
  }, 50_000);
});
