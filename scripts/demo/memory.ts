/** The demo without root: both ends in this process, with devices in memory and UDP on the loopback interface. */
import {
  nodeProvider,
  nodeUdp,
  parseDocument,
  planTunnel,
  TunnelHost,
  type UdpNetwork,
  type UdpSocket,
  utf8,
} from 'sectunnel';
import { combineProviders, nobleProvider } from 'sectunnel/crypto';
import { MemoryDevice } from 'sectunnel/testing';
import { makeUdpPacket, readUdpPacket } from '../../examples/packet.ts';
import type { Checks } from './checks.ts';
import { mirror, PORT, seedDocument } from './document.ts';
import { sleep, until } from './machine.ts';
import { emptyTraffic, sortPayload, type Traffic } from './pcap.ts';

interface End {
  readonly name: string;
  readonly inner: string;
  readonly host: TunnelHost;
  readonly device: MemoryDevice;
}

export async function memoryDemo(checks: Checks): Promise<void> {
  // The documentation addresses of the seed are no addresses of this machine; those of the loopback interface are.
  const seed = seedDocument().replaceAll('192.0.2.', '127.0.0.');
  const traffic = emptyTraffic();
  checks.step('two ends, 127.0.0.1 and 127.0.0.2, with the document of 2011 and its mirror image');
  checks.show(seed);
  const left = await startEnd('left', '10.1.0.1', seed, traffic);
  const right = await startEnd('right', '10.2.0.1', mirror(seed), traffic);
  try {
    await run(checks, left, right, traffic);
  } finally {
    await left.host.close();
    await right.host.close();
  }
}

async function startEnd(name: string, inner: string, xml: string, traffic: Traffic): Promise<End> {
  const { tunnel, device: wanted } = await planTunnel(await parseDocument(xml, { source: 'ex-seed.xml' }));
  const device = new MemoryDevice({ name, mtu: wanted.mtu });
  const host = new TunnelHost({
    network: watched(traffic),
    crypto: combineProviders(nodeProvider, nobleProvider),
    secretFor: () => utf8('the pre-shared key of the demo'),
  });
  await host.add(tunnel, device);
  return { name, inner, host, device };
}

/** The real UDP sockets, with everything that they send sorted on its way. */
function watched(traffic: Traffic): UdpNetwork {
  return {
    async bind(options) {
      const socket = await nodeUdp.bind(options);
      const counted: UdpSocket = {
        local: socket.local,
        counters: socket.counters,
        features: socket.features,
        onDatagram: (handler) => socket.onDatagram(handler),
        close: () => socket.close(),
        send(data, to) {
          sortPayload(traffic, socket.local.port, to.port, data, PORT);
          return socket.send(data, to);
        },
        sendBatch(batch, first, end, { to }) {
          let sent = 0;
          for (let slot = first; slot < end; slot++) {
            if (batch.length[slot] !== 0 && counted.send(batch.packet(slot), to)) sent++;
          }
          return sent;
        },
      };
      return counted;
    },
  };
}

async function run(checks: Checks, left: End, right: End, traffic: Traffic): Promise<void> {
  checks.step('a datagram from 10.1.0.1 port 5000 to 10.2.0.1 port 5000: it brings the tunnel up, and waits for it');
  send(left, right, 5000, 'hello through the tunnel');
  const question = await received(right);
  checks.check('it comes out at the other end', question === 'hello through the tunnel', question);
  send(right, left, 5000, `echo: ${question}`);
  const answer = await received(left);
  checks.check('the exchange on port 5000 gets through', answer === 'echo: hello through the tunnel', answer);

  checks.step('a datagram from port 5000 to port 5001: the policy does not speak of it');
  const before = traffic.esp;
  send(left, right, 5001, 'this must not pass');
  await sleep(300);
  checks.check('nothing comes out at the other end', right.device.takeDelivered().length === 0);
  checks.check('it did not enter the tunnel', traffic.esp === before);

  checks.step('what was sent over UDP');
  checks.show(`IKE ${traffic.ike}, ESP ${traffic.esp}\n`);
  checks.check('IKE and ESP passed, in UDP on port 55055', traffic.ike >= 4 && traffic.esp === 2);
  checks.check('nothing else passed', traffic.other.length === 0, traffic.other.join(', '));
}

function send(from: End, to: End, port: number, text: string): void {
  const ports = { sourcePort: 5000, destinationPort: port };
  from.device.inject(makeUdpPacket({ source: from.inner, destination: to.inner, ...ports, text }));
}

async function received(end: End): Promise<string> {
  const packets: Uint8Array[] = [];
  await until(`a packet at ${end.name}`, () => {
    packets.push(...end.device.takeDelivered());
    return packets.length > 0;
  });
  return readUdpPacket(packets[0]!).text;
}
