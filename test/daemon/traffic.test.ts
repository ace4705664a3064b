import { describe, expect, it } from 'vitest';
import { makeUdpPacket } from '../../examples/packet.ts';
import type { TunnelEvent } from '../../src/control/results.ts';
import type { TunnelStatus } from '../../src/host/status.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import {
  address,
  type DocumentWords,
  eventually,
  oppositeDocument,
  TestDaemon,
  tunnelDocument,
} from '../support/daemon.ts';

interface Pair {
  readonly left: TestDaemon;
  readonly right: TestDaemon;
}

async function pair(
  leftWords: DocumentWords = {},
  rightWords: DocumentWords = {},
  secrets = ['key', 'key'],
): Promise<Pair> {
  const network = new MemoryNetwork();
  const left = await TestDaemon.start(network.host([address('192.0.2.1')]));
  const right = await TestDaemon.start(network.host([address('192.0.2.2')]));
  await left.giveSecret(secrets[0]);
  await right.giveSecret(secrets[1]);
  await right.client.call('create', { xml: oppositeDocument(rightWords) });
  await left.client.call('create', { xml: tunnelDocument(leftWords) });
  return { left, right };
}

async function statusOf(test: TestDaemon): Promise<TunnelStatus> {
  const { tunnels } = await test.client.call('status', { name: 'net' });
  return tunnels[0]!;
}

function device(test: TestDaemon): ReturnType<TestDaemon['devices']['get']> & object {
  return [...test.devices.values()][0]!;
}

const packet = makeUdpPacket({
  source: '10.1.0.1',
  sourcePort: 1000,
  destination: '10.2.0.1',
  destinationPort: 2000,
  text: 'hello',
});
const reply = makeUdpPacket({
  source: '10.2.0.1',
  sourcePort: 2000,
  destination: '10.1.0.1',
  destinationPort: 1000,
  text: 'yourself',
});

