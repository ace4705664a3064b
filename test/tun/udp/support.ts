/** What the tests of UDP sockets share. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type IpAddress, parseAddress, type SocketAddress } from '../../../src/base/address.ts';
import { PacketBatch } from '../../../src/base/batch.ts';
import { hasLinuxUdp, linuxUdp } from '../../../src/tun/udp/linux.ts';
import { nodeUdp } from '../../../src/tun/udp/node.ts';
import type { UdpBindOptions, UdpNetwork, UdpSocket } from '../../../src/tun/udp/udp.ts';

export const ip = (text: string): IpAddress => parseAddress(text)!;

/** Every way to the system that this machine has. */
export const networks: readonly (readonly [string, UdpNetwork])[] = [
  ['dgram', nodeUdp],
  ...(hasLinuxUdp()
    ? ([
        ['system calls', linuxUdp()],
        ['system calls without GSO and GRO', linuxUdp({ gro: false, gso: false })],
      ] as const)
    : []),
];

/** Sockets of a test, to be closed at its end. */
export class Sockets {
  readonly #open: UdpSocket[] = [];

  async bind(network: UdpNetwork, address: string, options: Partial<UdpBindOptions> = {}): Promise<UdpSocket> {
    const socket = await network.bind({ address: ip(address), port: 0, ...options });
    this.#open.push(socket);
    return socket;
  }

  async close(): Promise<void> {
    for (const socket of this.#open.splice(0)) await socket.close();
  }
}

export interface Arrival {
  readonly data: Uint8Array;
  readonly from: SocketAddress;
  readonly local: SocketAddress;
  readonly trafficClass: number;
}

/** The next `count` datagrams that come to a socket. */
export function arrivals(socket: UdpSocket, count: number): Promise<Arrival[]> {
  return new Promise((resolve) => {
    const seen: Arrival[] = [];
    socket.onDatagram((data, from, local, trafficClass) => {
      seen.push({ data: data.slice(), from, local, trafficClass });
      if (seen.length === count) resolve(seen);
    });
  });
}

export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await sleep(2);
}

/** Packets of these lengths, each of bytes that tell which one it is; 0 for a slot that was dropped. */
export function batchOf(lengths: readonly number[]): PacketBatch {
  const batch = new PacketBatch(lengths.length, Math.max(...lengths));
  for (const [slot, length] of lengths.entries()) {
    batch.claim(length);
    batch.packet(slot).set(payload(slot, length));
  }
  return batch;
}

export function payload(slot: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, at) => (slot * 31 + at * 7) & 0xff);
}

export function sendErrors(socket: UdpSocket): Record<string, number> {
  return Object.fromEntries(Object.entries(socket.counters.sendErrors).filter(([, count]) => count > 0));
}
