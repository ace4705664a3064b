/**
 * Forged ICMP that says that packets of ours are too large for a link (RFC 1191, RFC 8201): the kernel believes it when
 * addresses and ports fit; we want to see an SPI and a sequence number that we have sent, and believe no absurd size.
 */
import { expect, it } from 'vitest';
import { addressToBytes, parseAddress } from '../../src/base/address.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { projectRoot } from '../support/lab/root.ts';
import { ping } from '../support/lab/traffic.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { addInner, LINE } from './rig.ts';
import { LEFT, RIGHT, SUITES, suiteTunnel } from './suites.ts';

const NAME = 'forged';
const SENDER = `${projectRoot()}/test/support/lab/send-packet.mjs`;
const NAT_PORT = 4500;
const [ICMP, UDP, ESP, ICMPV6] = [1, 17, 50, 58];
const LINK_MTU = 1500;

interface Kind {
  readonly outer: 4 | 6;
  readonly encapsulated: boolean;
  /** ESP adds so much to a packet inside, and the outer headers. */
  readonly device: number;
  /** What the kernel makes of 68 bytes. */
  readonly kernelLeast: number;
  /** What we make of it, and what fits inside then. */
  readonly least: number;
}

const KINDS: readonly (readonly [string, Kind])[] = [
  ['ESP in UDP over IPv4', { outer: 4, encapsulated: true, device: 1436, kernelLeast: 552, least: 576 }],
  ['ESP straight over IPv4', { outer: 4, encapsulated: false, device: 1444, kernelLeast: 552, least: 576 }],
  ['ESP in UDP over IPv6', { outer: 6, encapsulated: true, device: 1416, kernelLeast: 1280, least: 1280 }],
];

for (const [what, kind] of KINDS) {
  describeInterop(`a forged report of a narrow link, ${what}`, ['namespaces', 'build'], () => forge(kind));
}

function forge({ outer, encapsulated, device, kernelLeast, least }: Kind): void {
  let left: Namespace;
  let right: Namespace;
  let ours: Ours;
  const [source, destination] = [LEFT[4].inner, RIGHT[4].inner];

  useLab(async (lab) => {
    [left, right] = [await lab.namespace('left'), await lab.namespace('right')];
    const length = outer === 4 ? 24 : 64;
    await cable(
      { namespace: left, device: LINE, addresses: [`${LEFT[outer].outer}/${length}`] },
      { namespace: right, device: LINE, addresses: [`${RIGHT[outer].outer}/${length}`] },
    );
    await addInner(left, LEFT);
    await addInner(right, RIGHT);
    ours = await Ours.start(lab, left);
    const other = await Ours.start(lab, right);
    const suite = { ...SUITES[0]!, outer };
    const tunnel = {
      ...suiteTunnel(NAME, suite),
      ...(encapsulated ? {} : { encapsulation: 'never' as const }),
    };
    await other.load(tunnel, 'right', { start: 'respond' });
    await ours.load(tunnel, 'left', { start: 'initiate' });
    await ours.up(NAME);
    await ping(left, { source, destination, count: 5 });
  });

  /** Sends a report about a packet of the left end, as if from a router on the way. */
  async function report(mtu: number, behindHeaders: readonly number[]): Promise<void> {
    await right.exec([
      process.execPath,
      SENDER,
      Buffer.from(packet(outer, encapsulated, mtu, behindHeaders)).toString('hex'),
    ]);
  }

  /** What a ping of `size` bytes that must not be fragmented is told. */
  async function probe(size: number): Promise<string> {
    const argv = ['ping', '-n', '-M', 'do', '-c', '3', '-i', '0.2', '-W', '1', '-s', String(size - 28), '-I', source];
    const { stdout, stderr } = await left.exec([...argv, destination], { check: false, timeout: 8_000 });
    return stdout + stderr;
  }

  async function fragmentsMade(): Promise<number> {
    const { stdout } = await left.exec(['nstat', '-a', '-s', '-z', 'IpFragCreates', 'Ip6FragCreates']);
    return [...stdout.matchAll(/FragCreates +(\d+)/g)].reduce((sum, [, count]) => sum + Number(count), 0);
  }

  async function ignored(): Promise<number> {
    return (await ours.status()).counters['path-report-ignored'] ?? 0;
  }

  /** SPI and a sequence number of the left end, as they stand in a packet. */
  async function sent(): Promise<{ spi: number[]; sequence: (back: number) => number[] }> {
    const { child } = await ours.single(NAME);
    const word = (value: number): number[] => [...Buffer.from(Uint32Array.of(value).buffer).reverse()];
    return { spi: word(Number.parseInt(child.spiOut, 16)), sequence: (back) => word(child.packetsOut - back) };
  }

  it('is counted and changes nothing with an SPI that is not ours, or a number that was not sent', async () => {
    const { spi, sequence } = await sent();
    for (const behind of [
      [spi[0]! ^ 1, ...spi.slice(1), ...sequence(0)],
      [...spi, ...sequence(-1)],
      [...spi, 0, 0, 0, 0],
      [...spi, ...sequence(0x1_0001)],
    ]) {
      const before = await ignored();
      await report(kernelLeast, behind);
      await waitFor('the report', async () => ((await ignored()) > before ? true : undefined));
    }
    // The kernel has no doubts.
    const { stdout } = await left.exec(['ip', 'route', 'get', RIGHT[outer].outer]);
    expect(stdout).toContain(`mtu ${kernelLeast}`);
    const fragments = await fragmentsMade();
    expect(await probe(device)).toContain(' 3 received');
    expect(await fragmentsMade()).toBe(fragments);
  });

  it('is accepted with both, but not below the minimum MTU', async () => {
    const { spi, sequence } = await sent();
    await report(68, [...spi, ...sequence(0), ...new Array<number>(32).fill(7)]);
    const overhead = LINK_MTU - device;
    const fits = least - overhead - ((least - overhead) % 4);
    await waitFor('the report', async () => {
      // What ping was told before is kept by the kernel.
      await left.exec(['ip', 'route', 'flush', 'cache']);
      const told = await probe(device);
      return /mtu ?[=:] ?(\d+)/.exec(told) === null ? undefined : true;
    });
    const [, mtu] = /mtu ?[=:] ?(\d+)/.exec(await probe(device))!;
    expect(Number(mtu)).toBeGreaterThanOrEqual(Math.max(576, fits));
    expect(Number(mtu)).toBeLessThan(Math.max(576, fits) + 4);
    expect(await probe(Number(mtu))).toContain(' 3 received');
    // What may be fragmented still arrives.
    expect(await ping(left, { source, destination, size: 4_000 })).toBe(3);
  });
}

