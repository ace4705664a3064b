/**
 * The seed's own document against strongSwan: IKE and ESP both on UDP 55055, selectors of port 5000 alone. With a
 * capture of the line: nothing but encapsulated IKE and ESP passes, and Wireshark finds no fault in our messages.
 */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { Capture } from '../support/lab/capture.ts';
import type { Lab } from '../support/lab/lab.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { StrongSwan } from '../support/lab/strongswan.ts';
import { burst, ping, startEcho } from '../support/lab/traffic.ts';
import type { Tunnel } from '../support/lab/tunnel.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { LINE } from './rig.ts';
import { PSK } from './suites.ts';

const PORT = 55055;
const APPLICATION_PORT = 5000;
const SECRET = '11111111-2222-3333-4444-555555555501';

/** A selector with a port cannot say `any` protocol: the document's is expanded to these. */
function withPorts(network: string): string[] {
  return ['tcp', 'udp', 'sctp'].map((protocol) => `${network}[${protocol}/${APPLICATION_PORT}]`);
}

const THEIRS: Tunnel = {
  name: 'seed',
  left: {
    address: '192.0.2.1',
    id: { type: 'address', value: '192.0.2.1' },
    inner: withPorts('10.1.0.0/30'),
    psk: PSK,
  },
  right: {
    address: '192.0.2.2',
    id: { type: 'address', value: '192.0.2.2' },
    inner: withPorts('10.2.0.0/30'),
    psk: PSK,
  },
  ike: { encryption: 'aes256gcm16', prf: 'sha384', dh: 'ecp384' },
  esp: { encryption: 'aes256gcm16', esn: 'no' },
  port: PORT,
};

describeInterop("the seed's document", ['namespaces', 'strongswan', 'tcpdump', 'tshark', 'build'], () => {
  let lab: Lab;
  let left: Namespace;
  let right: Namespace;
  let peer: StrongSwan;
  let ours: Ours;

  useLab(async (made) => {
    lab = made;
    [left, right] = [await lab.namespace('left'), await lab.namespace('right')];
    await cable(
      { namespace: left, device: LINE, addresses: ['192.0.2.1/24'] },
      { namespace: right, device: LINE, addresses: ['192.0.2.2/24'] },
    );
    await left.ip(['addr add 10.1.0.1/30 dev lo']);
    await right.ip(['addr add 10.2.0.1/30 dev lo']);
    await startEcho(lab, right, '10.2.0.1', APPLICATION_PORT);
    peer = await StrongSwan.start(lab, right, { port: PORT });
    ours = await Ours.start(lab, left);
    await ours.secret(PSK, SECRET);
  });

  for (const role of ['initiator', 'responder'] as const) {
    it(`runs as it is, as ${role}`, async () => {
      await ours.reset();
      await peer.reset();
      await peer.load(THEIRS, 'right');
      const line = await Capture.start(lab, left, LINE);
      const seed = readFileSync(new URL('../../examples/ex-seed.xml', import.meta.url), 'utf8');
      await ours.defineDocument(THEIRS.name, seed);
      const name = (await ours.status()).tunnels[0]!.name;
      await ours.command(['start', name]);
      if (role === 'responder') await peer.initiate('seed');

      // As initiator the first datagram asks for the SA, and is held until it is there.
      const datagrams = {
        source: '10.1.0.1',
        destination: '10.2.0.1',
        port: APPLICATION_PORT,
        sourcePort: APPLICATION_PORT,
      };
      const result = await burst(left, { ...datagrams, count: 20, pause: 20 });
      expect(result).toEqual({ sent: 20, received: 20, damaged: 0 });
      await ours.up(name);

      // Another port, and ping, do not enter the tunnel.
      const before = (await ours.single(name)).child.packetsOut;
      expect((await burst(left, { ...datagrams, port: APPLICATION_PORT + 1, count: 3 })).received).toBe(0);
      expect(await ping(left, { source: '10.1.0.1', destination: '10.2.0.1', count: 1 })).toBe(0);
      expect((await ours.single(name)).child.packetsOut).toBe(before);

      const [mine, its] = [await ours.single(name), await peer.single()];
      expect(mine.ike.initiator).toBe(role === 'initiator');
      expect([its.child.packetsIn, its.child.packetsOut]).toEqual([mine.child.packetsOut, mine.child.packetsIn]);
      await line.stop();
      expect(await line.packets(`ip and not (udp and src port ${PORT} and dst port ${PORT})`)).toEqual([]);
      const asEncapsulated = ['-d', `udp.port==${PORT},udpencap`];
      expect((await line.frames('isakmp', asEncapsulated)).length).toBeGreaterThanOrEqual(4);
      expect((await line.frames('esp', asEncapsulated)).length).toBeGreaterThanOrEqual(40);
      expect(await line.frames('_ws.malformed || _ws.expert.severity == error', asEncapsulated)).toEqual([]);
    });
  }
});
