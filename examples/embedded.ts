/**
 * Two ends of a tunnel in one process, without root: devices and network in memory, the seed's document for one end
 * and its mirror image for the other. A program that embeds sectunnel does one half of this, with `nodeUdp` for the
 * network and a device of its own.
 *
 *   npm run build && node build/examples/embedded.js
 */
import { readFileSync } from 'node:fs';
import {
  type IpAddress,
  nodeProvider,
  parseAddress,
  parseDocument,
  planTunnel,
  TunnelHost,
  type UdpNetwork,
  utf8,
} from 'sectunnel';
import { combineProviders, nobleProvider } from 'sectunnel/crypto';
import type { EngineEvent } from 'sectunnel/engine';
import { MemoryDevice, MemoryNetwork } from 'sectunnel/testing';
import { makeUdpPacket, readUdpPacket } from './packet.ts';

const seed = readFileSync(new URL('../../examples/ex-seed.xml', import.meta.url), 'utf8');
/** What goes out here comes in there. */
const mirrored = seed.replace(/'(in|out)'/g, (_, direction) => (direction === 'in' ? "'out'" : "'in'"));

function address(text: string): IpAddress {
  const parsed = parseAddress(text);
  if (parsed === undefined) throw new Error(`not an address: ${text}`);
  return parsed;
}

/** One end: a host that runs the document's tunnel on a device of this program. */
async function startEnd(
  name: string,
  xml: string,
  network: UdpNetwork,
): Promise<{ host: TunnelHost; device: MemoryDevice }> {
  const { tunnel, device: wanted } = await planTunnel(await parseDocument(xml, { source: 'ex-seed.xml' }));
  const device = new MemoryDevice({ mtu: wanted.mtu });
  const host = new TunnelHost({
    network,
    crypto: combineProviders(nodeProvider, nobleProvider),
    secretFor: () => utf8('the pre-shared key of the example'),
    onEvent: (event: EngineEvent) => console.log(`${name}: ${event.type}`),
  });
  await host.add(tunnel, device);
  return { host, device };
}

/** The next packet that comes out of the tunnel. */
function delivered(device: MemoryDevice): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const patience = setTimeout(() => reject(new Error('nothing came out of the tunnel')), 10_000);
    device.onDelivered((packet) => {
      clearTimeout(patience);
      resolve(packet);
    });
  });
}

const network = new MemoryNetwork();
const left = await startEnd('left', seed, network.host([address('192.0.2.1')]));
const right = await startEnd('right', mirrored, network.host([address('192.0.2.2')]));

const arrived = delivered(right.device);
left.device.inject(
  makeUdpPacket({
    source: '10.1.0.1',
    sourcePort: 5000,
    destination: '10.2.0.1',
    destinationPort: 5000,
    text: 'hello',
  }),
);
const question = readUdpPacket(await arrived);
console.log(`right received '${question.text}' from ${question.source} port ${question.sourcePort}`);

const answered = delivered(left.device);
right.device.inject(
  makeUdpPacket({
    source: '10.2.0.1',
    sourcePort: 5000,
    destination: '10.1.0.1',
    destinationPort: 5000,
    text: 'hello yourself',
  }),
);
const answer = readUdpPacket(await answered);
console.log(`left received '${answer.text}' from ${answer.source} port ${answer.sourcePort}`);

await left.host.close();
await right.host.close();
console.log('both ends are closed');