/** An ICMP message to the left end that quotes a packet of it. */
function packet(outer: 4 | 6, encapsulated: boolean, mtu: number, behind: readonly number[]): Uint8Array {
  const [from, to] = [LEFT[outer].outer, RIGHT[outer].outer].map((text) => [...addressToBytes(parseAddress(text)!)]);
  const protocol = encapsulated ? UDP : ESP;
  const ports = [NAT_PORT >>> 8, NAT_PORT & 0xff];
  const udp = encapsulated ? [...ports, ...ports, 5, 0, 0, 0] : [];
  const inside = [...udp, ...behind];
  if (outer === 4) {
    const quoted = [0x45, 0, 5, 0x90, 0, 1, 0x40, 0, 63, protocol, 0, 0, ...from!, ...to!];
    const icmp = Uint8Array.from([3, 4, 0, 0, 0, 0, mtu >>> 8, mtu & 0xff, ...quoted, ...inside]);
    icmp.set(checksum(icmp), 2);
    const length = 20 + icmp.length;
    return Uint8Array.from([
      0x45,
      0,
      length >>> 8,
      length & 0xff,
      0,
      1,
      0,
      0,
      64,
      ICMP,
      0,
      0,
      ...to!,
      ...from!,
      ...icmp,
    ]);
  }
  const quoted = [0x60, 0, 0, 0, 5, 0x68, protocol, 63, ...from!, ...to!];
  const icmp = Uint8Array.from([2, 0, 0, 0, 0, 0, mtu >>> 8, mtu & 0xff, ...quoted, ...inside]);
  const pseudo = [...to!, ...from!, 0, 0, icmp.length >>> 8, icmp.length & 0xff, 0, 0, 0, ICMPV6];
  icmp.set(checksum(Uint8Array.from([...pseudo, ...icmp])), 2);
  return Uint8Array.from([0x60, 0, 0, 0, icmp.length >>> 8, icmp.length & 0xff, ICMPV6, 64, ...to!, ...from!, ...icmp]);
}

/** RFC 1071. */
function checksum(bytes: Uint8Array): [number, number] {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return [(~sum >>> 8) & 0xff, ~sum & 0xff];
}
