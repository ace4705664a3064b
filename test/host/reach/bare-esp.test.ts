/** ESP directly over IP for SAs in UDP: found by SPI and sender, from sockets that are open only while it is missing. */
import { describe, expect, it } from 'vitest';
import { type IpFamily, NO_PORT, parseAddress, type SocketAddress } from '../../../src/base/address.ts';
import { BareEsp, type MissingEsp } from '../../../src/host/reach/bare-esp.ts';
import type { DatagramHandler, UdpSocket } from '../../../src/tun/udp/udp.ts';

const end = (address: string): SocketAddress => ({ address: parseAddress(address)!, port: NO_PORT });
const missing = (spiIn: number, peer = '192.0.2.2'): MissingEsp => ({ spiIn, path: { remote: end(peer) } });

class Network {
  readonly opened: IpFamily[] = [];
  closed = 0;
  readonly found: number[] = [];
  #handler: DatagramHandler = () => undefined;
  readonly bare: BareEsp<MissingEsp>;

  constructor(refused = false) {
    const open = async (family: IpFamily): Promise<UdpSocket> => {
      this.opened.push(family);
      if (refused) throw new Error('no capability CAP_NET_RAW');
      const socket: Pick<UdpSocket, 'onDatagram' | 'close'> = {
        onDatagram: (handler) => {
          this.#handler = handler;
        },
        close: async () => {
          this.closed++;
          this.#handler = () => undefined;
        },
      };
      return socket as UdpSocket;
    };
    this.bare = new BareEsp(open, ({ spiIn }) => void this.found.push(spiIn));
  }

  async watch(...sas: MissingEsp[]): Promise<void> {
    this.bare.watch(sas);
    await new Promise(setImmediate);
  }

  comes(spi: number, from = '192.0.2.2'): void {
    const data = new Uint8Array(16);
    new DataView(data.buffer).setUint32(0, spi);
    this.#handler(data, end(from), end('192.0.2.1'), 0);
  }
}

describe('ESP directly over IP for an SA in UDP', () => {
  it('is found by its SPI and sender, once', async () => {
    const network = new Network();
    await network.watch(missing(0xf000_0001), missing(0x1002));
    for (const spi of [0xf000_0001, 0xf000_0001, 0x1003]) network.comes(spi);
    network.comes(0x1002, '192.0.2.3');
    expect([network.opened, network.found]).toEqual([[4], [0xf000_0001]]);
  });

  it('is looked for only while packets are missing, in the family of the peer', async () => {
    const network = new Network();
    await network.watch();
    expect(network.opened).toEqual([]);
    await network.watch(missing(1, '2001:db8::2'));
    await network.watch(missing(1, '2001:db8::2'));
    await network.watch();
    expect([network.opened, network.closed]).toEqual([[6], 1]);
    network.bare.watch([missing(1)]);
    network.bare.close();
    await network.watch(missing(1));
    expect([network.opened, network.closed]).toEqual([[6, 4], 2]);
  });

  it('costs a bounded number of packets between two looks', async () => {
    const network = new Network();
    await network.watch(missing(0x1001));
    for (let n = 0; n < 1_000; n++) network.comes(0x2000);
    network.comes(0x1001);
    expect([network.closed, network.found]).toEqual([1, []]);
    await network.watch(missing(0x1001));
    network.comes(0x1001);
    expect(network.found).toEqual([0x1001]);
  });

  it('is not seen where the system gives no such socket, and is asked for once', async () => {
    const network = new Network(true);
    await network.watch(missing(1));
    await network.watch(missing(1));
    expect([network.opened, network.found]).toEqual([[4], []]);
  });
});
