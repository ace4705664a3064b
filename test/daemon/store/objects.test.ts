import { existsSync, lstatSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { SectunnelError } from '../../../src/base/error.ts';
import { MemoryNetwork } from '../../../src/tun/udp/memory.ts';
import { address, eventually, TestDaemon, temporaryFolder, tunnelDocument } from '../../support/daemon.ts';
import { timersByHand } from '../../support/timers.ts';

function host(): ReturnType<MemoryNetwork['host']> {
  return new MemoryNetwork().host([address('192.0.2.1')]);
}

async function refusal(call: Promise<unknown>): Promise<SectunnelError> {
  try {
    await call;
  } catch (error) {
    if (error instanceof SectunnelError) return error;
    throw error;
  }
  throw new Error('it was not refused');
}

describe('definitions', () => {
  it('are kept in files that only the owner reads, and survive a restart', async () => {
    const folder = temporaryFolder();
    const first = new TestDaemon(host(), folder);
    await first.open();
    const { uuid } = await first.client.call('define', { xml: tunnelDocument() });
    const dumped = (await first.client.call('dumpxml', { name: 'net', inactive: false })).xml;
    await first.client.call('autostart', { name: 'net', enable: true });
    await first.close();

    const file = join(first.configDir, 'net.xml');
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(readFileSync(file, 'utf8')).toBe(dumped);
    expect(readlinkSync(join(first.configDir, 'autostart', 'net.xml'))).toBe('../net.xml');

    const second = await TestDaemon.start(host(), folder);
    expect((await second.client.call('info', { name: uuid })).name).toBe('net');
    expect((await second.client.call('dumpxml', { name: 'net', inactive: true })).xml).toBe(dumped);
  });

  it('keep their UUID when the tunnel is defined anew without one', async () => {
    const { client } = await TestDaemon.start(host());
    const first = await client.call('define', { xml: tunnelDocument() });
    const second = await client.call('define', { xml: tunnelDocument({ start: 'initiate' }) });
    expect(second.uuid).toBe(first.uuid);
    expect((await client.call('dumpxml', { name: 'net', inactive: true })).xml).toContain('initiate');
  });

  it('are not replaced by a document that is wrong', async () => {
    const test = await TestDaemon.start(host());
    await test.client.call('define', { xml: tunnelDocument() });
    const before = readFileSync(join(test.configDir, 'net.xml'), 'utf8');
    const wrong = tunnelDocument({ ike: "<proposal encryption='rot13' dh='x25519'/>" });
    const error = await refusal(test.client.call('define', { xml: wrong, source: 'net.xml' }));
    expect(error.code).toBe('bad-document');
    expect(error.message).toMatch(/net\.xml:\d+: .*rot13/);
    expect(readFileSync(join(test.configDir, 'net.xml'), 'utf8')).toBe(before);
    expect((await test.client.call('dumpxml', { name: 'net', inactive: true })).xml).toBe(before);
  });

  it('refuse a name with another UUID and a UUID with another name', async () => {
    const { client } = await TestDaemon.start(host());
    const uuid = '7e5f1c8e-6d0e-4b7e-9a55-0c3f2f6d1a10';
    await client.call('define', { xml: tunnelDocument({ extra: `<uuid>${uuid}</uuid>` }) });
    const other = tunnelDocument({ extra: '<uuid>7e5f1c8e-6d0e-4b7e-9a55-0c3f2f6d1a11</uuid>' });
    expect((await refusal(client.call('define', { xml: other }))).message).toContain(`exists with UUID ${uuid}`);
    const renamed = tunnelDocument({ name: 'other', extra: `<uuid>${uuid}</uuid>` });
    expect((await refusal(client.call('define', { xml: renamed }))).message).toContain("tunnel 'net' has the UUID");
    expect((await client.call('list', {})).tunnels.map(({ name }) => name)).toEqual(['net']);
  });

  it('that are damaged on disk are left out with an error, and the others are served', async () => {
    const folder = temporaryFolder();
    const first = new TestDaemon(host(), folder);
    await first.open();
    await first.client.call('define', { xml: tunnelDocument() });
    await first.close();
    writeFileSync(join(first.configDir, 'broken.xml'), '<sectunnel');
    writeFileSync(join(first.configDir, 'wrong-name.xml'), readFileSync(join(first.configDir, 'net.xml')));
    const second = await TestDaemon.start(host(), folder);
    expect((await second.client.call('list', {})).tunnels.map(({ name }) => name)).toEqual(['net']);
    const errors = second.lines.filter(({ level }) => level === 'error').map(({ text }) => text);
    expect(errors).toHaveLength(2);
    expect(errors[1]).toContain("the document names the tunnel 'net'");
  });
});

describe('many definitions on disk', () => {
  it('of which some are wrong are served but for those, each named with its file, and its line where there is one', async () => {
    const folder = temporaryFolder();
    const first = new TestDaemon(host(), folder);
    await first.open();
    await first.giveSecret();
    const { configDir } = first;
    for (let at = 0; at < 50; at++) {
      const xml = tunnelDocument({ name: `branch-${at}`, inner: ['10.1.0.0', `10.2.${at}.0`] });
      await first.client.call('define', { xml });
      await first.client.call('autostart', { name: `branch-${at}`, enable: true });
    }
    await first.close();
    const change = (at: number, from: string | RegExp, to: string): void => {
      const file = join(configDir, `branch-${at}.xml`);
      writeFileSync(file, readFileSync(file, 'utf8').replace(from, to));
    };
    const uuid = /<uuid>(.*)<\/uuid>/.exec(readFileSync(join(configDir, 'branch-1.xml'), 'utf8'))![0];
    change(3, /<uuid>.*<\/uuid>/, uuid);
    change(5, "protocol='any'", "protocol='pigeon'");
    change(7, '</sectunnel>', '');

    const second = await TestDaemon.start(host(), folder);
    const { unreadable } = await second.client.call('list', {});
    const active = async (): Promise<number> => (await second.client.call('list', { active: true })).tunnels.length;
    await eventually('47 tunnels', async () => (await active()) === 47);
    expect([...unreadable].sort()).toEqual(['branch-3', 'branch-5', 'branch-7']);
    const errors = second.lines.filter(({ level, text }) => level === 'error' && text.startsWith('definition ignored'));
    expect(errors.map(({ text }) => text)).toEqual([
      expect.stringMatching(/tunnel 'branch-1' has the UUID .* already/),
      expect.stringMatching(/branch-5\.xml:\d+: <upperspec>: protocol='pigeon'/),
      expect.stringMatching(/branch-7\.xml:\d+: /),
    ]);
    expect(errors.map(({ fields }) => fields)).toEqual(
      [3, 5, 7].map((at) => ({ file: join(configDir, `branch-${at}.xml`) })),
    );
  });
});

describe('life of an object', () => {
  it('goes from defined to active and back', async () => {
    const test = await TestDaemon.start(host());
    await test.giveSecret();
    const { client } = test;
    await client.call('define', { xml: tunnelDocument() });
    expect(await client.call('info', { name: 'net' })).toMatchObject({
      active: false,
      persistent: true,
      state: 'inactive',
    });
    const { device } = await client.call('start', { name: 'net' });
    expect(await client.call('info', { name: 'net' })).toMatchObject({ active: true, device, state: 'waiting' });
    expect(existsSync(join(test.runDir, 'live', 'net.xml'))).toBe(true);
    expect((await refusal(client.call('start', { name: 'net' }))).message).toContain('already active');
    await client.call('destroy', { name: 'net' });
    expect(await client.call('info', { name: 'net' })).toMatchObject({ active: false, persistent: true });
    expect(existsSync(join(test.runDir, 'live', 'net.xml'))).toBe(false);
    expect((await refusal(client.call('destroy', { name: 'net' }))).message).toContain('not active');
  });

  it('is transient when it is created, and gone when it stops', async () => {
    const test = await TestDaemon.start(host());
    await test.giveSecret();
    const { client } = test;
    await client.call('create', { xml: tunnelDocument() });
    expect(await client.call('info', { name: 'net' })).toMatchObject({ active: true, persistent: false });
    expect((await refusal(client.call('autostart', { name: 'net', enable: true }))).code).toBe('invalid-state');
    expect((await refusal(client.call('undefine', { name: 'net' }))).message).toContain('transient');
    await client.call('destroy', { name: 'net' });
    expect((await refusal(client.call('info', { name: 'net' }))).code).toBe('not-found');
  });

  it('becomes transient when an active one is undefined', async () => {
    const test = await TestDaemon.start(host());
    await test.giveSecret();
    const { client } = test;
    await client.call('define', { xml: tunnelDocument() });
    await client.call('start', { name: 'net' });
    await client.call('undefine', { name: 'net' });
    expect(await client.call('info', { name: 'net' })).toMatchObject({ active: true, persistent: false });
    expect(existsSync(join(test.configDir, 'net.xml'))).toBe(false);
  });

  it('keeps running as it was when it is defined anew', async () => {
    const test = await TestDaemon.start(host());
    await test.giveSecret();
    const { client } = test;
    await client.call('define', { xml: tunnelDocument() });
    await client.call('start', { name: 'net' });
    await client.call('define', { xml: tunnelDocument({ extra: '<title>new</title>' }) });
    expect((await client.call('dumpxml', { name: 'net', inactive: false })).xml).not.toContain('<title>');
    expect((await client.call('dumpxml', { name: 'net', inactive: true })).xml).toContain('<title>new</title>');
  });

  it('is updated live, and keeps running when the new document cannot', async () => {
    const test = await TestDaemon.start(host());
    await test.giveSecret();
    const { client } = test;
    await client.call('define', { xml: tunnelDocument() });
    await client.call('start', { name: 'net' });
    await client.call('update', { xml: tunnelDocument({ extra: '<title>new</title>' }), live: true, config: false });
    expect((await client.call('dumpxml', { name: 'net', inactive: false })).xml).toContain('<title>new</title>');
    expect((await client.call('dumpxml', { name: 'net', inactive: true })).xml).not.toContain('<title>');
    const elsewhere = tunnelDocument({ local: '203.0.113.9' });
    expect((await refusal(client.call('update', { xml: elsewhere, live: true, config: false }))).code).toBe('system');
    expect(await client.call('info', { name: 'net' })).toMatchObject({ active: true });
    expect((await client.call('dumpxml', { name: 'net', inactive: false })).xml).toContain('192.0.2.1');
  });

  it('starts with the daemon when it is marked so, and again when the daemon was cut off', async () => {
    const folder = temporaryFolder();
    const first = new TestDaemon(host(), folder);
    await first.open();
    await first.giveSecret();
    await first.client.call('define', { xml: tunnelDocument() });
    await first.client.call('define', { xml: tunnelDocument({ name: 'other', inner: ['10.1.0.0', '10.3.0.0'] }) });
    await first.client.call('autostart', { name: 'net', enable: true });
    await first.close();
    expect(lstatSync(join(first.configDir, 'autostart', 'net.xml')).isSymbolicLink()).toBe(true);
    // As a daemon leaves it that is killed while `other` runs.
    writeFileSync(join(first.runDir, 'live', 'other.xml'), readFileSync(join(first.configDir, 'other.xml')));

    const second = await TestDaemon.start(host(), folder);
    const { tunnels } = await second.client.call('list', {});
    expect(tunnels.map(({ name, active, autostart }) => ({ name, active, autostart }))).toEqual([
      { name: 'net', active: true, autostart: true },
      { name: 'other', active: true, autostart: false },
    ]);
  });

  it('is tried again when it cannot start with the daemon', async () => {
    timersByHand();
    const folder = temporaryFolder();
    const first = new TestDaemon(host(), folder);
    await first.open();
    await first.client.call('define', { xml: tunnelDocument() });
    await first.client.call('autostart', { name: 'net', enable: true });
    await first.close();

    const second = await TestDaemon.start(host(), folder);
    expect(second.lines.some(({ text }) => /another try in (1\.[5-9]|2) s: there is no secret/.test(text))).toBe(true);
    await second.giveSecret();
    await vi.advanceTimersByTimeAsync(2_000);
    expect(await second.client.call('info', { name: 'net' })).toMatchObject({ active: true });
    await second.client.call('destroy', { name: 'net' });
    await vi.advanceTimersByTimeAsync(200_000);
    expect(await second.client.call('info', { name: 'net' })).toMatchObject({ active: false });
  });

  it('that was cut off and cannot run any more is given up by destroy', async () => {
    const folder = temporaryFolder();
    const first = new TestDaemon(host(), folder);
    await first.open();
    await first.close();
    writeFileSync(join(first.runDir, 'live', 'net.xml'), tunnelDocument());
    const { client } = await TestDaemon.start(host(), folder);
    expect(await client.call('info', { name: 'net' })).toMatchObject({ active: false, persistent: false });
    await client.call('destroy', { name: 'net' });
    expect((await client.call('list', {})).tunnels).toEqual([]);
  });

  it('does not start without its secret, and says which', async () => {
    const { client } = await TestDaemon.start(host());
    await client.call('define', { xml: tunnelDocument() });
    const error = await refusal(client.call('start', { name: 'net' }));
    expect(error.code).toBe('not-found');
    expect(error.message).toContain('there is no secret 11111111-2222-3333-4444-555555555501');
    expect(await client.call('info', { name: 'net' })).toMatchObject({ active: false });
  });

  it('refuses what this version does not do', async () => {
    const test = await TestDaemon.start(host());
    await test.giveSecret();
    const { client } = test;
    await client.call('define', { xml: tunnelDocument().replace("mode='tunnel'", "mode='transport'") });
    const error = await refusal(client.call('start', { name: 'net' }));
    expect(error.code).toBe('unsupported');
    expect(error.message).toContain('unsupported configuration');
  });

  it('stops when its device is taken away, and comes back', async () => {
    const test = await TestDaemon.start(host());
    await test.giveSecret();
    const { client } = test;
    await client.call('create', { xml: tunnelDocument() });
    const device = test.devices.get('stun-net');
    const events: string[] = [];
    client.onEvent = ({ event }) => events.push(event);
    await client.call('event', {});
    device?.fail(new Error('the interface was deleted'));
    await eventually('its return', () => events.includes('started'));
    expect(events).toEqual(['stopped', 'started']);
    expect(test.devices.get('stun-net')).not.toBe(device);
    expect((await client.call('list', {})).tunnels).toMatchObject([{ name: 'net', active: true }]);
    expect(test.lines.some(({ level, text }) => level === 'error' && text.includes('the interface was deleted'))).toBe(
      true,
    );
  });

  it('shows in status why it could not be started yet, and when it is tried again', async () => {
    const folder = temporaryFolder();
    const first = new TestDaemon(host(), folder);
    await first.open();
    await first.client.call('define', { xml: tunnelDocument() });
    await first.client.call('autostart', { name: 'net', enable: true });
    await first.close();
    const { client } = await TestDaemon.start(host(), folder);
    const [status] = (await client.call('status', {})).tunnels;
    expect(status).toMatchObject({ state: 'inactive', lastFailure: { reason: 'not-started' } });
    expect(status?.lastFailure?.detail).toContain('there is no secret');
    expect(status?.retryIn).toBeGreaterThan(0);
    expect((await client.call('info', { name: 'net' })).state).toBe('waiting to retry');
  });
});
