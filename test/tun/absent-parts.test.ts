/** Optional parts of the kernel, each absent in turn: at the system calls, as a kernel without it answers them. */
import { writeFileSync } from 'node:fs';
import { afterEach, beforeAll, expect, it, onTestFinished, vi } from 'vitest';
import { parseAddress } from '../../src/base/address.ts';
import { LinuxHostNetwork } from '../../src/hostnet/routes/linux.ts';
import { ERRNO } from '../../src/sys/errno.ts';
import type { Libc } from '../../src/sys/libc.ts';
import { openLinuxTun } from '../../src/tun/linux.ts';
import { linuxUdp } from '../../src/tun/udp/linux.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { enterNewNamespace, ipCommand } from './namespace.ts';

type Part = 'ipv6' | 'uso' | 'tso' | 'vnet-hdr' | 'multi-queue' | 'udp-gro' | 'udp-gso';

const { absent } = vi.hoisted(() => ({ absent: new Set<string>() }));

vi.mock('../../src/sys/libc.ts', async (original) => {
  const actual = await original<typeof import('../../src/sys/libc.ts')>();
  let made: Libc | undefined;
  const libc = (): Libc => {
    made ??= without(actual.libc());
    return made;
  };
  return { ...actual, libc };
});

const AF_INET6 = 10;
const TUNSETIFF = 0x400454ca;
const TUNSETOFFLOAD = 0x400454d0;
const [IFF_MULTI_QUEUE, IFF_VNET_HDR] = [0x0100, 0x4000];
const FLAGS_AT = 16;
const TUN_F_USO = 0x60;
const SOL_UDP = 17;
const UDP_OPTIONS: Readonly<Record<number, Part>> = { 103: 'udp-gso', 104: 'udp-gro' };

/** The errno with which a kernel that has not got what is in `absent` refuses a call. */
function refusalOf(call: string, words: readonly unknown[]): number | undefined {
  const lacks = (part: Part | undefined, errno: number): number | undefined =>
    part !== undefined && absent.has(part) ? errno : undefined;
  const [first, second, third] = words;
  if (call === 'socket') return first === AF_INET6 ? lacks('ipv6', ERRNO.EAFNOSUPPORT) : undefined;
  if (call === 'setsockopt') {
    return second === SOL_UDP ? lacks(UDP_OPTIONS[Number(third)], ERRNO.ENOPROTOOPT) : undefined;
  }
  if (call === 'ioctl' && second === TUNSETIFF) {
    const flags = readU16(third as Uint8Array, FLAGS_AT);
    if ((flags & IFF_MULTI_QUEUE) !== 0 && absent.has('multi-queue')) return ERRNO.EINVAL;
    return (flags & IFF_VNET_HDR) === 0 ? undefined : lacks('vnet-hdr', ERRNO.EINVAL);
  }
  if (call !== 'ioctlValue' || second !== TUNSETOFFLOAD) return undefined;
  const isUso = (Number(third) & TUN_F_USO) !== 0;
  return lacks('tso', ERRNO.EINVAL) ?? (isUso ? lacks('uso', ERRNO.EINVAL) : undefined);
}

/** In the order of the host: x86-64, arm64 and riscv64 have the lower byte first. */
function readU16(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8);
}

function without(calls: Libc): Libc {
  let injected: number | undefined;
  const wrapped = Object.entries(calls).map(([name, call]: [string, (...words: unknown[]) => unknown]) => {
    if (name === 'errno') return [name, () => injected ?? call()];
    return [
      name,
      (...words: unknown[]): unknown => {
        injected = refusalOf(name, words);
        return injected === undefined ? call(...words) : -1;
      },
    ];
  });
  return Object.fromEntries(wrapped) as Libc;
}

const lack = (...parts: Part[]): void => {
  for (const part of parts) absent.add(part);
};

describeInterop('a kernel without', ['namespaces'], () => {
  let count = 0;

  beforeAll(() => {
    const leave = enterNewNamespace();
    ipCommand('link', 'set', 'lo', 'up');
    return leave;
  });
  afterEach(() => absent.clear());

  const features = (queues = 1): readonly string[] => {
    const device = openLinuxTun({ name: `absent${count++}`, queues });
    onTestFinished(() => device.close());
    return device.features;
  };

  it('nothing missing has all of it', () => {
    expect(features()).toEqual(expect.arrayContaining(['tso', 'uso']));
    expect(features(2)).toContain('tso');
  });

  it.each([
    ['segmentation of UDP', ['uso'], ['tso'], ['uso']],
    ['segmentation', ['tso'], [], ['tso', 'uso', 'csum']],
    ['virtio headers', ['vnet-hdr'], [], ['tso', 'uso', 'csum']],
  ] as const)('%s in TUN devices has devices', (_, parts, has, hasNot) => {
    lack(...parts);
    const found = features();
    expect(found).toEqual(expect.arrayContaining([...has]));
    for (const feature of hasNot) expect(found).not.toContain(feature);
  });

  it('several queues says so, and what to do; with one it goes', () => {
    lack('multi-queue');
    expect(() => features(2)).toThrow(/EINVAL.*one queue only: run sectunneld with --workers 1$/);
    expect(features(1)).toContain('tso');
  });

  it.each([
    ['joining of datagrams', 'udp-gro', 'gro'],
    ['cutting of datagrams', 'udp-gso', 'gso'],
  ] as const)('%s has sockets', async (_, part, feature) => {
    const bind = async (): Promise<readonly string[]> => {
      const socket = await linuxUdp().bind({
        address: parseAddress('127.0.0.1')!,
        port: 0,
        sourceFor: () => undefined,
      });
      onTestFinished(() => socket.close());
      return socket.features;
    };
    expect(await bind()).toContain(feature);
    lack(part);
    expect(await bind()).not.toContain(feature);
  });

  it('IPv6 has no sockets of it, and says so', async () => {
    lack('ipv6');
    const wanted = { address: parseAddress('::')!, port: 0, sourceFor: () => undefined };
    await expect(linuxUdp().bind(wanted)).rejects.toThrow(/EAFNOSUPPORT.*This host has no IPv6/);
  });

  it('IPv6 switched off refuses its routes in a sentence', () => {
    ipCommand('link', 'add', 'off', 'type', 'veth', 'peer', 'name', 'far');
    ipCommand('link', 'set', 'off', 'up');
    const network = new LinuxHostNetwork();
    onTestFinished(() => network.close());
    const linkIndex = network.link('off')!.index;
    writeFileSync('/proc/sys/net/ipv6/conf/off/disable_ipv6', '1');
    const destination = { address: parseAddress('fd00:2::')!, prefixLength: 64 };
    expect(() => network.addRoutes([{ type: 'unicast', destination, linkIndex, table: 4711 }])).toThrow(
      /add route fd00:2::\/64.*IPv6 is disabled on the device.*sysctl -w .*leave those ranges out/,
    );
  });
});
