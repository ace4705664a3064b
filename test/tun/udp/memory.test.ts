import { describe, expect, it } from 'vitest';
import { formatSocketAddress, type IpAddress, parseAddress, type SocketAddress } from '../../../src/base/address.ts';
import { lossyRoute, type MemoryArrival, MemoryNetwork } from '../../../src/tun/udp/memory.ts';
import { batchOf } from './support.ts';

const ip = (text: string): IpAddress => parseAddress(text)!;
const at = (text: string, port: number): SocketAddress => ({ address: ip(text), port });
const A = ip('192.0.2.1');
const B = ip('192.0.2.2');
const ANY = ip('0.0.0.0');

/** A network whose clock the test turns by hand. */
function manualNetwork(route?: () => readonly MemoryArrival[]): { network: MemoryNetwork; advance: () => void } {
  const due: { readonly at: number; readonly run: () => void }[] = [];
  const schedule = (delayMs: number, run: () => void): void => {
    due.push({ at: delayMs, run });
  };
  const network = new MemoryNetwork(route === undefined ? { schedule } : { route, schedule });
  const advance = (): void => {
    for (const { run } of due.splice(0).sort((a, b) => a.at - b.at)) run();
  };
  return { network, advance };
}

describe('a memory network', () => {
  it('carries datagrams between hosts, with the addresses of both ends', async () => {
    const { network, advance } = manualNetwork();
    const a = await network.host([A]).bind({ address: A, port: 500 });
    const b = await network.host([B]).bind({ address: ANY, port: 500 });
    const seen: string[] = [];
    b.onDatagram((data, from, local) => {
      seen.push(`${data.join(' ')} ${formatSocketAddress(from)} ${formatSocketAddress(local)}`);
      b.send(Uint8Array.of(9), from);
    });
    a.onDatagram((data, from) => seen.push(`${data.join(' ')} ${formatSocketAddress(from)}`));
    const data = Uint8Array.of(1, 2);
    expect(a.send(data, at('192.0.2.2', 500))).toBe(true);
    data.fill(0);
    expect(seen).toEqual([]);
    advance();
    advance();
    expect(seen).toEqual(['1 2 192.0.2.1:500 192.0.2.2:500', '9 192.0.2.2:500']);
    expect(a.counters).toMatchObject({ sentDatagrams: 1, sentBytes: 2, receivedDatagrams: 1, receivedBytes: 1 });
  });

  it('prefers the socket bound to the address over the one bound to all', async () => {
    const { network, advance } = manualNetwork();
    const host = network.host([A, B]);
    const seen: string[] = [];
    (await host.bind({ address: ANY, port: 500 })).onDatagram(() => seen.push('any'));
    (await host.bind({ address: A, port: 500 })).onDatagram(() => seen.push('one'));
    const sender = await host.bind({ address: B, port: 0 });
    sender.send(Uint8Array.of(1), at('192.0.2.1', 500));
    sender.send(Uint8Array.of(1), at('192.0.2.2', 500));
    advance();
    expect(seen).toEqual(['one', 'any']);
    expect(sender.local.port).toBeGreaterThanOrEqual(49_152);
  });

  it('loses, repeats, delays and translates as the hook says', async () => {
    const plans: MemoryArrival[][] = [
      [],
      [{ delayMs: 20 }],
      [{ delayMs: 10 }, { delayMs: 30 }],
      [{ delayMs: 5, from: at('198.51.100.9', 1024) }],
    ];
    const { network, advance } = manualNetwork(() => plans.shift() ?? []);
    const a = await network.host([A]).bind({ address: A, port: 500 });
    const b = await network.host([B]).bind({ address: B, port: 500 });
    const seen: string[] = [];
    b.onDatagram((data, from) => seen.push(`${data[0]} ${formatSocketAddress(from)}`));
    for (let i = 0; i < 4; i++) a.send(Uint8Array.of(i), b.local);
    advance();
    expect(seen).toEqual(['3 198.51.100.9:1024', '2 192.0.2.1:500', '1 192.0.2.1:500', '2 192.0.2.1:500']);
    expect(network.inFlight).toBe(0);
  });

  it('carries DSCP and ECN, which the hook may mark', async () => {
    const plans: MemoryArrival[][] = [[{ delayMs: 0, trafficClass: 0xbb }]];
    const { network, advance } = manualNetwork(() => plans.shift() ?? [{ delayMs: 0 }]);
    const a = await network.host([A]).bind({ address: A, port: 500 });
    const b = await network.host([B]).bind({ address: B, port: 500 });
    const seen: number[] = [];
    b.onDatagram((_data, _from, _local, trafficClass) => seen.push(trafficClass));
    const batch = batchOf([10, 0, 10]);
    batch.trafficClass.set([0xba, 9, 2]);
    expect(a.sendBatch(batch, 0, 3, { to: b.local })).toBe(2);
    a.send(Uint8Array.of(1), b.local, undefined, 0x28);
    a.send(Uint8Array.of(1), b.local);
    advance();
    expect(seen).toEqual([0xbb, 2, 0x28, 0]);
  });

  it('counts what cannot be sent, and what no socket receives', async () => {
    const { network, advance } = manualNetwork();
    const host = network.host([A]);
    const a = await host.bind({ address: A, port: 500 });
    const six = await host.bind({ address: ip('::'), port: 500 });
    expect(a.send(new Uint8Array(65_508), at('192.0.2.2', 500))).toBe(false);
    expect(a.send(Uint8Array.of(1), at('2001:db8::1', 500))).toBe(false);
    expect(a.send(Uint8Array.of(1), at('192.0.2.2', 0))).toBe(false);
    expect(six.send(Uint8Array.of(1), at('2001:db8::1', 500))).toBe(false);
    expect(a.send(Uint8Array.of(1), at('192.0.2.2', 500))).toBe(true);
    advance();
    expect(network.undelivered).toBe(1);
    await a.close();
    expect(a.send(Uint8Array.of(1), at('192.0.2.2', 500))).toBe(false);
    expect(a.counters.sendErrors).toMatchObject({ EMSGSIZE: 1, 'wrong-family': 1, other: 1, closed: 1 });
    expect(six.counters.sendErrors.ENETUNREACH).toBe(1);
  });

  it('sends from the address that it is told, when bound to all and it has that address', async () => {
    const { network, advance } = manualNetwork();
    const third = ip('192.0.2.3');
    const any = await network.host([A, third]).bind({ address: ip('0.0.0.0'), port: 500 });
    const b = await network.host([B]).bind({ address: B, port: 500 });
    const seen: string[] = [];
    b.onDatagram((data, from, local) => seen.push(`${data[0]} ${[from, local].map(formatSocketAddress).join(' ')}`));
    expect(any.send(Uint8Array.of(1), b.local)).toBe(true);
    expect(any.send(Uint8Array.of(2), b.local, at('192.0.2.3', 500))).toBe(true);
    expect(any.send(Uint8Array.of(3), b.local, at('192.0.2.4', 500))).toBe(false);
    advance();
    expect(seen).toEqual(['1 192.0.2.1:500 192.0.2.2:500', '2 192.0.2.3:500 192.0.2.2:500']);
    expect(any.counters.sendErrors.EADDRNOTAVAIL).toBe(1);
  });

  it('refuses a port in use, a foreign address, and an address that another host has', async () => {
    const { network } = manualNetwork();
    const host = network.host([A]);
    const first = await host.bind({ address: A, port: 500 });
    await expect(host.bind({ address: A, port: 500 })).rejects.toThrow('in use');
    await expect(host.bind({ address: B, port: 500 })).rejects.toThrow('not one of this host');
    expect(() => network.host([A])).toThrow('one host');
    await first.close();
    const second = await host.bind({ address: A, port: 500 });
    await first.close();
    await expect(host.bind({ address: A, port: 500 })).rejects.toThrow('in use');
    await second.close();
  });
});

describe('lossyRoute', () => {
  it('is what its random numbers make it', () => {
    const numbers = [0.05, 0.5, 0.3, 0.25, 0.5, 0.5, 0.9, 0.125];
    const route = lossyRoute({
      random: () => numbers.shift()!,
      loss: 0.1,
      duplicate: 0.4,
      minDelayMs: 10,
      maxDelayMs: 20,
    });
    expect(route()).toEqual([]);
    expect(route()).toEqual([{ delayMs: 12.5 }, { delayMs: 15 }]);
    expect(route()).toEqual([{ delayMs: 11.25 }]);
    expect(numbers).toEqual([]);
  });
});
