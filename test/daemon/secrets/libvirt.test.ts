import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { makeUdpPacket } from '../../../examples/packet.ts';
import { run } from '../../../src/cli/run.ts';
import type { TunnelEvent } from '../../../src/control/results.ts';
import type { TunnelStatus } from '../../../src/host/status.ts';
import { MemoryNetwork } from '../../../src/tun/udp/memory.ts';
import {
  address,
  eventually,
  oppositeDocument,
  SECRET_UUID,
  TestDaemon,
  temporaryFolder,
  tunnelDocument,
} from '../../support/daemon.ts';
import { FakeLibvirt, type FakeSecret } from '../../support/fake-libvirt.ts';

const BY_USAGE = `<secret usage='sectunnel:net'/>`;

/** A daemon on the left whose secrets are in libvirt. */
async function withLibvirt(
  sockets: readonly string[],
  network: MemoryNetwork = new MemoryNetwork(),
  folder = temporaryFolder(),
): Promise<TestDaemon> {
  const test = new TestDaemon(network.host([address('192.0.2.1')]), folder);
  test.libvirtSockets = sockets;
  await test.open();
  onTestFinished(() => test.close());
  return test;
}

async function libvirt(...secrets: readonly FakeSecret[]): Promise<FakeLibvirt> {
  const fake = await FakeLibvirt.start();
  fake.secrets.push(...secrets);
  return fake;
}

const STRONG = 'h7Kp2Xr9Qm4Zt6Wb8Yn3';

const key = (value?: string): FakeSecret =>
  value === undefined ? { uuid: SECRET_UUID } : { uuid: SECRET_UUID, value };

async function statusOf(test: TestDaemon): Promise<TunnelStatus> {
  return (await test.client.call('status', { name: 'net' })).tunnels[0]!;
}

async function isUp(test: TestDaemon): Promise<boolean> {
  return (await statusOf(test)).state === 'up';
}

/** The other end, which keeps its key itself. */
async function peer(network: MemoryNetwork, value: string): Promise<TestDaemon> {
  const right = await TestDaemon.start(network.host([address('192.0.2.2')]));
  await right.giveSecret(value);
  await right.client.call('create', { xml: oppositeDocument() });
  return right;
}