describe('two daemons', () => {
  it('hold the first packet until the SA is up, carry traffic both ways and agree on the counters', async () => {
    const { left, right } = await pair();
    expect((await statusOf(left)).state).toBe('waiting');
    device(left).inject(packet);
    const arrived: Uint8Array[] = [];
    await eventually('the first packet', () => arrived.push(...device(right).takeDelivered()) > 0);
    expect(arrived[0]).toEqual(new Uint8Array(packet));
    device(right).inject(reply);
    await eventually('the reply', () => device(left).takeDelivered().length > 0);

    const [a, b] = [await statusOf(left), await statusOf(right)];
    expect([a.state, b.state]).toEqual(['up', 'up']);
    const [childA, childB] = [a.ikeSas[0]!.children[0]!, b.ikeSas[0]!.children[0]!];
    expect(childA).toMatchObject({ name: 'lan', encapsulated: true, packetsOut: 1, packetsIn: 1, narrowed: false });
    expect(childB).toMatchObject({ packetsOut: 1, packetsIn: 1, bytesIn: packet.length, bytesOut: reply.length });
    expect([childA.spiIn, childA.spiOut]).toEqual([childB.spiOut, childB.spiIn]);
    expect(childA.localSelectors).toEqual(['10.1.0.0/24']);
    expect(a.drops).toEqual({});
  });

  it('tell listeners what happens, and the peer when they stop', async () => {
    const { left, right } = await pair({ start: 'initiate' });
    await eventually('the tunnel', async () => (await statusOf(right)).state === 'up');
    const events: TunnelEvent[] = [];
    right.client.onEvent = (event) => events.push(event);
    await right.client.call('event', {});
    await left.client.call('destroy', { name: 'net' });
    await eventually('the deletion', async () => (await statusOf(right)).ikeSas.length === 0);
    expect(events.map(({ event }) => event)).toEqual(expect.arrayContaining(['child-down', 'ike-down']));
  });

  it('drop what no policy speaks of, and count it', async () => {
    const { left } = await pair();
    device(left).inject(
      makeUdpPacket({ source: '10.1.0.1', sourcePort: 1, destination: '10.9.0.1', destinationPort: 2, text: 'x' }),
    );
    await eventually('the drop', async () => (await statusOf(left)).drops['no-policy'] === 1);
    expect((await statusOf(left)).state).toBe('waiting');
  });

  it('say which identities met when the keys differ, and go on trying', async () => {
    const { left, right } = await pair({ start: 'initiate' }, {}, ['one key', 'another key']);
    await eventually('the failure', async () => (await statusOf(left)).lastFailure !== undefined);
    const { lastFailure, retryIn } = await statusOf(left);
    expect(lastFailure?.reason).toBe('AUTHENTICATION_FAILED');
    expect(lastFailure?.detail).toContain('192.0.2.1');
    expect(lastFailure?.detail).toContain('192.0.2.2');
    expect(retryIn).toBeGreaterThan(0);
    const said = [...left.lines, ...right.lines].map(({ text }) => text).join('\n');
    expect(said).not.toContain('one key');
    expect(right.lines.some(({ text }) => text.includes('AUTHENTICATION_FAILED') && text.includes('192.0.2.1'))).toBe(
      true,
    );
  });

  it("name the identity of a peer that is not the document's", async () => {
    const { left, right } = await pair({ start: 'initiate' }, { remoteId: 'gw9.example.org' });
    await eventually('the failure', async () => (await statusOf(right)).lastFailure !== undefined);
    const { lastFailure } = await statusOf(right);
    expect(lastFailure?.reason).toBe('AUTHENTICATION_FAILED');
    expect(lastFailure?.detail).toBe(
      'the peer identifies itself as address 192.0.2.1 and asks for address 192.0.2.2; no connection matches these identities: connection net is for fqdn gw9.example.org',
    );
    expect((await statusOf(left)).lastFailure?.reason).toBe('AUTHENTICATION_FAILED');
  });

  it('show both lists when no proposal fits', async () => {
    const { left, right } = await pair(
      { start: 'initiate', ike: "<proposal encryption='aes256gcm16' prf='sha384' dh='ecp384'/>" },
      { ike: "<proposal encryption='aes128' integrity='sha256' dh='x25519'/>" },
    );
    await eventually('the failure', async () => (await statusOf(left)).lastFailure !== undefined, 20_000);
    expect((await statusOf(left)).lastFailure?.reason).toBe('NO_PROPOSAL_CHOSEN');
    const { lastFailure } = await statusOf(right);
    expect(lastFailure?.reason).toBe('NO_PROPOSAL_CHOSEN');
    expect(lastFailure?.detail).toContain('aes256gcm16');
    expect(lastFailure?.detail).toContain('aes128');
  }, 30_000);

  it('show both sides when no selector fits', async () => {
    const { left, right } = await pair({ start: 'initiate' }, { inner: ['10.7.0.0', '10.8.0.0'] });
    await eventually('the failure', async () => (await statusOf(left)).lastFailure !== undefined);
    expect((await statusOf(left)).lastFailure?.reason).toBe('TS_UNACCEPTABLE');
    expect((await statusOf(right)).lastFailure?.detail).toMatch(
      /10\.1\.0\.0\/24[\s\S]*10\.8\.0\.0\/24|10\.8\.0\.0\/24[\s\S]*10\.1\.0\.0\/24/,
    );
  });

  it('count garbage by reason, stay up and keep the log short', async () => {
    const { left, right } = await pair({ start: 'initiate' });
    await eventually('the tunnel', async () => (await statusOf(right)).state === 'up');
    const socket = [...left.daemon.runner.host.sockets.sockets()].find(({ local }) => local.port === 4500)!;
    const to = { address: address('192.0.2.2'), port: 4500 };
    const before = right.lines.length;
    for (let i = 0; i < 500; i++) {
      const length = i % 64;
      socket.send(new Uint8Array(length).fill(i), to);
      socket.send(new Uint8Array([0, 0, 0, 0, ...new Uint8Array(length).fill(i)]), to);
    }
    await eventually('garbage of both kinds', async () => {
      const { counters } = await right.client.call('status', {});
      const malformed = Object.entries(counters).some(([reason, count]) => reason.startsWith('malformed') && count > 0);
      return malformed && (counters['esp-unknown-spi'] ?? 0) > 100;
    });
    expect(right.lines.length - before).toBeLessThan(50);
    device(left).inject(packet);
    await eventually('a packet after the flood', () => device(right).takeDelivered().length === 1);
  });
});
