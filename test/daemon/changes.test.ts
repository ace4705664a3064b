/** Changes of different tunnels happen at the same time, those of one in order, and none starts beside what claims its packets. */
import { expect, it } from 'vitest';
import { DaemonClient } from '../../src/control/client.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { address, eventually, TestDaemon, tunnelDocument } from '../support/daemon.ts';

async function daemon(): Promise<TestDaemon> {
  const test = await TestDaemon.start(new MemoryNetwork().host([address('192.0.2.1')]));
  await test.giveSecret();
  return test;
}

it('tunnels start at the same time, and a change of one waits for the change of it before', async () => {
  const test = await daemon();
  for (const [at, name] of ['a', 'b'].entries()) {
    await test.client.call('define', { xml: tunnelDocument({ name, inner: ['10.1.0.0', `10.${2 + at}.0.0`] }) });
  }
  let release: () => void = () => undefined;
  test.devicesFrom = new Promise((resolve) => {
    release = resolve;
  });
  const { changes } = test.daemon;
  const ended: string[] = [];
  const all = [changes.start('a'), changes.start('b'), changes.destroy('a'), changes.undefine('a')].map((change, at) =>
    change.then(() => ended.push(['start a', 'start b', 'destroy a', 'undefine a'][at]!)),
  );
  await eventually('both to be opened', () => test.told.includes('open a') && test.told.includes('open b'));
  // What changes nothing does not wait for them.
  expect((await test.client.call('list', {})).tunnels).toHaveLength(2);
  expect((await test.client.call('status', { name: 'b' })).tunnels[0]?.state).toBe('inactive');
  release();
  await Promise.all(all);
  expect(ended.filter((what) => what.endsWith(' a'))).toEqual(['start a', 'destroy a', 'undefine a']);
  expect((await test.client.call('list', {})).tunnels.map(({ name }) => name)).toEqual(['b']);
});

it('of two tunnels that claim the same packets one starts, also when both are asked for at once', async () => {
  const test = await daemon();
  const clients = [test.client, await DaemonClient.connect(test.runDir)];
  for (const name of ['a', 'b']) {
    await test.client.call('define', { xml: tunnelDocument({ name }) });
  }
  const results = await Promise.allSettled(['a', 'b'].map((name, at) => clients[at]!.call('start', { name })));
  clients[1]!.close();
  expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
  const refused = results.find((result) => result.status === 'rejected');
  expect(String(refused?.reason)).toContain('protects the same packets');
});

it('define, start and the log warn of a network of the host within protected destinations', async () => {
  const test = await daemon();
  const linkIndex = test.hostNetwork.addLink('eth7', 1500);
  test.hostNetwork.addAddress({ linkIndex, address: address('10.2.0.9'), prefixLength: 28 });
  const warning = expect.stringMatching(
    /^line \d+: <sp name='lan'>: the network 10\.2\.0\.0\/28 of this host \(eth7\)/,
  );
  const defined = await test.client.call('define', { xml: tunnelDocument() });
  expect(defined.warnings).toContainEqual(warning);
  expect((await test.client.call('start', { name: 'net' })).warnings).toContainEqual(warning);
  expect(test.lines.filter(({ text }) => text.includes('the network 10.2.0.0/28'))).toHaveLength(1);
});
