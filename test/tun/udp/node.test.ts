/** What is dgram's own; the rest is in udp.test.ts. */
import { afterEach, expect, it } from 'vitest';
import { formatSocketAddress } from '../../../src/base/address.ts';
import { nodeUdp } from '../../../src/tun/udp/node.ts';
import { arrivals, ip, Sockets } from './support.ts';

const sockets = new Sockets();

afterEach(() => sockets.close());

it('reports the looked-up local address when bound to all, asking once for a peer', async () => {
  let asked = 0;
  const a = await sockets.bind(nodeUdp, '127.0.0.1');
  const b = await sockets.bind(nodeUdp, '0.0.0.0', {
    sourceFor: () => {
      asked++;
      return ip('127.0.0.1');
    },
  });
  const received = arrivals(b, 3);
  for (let i = 0; i < 3; i++) a.send(Uint8Array.of(i), { address: ip('127.0.0.1'), port: b.local.port });
  for (const arrival of await received) {
    expect(formatSocketAddress(arrival.local)).toBe(`127.0.0.1:${b.local.port}`);
  }
  expect(asked).toBe(1);
});
