import { expect, it } from 'vitest';
import { formatStatus } from '../../src/cli/format.ts';
import type { TunnelStatus } from '../../src/host/status.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { address, eventually, oppositeDocument, TestDaemon, tunnelDocument } from '../support/daemon.ts';

interface Both {
  readonly left: TestDaemon;
  readonly right: TestDaemon;
  readonly status: () => Promise<TunnelStatus>;
  /** From now on nothing arrives. */
  readonly cut: () => void;
}

async function pair(): Promise<Both> {
  let isCut = false;
  const network = new MemoryNetwork({ route: () => (isCut ? [] : [{ delayMs: 0 }]) });
  const left = await TestDaemon.start(network.host([address('192.0.2.1')]));
  const right = await TestDaemon.start(network.host([address('192.0.2.2')]));
  for (const test of [left, right]) await test.giveSecret();
  const status = async (): Promise<TunnelStatus> => (await left.client.call('status', { name: 'net' })).tunnels[0]!;
  const cut = (): void => {
    isCut = true;
  };
  return { left, right, status, cut };
}

it('an IKE SA that the tunnel before had, and that is being deleted, is none of the new one', async () => {
  const { left, right, status, cut } = await pair();
  await right.client.call('create', { xml: oppositeDocument() });
  await left.client.call('define', { xml: tunnelDocument({ start: 'initiate' }) });
  await left.client.call('start', { name: 'net' });
  await eventually('the tunnel', async () => (await status()).state === 'up');
  const [old] = (await status()).ikeSas;
  // Nobody answers the deletion.
  cut();
  await left.client.call('destroy', { name: 'net' });
  await left.client.call('start', { name: 'net' });
  const deleting = left.daemon.runner.host.engine.ike.status().filter(({ state }) => state === 'deleting');
  expect(deleting.map(({ id }) => id)).toEqual([old!.id]);
  const { ikeSas, state } = await status();
  expect(ikeSas.map(({ id }) => id)).not.toContain(old!.id);
  expect(state).toBe('connecting');
});

it('what the peer requests and cannot have stands in status, and once in the log', async () => {
  const { left, right } = await pair();
  const transport = (xml: string): string => xml.replace("mode='tunnel'", "mode='transport'");
  // Both hosts' own addresses, as transport mode wants them.
  const hosts = (xml: string): string =>
    xml
      .replace(/<(src|dst)_range address='10.1.0.0' prefixlen='24'/, "<$1_range address='192.0.2.1' prefixlen='32'")
      .replace(/<(src|dst)_range address='10.2.0.0' prefixlen='24'/, "<$1_range address='192.0.2.2' prefixlen='32'");
  await left.client.call('create', { xml: hosts(tunnelDocument({ start: 'respond' })) });
  await right.client.call('create', { xml: transport(hosts(oppositeDocument({ start: 'initiate' }))) });
  const said = 'the peer requests transport mode';
  await eventually('it', async () => formatStatus(await left.client.call('status', {})).includes(said), 10_000);
  expect(left.lines.filter(({ text }) => text.startsWith(said))).toHaveLength(1);
});
