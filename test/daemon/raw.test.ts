/** What a document says of NAT traversal, and the sockets that daemons open for it. */
import { describe, expect, it } from 'vitest';
import { makeUdpPacket } from '../../examples/packet.ts';
import { formatSocketAddress } from '../../src/base/address.ts';
import type { ChildStatus } from '../../src/host/status.ts';
import { type MemoryHost, MemoryNetwork } from '../../src/tun/udp/memory.ts';
import type { UdpNetwork, UdpSocket } from '../../src/tun/udp/udp.ts';
import { address, eventually, oppositeDocument, TestDaemon, tunnelDocument } from '../support/daemon.ts';

const packet = makeUdpPacket({
  source: '10.1.0.1',
  sourcePort: 1000,
  destination: '10.2.0.1',
  destinationPort: 2000,
  text: 'hello',
});

/** Keeps the names of the sockets that are open. */
function watched(host: MemoryHost): { network: UdpNetwork; open: Set<string> } {
  const open = new Set<string>();
  const watch = (name: string, socket: UdpSocket): UdpSocket => {
    open.add(name);
    const close = socket.close.bind(socket);
    socket.close = () => {
      open.delete(name);
      return close();
    };
    return socket;
  };
  const network: UdpNetwork = {
    bind: async (options) => watch(formatSocketAddress(options), await host.bind(options)),
    rawEsp: async (family) => watch(`ESP over IPv${family}`, await host.rawEsp(family)),
  };
  return { network, open };
}

const UDP = ['192.0.2.1:500', '192.0.2.1:4500'];

describe('NAT traversal of a document', () => {
  it.each([
    ['', UDP, true],
    ["<nat traversal='force'/>", UDP, true],
    ["<nat encapsulation='needed'/>", [...UDP, 'ESP over IPv4'], false],
    ["<nat traversal='off'/>", ['192.0.2.1:500', 'ESP over IPv4'], false],
  ])('%s says how ESP goes, and which sockets that takes', async (ike, sockets, encapsulated) => {
    const memory = new MemoryNetwork();
    const { network, open } = watched(memory.host([address('192.0.2.1')]));
    const left = await TestDaemon.start(network);
    const right = await TestDaemon.start(memory.host([address('192.0.2.2')]));
    for (const test of [left, right]) await test.giveSecret();
    await right.client.call('create', { xml: oppositeDocument({ ike: "<nat encapsulation='needed'/>" }) });
    await left.client.call('create', { xml: tunnelDocument({ ike }) });
    expect([...open]).toEqual(sockets);

    left.devices.values().next().value!.inject(packet);
    const device = right.devices.values().next().value!;
    await eventually('the packet', () => device.takeDelivered().length > 0);
    const children: ChildStatus[] = [];
    for (const { client } of [left, right]) {
      const { tunnels } = await client.call('status', { name: 'net' });
      children.push(tunnels[0]!.ikeSas[0]!.children[0]!);
    }
    expect(children.map((child) => child.encapsulated)).toEqual([encapsulated, encapsulated]);
    await left.client.call('destroy', { name: 'net' });
    expect([...open]).toEqual([]);
  });

  it('that needs ESP straight over IP is refused where there is no such thing; where it may be, UDP serves', async () => {
    const host = new MemoryNetwork().host([address('192.0.2.1')]);
    const network: UdpNetwork = { bind: (options) => host.bind(options) };
    const test = await TestDaemon.start(network);
    await test.giveSecret();
    const { client } = test;
    const off = tunnelDocument({ ike: "<nat traversal='off'/>" });
    await expect(client.call('create', { xml: off })).rejects.toThrow(
      /<nat traversal='off'> in <ike> on line 7: this host can carry ESP only in UDP/,
    );
    await client.call('create', { xml: tunnelDocument({ ike: "<nat encapsulation='needed'/>" }) });
  });
});
