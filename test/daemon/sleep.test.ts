import { describe, expect, it } from 'vitest';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { address, eventually, oppositeDocument, TestDaemon, tunnelDocument } from '../support/daemon.ts';

async function pair(words: { esp?: string } = {}): Promise<{ left: TestDaemon; right: TestDaemon }> {
  const network = new MemoryNetwork();
  const left = await TestDaemon.start(network.host([address('192.0.2.1')]));
  const right = await TestDaemon.start(network.host([address('192.0.2.2')]));
  for (const daemon of [left, right]) await daemon.giveSecret();
  await right.client.call('create', { xml: oppositeDocument({ start: 'respond' }) });
  await left.client.call('create', { xml: tunnelDocument({ start: 'initiate', ...words }) });
  await eventually('the tunnel is up', async () => (await ikeSpis(left)).length === 1 && (await state(left)) === 'up');
  return { left, right };
}

async function status(daemon: TestDaemon) {
  return (await daemon.client.call('status', { name: 'net' })).tunnels[0]!;
}

async function state(daemon: TestDaemon): Promise<string> {
  return (await status(daemon)).state;
}

async function ikeSpis(daemon: TestDaemon): Promise<string[]> {
  return (await status(daemon)).ikeSas.filter(({ state: s }) => s === 'established').map((sa) => sa.spiInitiator);
}

describe('a host that slept', () => {
  it('asks its peers at once, and keeps an SA whose peer answers', async () => {
    const { left } = await pair();
    const before = await ikeSpis(left);
    const heard = async (): Promise<number> => (await status(left)).ikeSas[0]!.lastHeard!;
    left.sleep(60_000);
    await eventually('the peer answers', async () => (await heard()) < 30);
    expect(await ikeSpis(left)).toEqual(before);
    expect(left.lines.map(({ text }) => text)).toContain('this host slept for 60 s: checking that all peers are alive');
  });

  it('has another SA in seconds when its peer forgot it meanwhile', async () => {
    const { left, right } = await pair();
    const before = await ikeSpis(left);
    // Its deletion of the SA does not reach a host that sleeps.
    right.daemon.runner.host.engine.pollTransmit = () => undefined;
    await right.close();
    await right.open();
    left.sleep(60_000);
    await eventually('another IKE SA', async () => {
      const now = await ikeSpis(left);
      return now.length === 1 && now[0] !== before[0] && (await state(left)) === 'up';
    });
  }, 40_000);

  it('replaces an SA whose lifetime went by while it slept', async () => {
    const { left } = await pair({ esp: "<lifetime soft='300' hard='400' jitter='0'/>" });
    const spi = async (): Promise<string | undefined> => (await status(left)).ikeSas[0]?.children[0]?.spiIn;
    const before = await spi();
    left.sleep(500_000);
    await eventually('another CHILD SA', async () => {
      const now = await spi();
      return now !== undefined && now !== before && (await state(left)) === 'up';
    });
  });
});