describe('secrets of libvirt', () => {
  it('that can be guessed are warned of with how libvirt is given another', async () => {
    const fake = await libvirt(key('a key'));
    const left = await withLibvirt([fake.path]);
    const { warnings } = await left.client.call('define', { xml: tunnelDocument() });
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(/^line \d+: .*it has 5 bytes.*virsh secret-set-value/);
    expect(warnings[0]).not.toContain('a key');
  });

  it('authenticate a tunnel, by UUID and by usage; status shows where they are stored', async () => {
    for (const xml of [
      tunnelDocument({ start: 'initiate' }),
      tunnelDocument({ start: 'initiate' }).replace(/<secret.*?\/>/, BY_USAGE),
    ]) {
      const network = new MemoryNetwork();
      const right = await peer(network, STRONG);
      const fake = await libvirt({ ...key(STRONG), usageType: 4, usage: 'sectunnel:net' });
      const left = await withLibvirt([fake.path], network);
      expect((await left.client.call('define', { xml })).warnings).toEqual([]);
      await left.client.call('start', { name: 'net' });
      await eventually('both ends up', async () => (await isUp(left)) && (await isUp(right)));
      expect(await statusOf(left)).toMatchObject({ secret: { source: 'libvirt' } });
      expect((await statusOf(right)).secret).toEqual({ name: SECRET_UUID, source: 'sectunnel' });
    }
  });

  it('are listed beside those of the own folder, without values', async () => {
    const fake = await libvirt({ ...key('hidden'), usageType: 2, usage: 'client.volumes' });
    const left = await withLibvirt([fake.path]);
    await left.giveSecret('hidden');
    const { secrets, notes } = await left.client.call('secret-list', {});
    expect(notes).toEqual([]);
    expect(secrets).toEqual([
      { uuid: SECRET_UUID, source: 'sectunnel', hasValue: true },
      { uuid: SECRET_UUID, source: 'libvirt', usage: 'ceph client.volumes' },
    ]);
    expect(fake.count(145)).toBe(0);
  });

  it('give way to those of the own folder, which have a value or not', async () => {
    const fake = await libvirt(key('of libvirt'));
    const left = await withLibvirt([fake.path]);
    await left.client.call('secret-define', { xml: `<secret><uuid>${SECRET_UUID}</uuid></secret>` });
    const { warnings } = await left.client.call('define', { xml: tunnelDocument() });
    expect(warnings).toEqual([expect.stringContaining(`secret ${SECRET_UUID} has no value`)]);
    await left.giveSecret('of sectunnel');
    await left.client.call('start', { name: 'net' });
    expect(fake.calls).toEqual([]);
  });

  it.each([
    [
      'missing',
      [],
      /there is no secret 1111.*neither in sectunnel nor in libvirt; define it with 'sectunnel secret-define'/,
    ],
    ['private', [{ ...key('x'), private: true }], /secret 1111.* of libvirt is private.*private='no'/],
    ['without a value', [key()], /secret 1111.* of libvirt has no value.*virsh secret-set-value/],
    ['empty', [key('')], /secret 1111.* has a value of 0 bytes/],
    ['too long', [key('x'.repeat(4097))], /secret 1111.* has a value of 4097 bytes; 1 to 4096/],
  ])(
    'that are %s are warned of when a tunnel is defined, and refused when it starts',
    async (_what, secrets, message) => {
      const left = await withLibvirt([(await libvirt(...secrets)).path]);
      const { warnings } = await left.client.call('define', { xml: tunnelDocument() });
      expect(warnings).toEqual([expect.stringMatching(message)]);
      await expect(left.client.call('start', { name: 'net' })).rejects.toThrow(message);
      expect(left.devices.size).toBe(0);
    },
  );

  it('that cannot be asked for because no libvirt is there are looked for in the own folder alone', async () => {
    const left = await withLibvirt(['/nowhere/virtsecretd-sock']);
    const message =
      /there is no secret 1111.* in sectunnel.*It may be in libvirt, but .*no daemon listens on \/nowhere/;
    expect((await left.client.call('define', { xml: tunnelDocument() })).warnings).toEqual([
      expect.stringMatching(message),
    ]);
    await expect(left.client.call('start', { name: 'net' })).rejects.toThrow(message);
    const out: string[] = [];
    const words = ['--run-dir', left.runDir, 'secret-list'];
    const put = (text: string): void => void out.push(text);
    await run(words, { out: put, err: put, readStdin: async () => Buffer.of(), interrupted: async () => undefined });
    expect(out.at(-1)).toMatch(/^note: libvirt cannot be asked: no daemon listens/);
    await left.giveSecret();
    await left.client.call('start', { name: 'net' });
  });

  it('that disappear while the tunnel runs are shown in its status', async () => {
    const network = new MemoryNetwork();
    await peer(network, 'a key');
    const fake = await libvirt(key('a key'));
    const left = await withLibvirt([fake.path], network);
    await left.client.call('define', { xml: tunnelDocument({ start: 'trap' }) });
    const { device } = await left.client.call('start', { name: 'net' });
    fake.secrets.length = 0;
    const ends = { source: '10.1.0.1', sourcePort: 1, destination: '10.2.0.1', destinationPort: 2 };
    left.devices.get(device)!.inject(makeUdpPacket({ ...ends, text: 'hello' }));
    await eventually('the failure', async () => (await statusOf(left)).secret?.problem !== undefined);
    const { secret, lastFailure } = await statusOf(left);
    expect(secret?.problem).toContain(`there is no secret ${SECRET_UUID}, neither`);
    expect(lastFailure?.reason).toBe('no-secret');
  });

  it('that are changed are used at the next authentication, which is at once where one failed', async () => {
    const network = new MemoryNetwork();
    const right = await peer(network, 'new');
    const fake = await libvirt(key('old'));
    const left = await withLibvirt([fake.path], network);
    const events: TunnelEvent[] = [];
    left.client.onEvent = (event) => events.push(event);
    await left.client.call('event', {});
    await left.client.call('define', { xml: tunnelDocument({ start: 'initiate' }) });
    await left.client.call('start', { name: 'net' });
    await eventually('the refusal', async () => (await statusOf(left)).lastFailure !== undefined);
    expect((await statusOf(left)).lastFailure?.reason).toBe('AUTHENTICATION_FAILED');
    const asked = fake.count(145);
    expect((await statusOf(left)).retryIn).toBeGreaterThan(0);
    fake.setValue(SECRET_UUID, 'new');
    await eventually('the event', () => events.some(({ event }) => event === 'secret-changed'));
    expect((await statusOf(left)).retryIn).toBeUndefined();
    await eventually('both ends up', async () => (await isUp(left)) && (await isUp(right)));
    expect(fake.count(145)).toBeGreaterThan(asked);
    expect(events.map(({ event }) => event)).toContain('secret-changed');
    expect(events.find(({ event }) => event === 'secret-changed')?.detail).not.toContain('new');

    // What is up stays up, whatever becomes of the secret.
    const up = fake.count(145);
    fake.setValue(SECRET_UUID, 'newer');
    await eventually('the event', () => events.filter(({ event }) => event === 'secret-changed').length === 2);
    expect([await isUp(left), fake.count(145)]).toEqual([true, up]);
  });

  it('have a tunnel tried at once that could not start without them', async () => {
    const fake = await libvirt();
    const folder = temporaryFolder();
    const first = await withLibvirt([fake.path], undefined, folder);
    await first.client.call('define', { xml: tunnelDocument() });
    await first.client.call('autostart', { name: 'net', enable: true });
    await first.close();
    // The wait until the next attempt is for ever.
    const real = globalThis.setTimeout;
    const waits = vi.spyOn(globalThis, 'setTimeout');
    waits.mockImplementation(((call: () => void, wait?: number) =>
      real(wait === 2_000 ? () => undefined : call, wait)) as typeof setTimeout);
    onTestFinished(() => waits.mockRestore());
    const second = await withLibvirt([fake.path], undefined, folder);
    await eventually('the attempt', async () => (await statusOf(second)).retryIn !== undefined);
    fake.secrets.push(key());
    fake.setValue(SECRET_UUID, 'here it is');
    await eventually('the start', async () => (await statusOf(second)).active);
  });

  it('do not keep the daemon from being ready while libvirt is not', async () => {
    const fake = await libvirt(key('a key'));
    const folder = temporaryFolder();
    const first = await withLibvirt([fake.path], undefined, folder);
    await first.client.call('define', { xml: tunnelDocument() });
    await first.client.call('autostart', { name: 'net', enable: true });
    await first.close();
    // As behind systemd's socket: it takes connections, and answers when its daemon has come.
    fake.answer = () => 'silent';
    const second = await withLibvirt([fake.path], undefined, folder);
    expect((await statusOf(second)).active).toBe(false);
    await fake.stop();
    const again = await FakeLibvirt.start(fake.path);
    again.secrets.push(key('a key'));
    await eventually('the start', async () => (await statusOf(second)).active);
  });
});
