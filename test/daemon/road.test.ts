/** A daemon with a wildcard tunnel, and daemons that call it. */
import { describe, expect, it } from 'vitest';
import type { TunnelEvent } from '../../src/control/results.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { address, eventually, oppositeDocument, TestDaemon, tunnelDocument } from '../support/daemon.ts';

async function eventsOf({ client }: TestDaemon): Promise<readonly TunnelEvent[]> {
  const events: TunnelEvent[] = [];
  client.onEvent = (event) => events.push(event);
  await client.call('event', {});
  return events;
}

const open = tunnelDocument({ remote: 'any', start: 'respond', inner: ['10.1.0.0', '10.2.0.0'] });

describe('a wildcard tunnel with a pre-shared key', () => {
  it('gives inner addresses to one peer, and reports why the other gets none', async () => {
    const network = new MemoryNetwork();
    const hub = await TestDaemon.start(network.host([address('192.0.2.1')]));
    const [b, x] = await Promise.all(
      ['192.0.2.2', '192.0.2.3'].map((at) => TestDaemon.start(network.host([address(at)]))),
    );
    for (const daemon of [hub, b!, x!]) await daemon.giveSecret();
    const events = { hub: await eventsOf(hub), x: await eventsOf(x!) };
    await hub.client.call('create', { xml: open });
    const status = async (daemon: TestDaemon) => (await daemon.client.call('status', { name: 'net' })).tunnels[0]!;
    await b!.client.call('create', { xml: oppositeDocument({ start: 'initiate' }) });
    await eventually('the first peer', async () => (await status(b!)).state === 'up');
    await x!.client.call('create', { xml: oppositeDocument({ local: '192.0.2.3', start: 'initiate' }) });
    await eventually('the refusal', async () => (await status(x!)).lastFailure !== undefined);

    const { ikeSas, lastFailure } = await status(hub);
    const owners = ikeSas.map(({ remoteId, children }) => [remoteId, children.flatMap((one) => one.remoteSelectors)]);
    expect(owners).toEqual([
      ['192.0.2.2', ['10.2.0.0/24']],
      ['192.0.2.3', []],
    ]);
    const detail =
      /^10\.2\.0\.0\/24 has belonged to 192\.0\.2\.2 \(.*\) for \d+ s; 192\.0\.2\.3 at .* asked for 10\.2\.0\.0\/24$/;
    expect(lastFailure).toMatchObject({ reason: 'TS_UNACCEPTABLE', detail: expect.stringMatching(detail) });
    expect(lastFailure!.inDocument[0]).toMatch(/^line \d+: <rule /);
    expect((await status(x!)).lastFailure).toMatchObject({ reason: 'TS_UNACCEPTABLE' });
    await x!.client.call('destroy', { name: 'net' });
    await eventually('its end', async () => (await status(hub)).ikeSas.length === 1);
    const count = (list: readonly TunnelEvent[], what: string): number =>
      list.filter(({ event }) => event === what).length;
    expect([count(events.hub, 'child-up'), count(events.hub, 'child-down')]).toEqual([1, 0]);
    // Each attempt is told of once, on both sides.
    expect(count(events.hub, 'failed')).toBe(count(events.x, 'failed'));
  });

  it('causes a warning at define, create and update, with the line and what to do', async () => {
    const daemon = await TestDaemon.start(new MemoryNetwork().host([address('192.0.2.1')]));
    await daemon.giveSecret('Zx8-qvR3_tLm9wKc7pHd2');
    for (const verb of ['define', 'create', 'update'] as const) {
      const { warnings } = await daemon.client.call(verb, { xml: open });
      expect(warnings).toEqual([
        expect.stringMatching(
          /^line 5: <remote> has no <id>, and <auth type='psk'> on line 6 gives all its peers one key/,
        ),
      ]);
    }
    const named = tunnelDocument({
      name: 'gw',
      remote: '192.0.2.9',
      remoteId: 'b.test',
      inner: ['10.1.0.0', '10.3.0.0'],
    });
    expect((await daemon.client.call('define', { xml: named })).warnings).toEqual([
      expect.stringMatching(/^line 6: the secret is also that of tunnel net, which has another peer/),
    ]);
    await daemon.client.call('undefine', { name: 'gw' });
    await daemon.client.call('destroy', { name: 'net' });
    await daemon.client.call('undefine', { name: 'net' });
    expect((await daemon.client.call('define', { xml: named })).warnings).toEqual([]);
  });
});
