/** What a daemon that ends in order leaves to the next one: which tunnels run again, and that their fences never go meanwhile. */
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { address, eventually, TestDaemon, temporaryFolder, tunnelDocument } from '../support/daemon.ts';

function host(): ReturnType<MemoryNetwork['host']> {
  return new MemoryNetwork().host([address('192.0.2.1')]);
}

/** A daemon with its secret. */
async function first(folder: string): Promise<TestDaemon> {
  const test = await TestDaemon.start(host(), folder);
  await test.giveSecret();
  return test;
}

const inner = (number: number): { inner: readonly [string, string] } => ({ inner: ['10.1.0.0', `10.${number}.0.0`] });
const document = (name: string, number = 2): { xml: string } => ({ xml: tunnelDocument({ name, ...inner(number) }) });
const liveFile = ({ runDir }: TestDaemon, name: string): string => join(runDir, 'live', `${name}.xml`);
const errors = ({ lines }: TestDaemon): string[] =>
  lines.filter(({ level }) => level === 'error').map(({ text }) => text);

it('tunnels that ran and those with autostart run again, and all fences stand before the first of them starts', async () => {
  const folder = temporaryFolder();
  const one = await first(folder);
  await one.client.call('create', document('passing', 2));
  await one.client.call('define', document('started', 3));
  await one.client.call('start', { name: 'started' });
  await one.client.call('define', document('marked', 4));
  await one.client.call('autostart', { name: 'marked', enable: true });
  await one.client.call('define', document('idle', 5));
  await one.client.call('define', document('stopped', 6));
  await one.client.call('start', { name: 'stopped' });
  await one.client.call('destroy', { name: 'stopped' });
  one.told.length = 0;
  await one.close();
  expect(one.told).toEqual([]);

  const two = await TestDaemon.start(host(), folder);
  const names = ['passing', 'started', 'marked'];
  expect(two.told).toEqual([`keep ${names}`, `fence ${names}`, ...names.map((name) => `open ${name}`)]);
  const { tunnels } = await two.client.call('list', {});
  expect(tunnels.filter(({ active }) => active).map(({ name }) => name)).toEqual([...names].sort());
  expect(tunnels.find(({ name }) => name === 'passing')).toMatchObject({ persistent: false, retrying: false });
  await two.client.call('destroy', { name: 'passing' });
  expect(two.told.at(-1)).toBe('release passing');
});

it('the document of a tunnel that runs again is written anew only where the disk has another one', async () => {
  const folder = temporaryFolder();
  const one = await first(folder);
  for (const [at, name] of ['same', 'damaged'].entries()) {
    await one.client.call('define', document(name, 2 + at));
    await one.client.call('start', { name });
  }
  await one.close();
  const [same, damaged] = ['same', 'damaged'].map((name) => liveFile(one, name));
  const [file, text] = [statSync(same!).ino, readFileSync(damaged!, 'utf8')];
  writeFileSync(damaged!, '<sectunnel');

  const two = await TestDaemon.start(host(), folder);
  for (const name of ['same', 'damaged'])
    expect(await two.client.call('info', { name })).toMatchObject({ active: true });
  await eventually('the document to be written', () => readFileSync(damaged!, 'utf8') === text);
  expect(statSync(same!).ino).toBe(file);
  await two.client.call('destroy', { name: 'same' });
  await two.client.call('start', { name: 'same' });
  expect(readFileSync(same!, 'utf8')).toContain('<name>same</name>');
});

it('a tunnel that cannot run again yet is shown as held, until destroy or undefine', async () => {
  const folder = temporaryFolder();
  const one = await first(folder);
  for (const [at, name] of ['a', 'b'].entries()) {
    await one.client.call('define', document(name, 2 + at));
    await one.client.call('start', { name });
  }
  await one.close();

  const two = new TestDaemon(host(), folder);
  two.refuseDevices = true;
  await two.open();
  for (const name of ['a', 'b'])
    expect(await two.client.call('info', { name })).toMatchObject({
      active: false,
      retrying: true,
      state: 'waiting to retry',
    });
  await two.client.call('destroy', { name: 'a' });
  await two.client.call('undefine', { name: 'b' });
  expect(two.told.slice(-2)).toEqual(['release a', 'release b']);
  expect((await two.client.call('list', {})).tunnels).toMatchObject([
    { name: 'a', retrying: false, state: 'inactive' },
  ]);
  await two.close();
  for (const name of ['a', 'b']) expect(existsSync(liveFile(two, name))).toBe(false);
});

it('without autostart a tunnel that ran is tried again all the same, one that never did is not', async () => {
  const folder = temporaryFolder();
  const one = await first(folder);
  for (const [at, name] of ['ran', 'never'].entries()) {
    await one.client.call('define', document(name, 2 + at));
    await one.client.call('autostart', { name, enable: true });
  }
  await one.client.call('start', { name: 'ran' });
  await one.close();

  const two = new TestDaemon(host(), folder);
  onTestFinished(() => two.close());
  two.refuseDevices = true;
  await two.open();
  for (const name of ['ran', 'never']) await two.client.call('autostart', { name, enable: false });
  expect(two.told.at(-1)).toBe('release never');
  const held = (await two.client.call('list', {})).tunnels.filter((tunnel) => tunnel.retrying).map(({ name }) => name);
  expect(held).toEqual(['ran']);
});

it('a tunnel that is destroyed before its turn has come does not start', async () => {
  const folder = temporaryFolder();
  const one = await first(folder);
  // As many as start at the same time, and one more.
  const names = [...Array.from({ length: 96 }, (_, at) => `a${10 + at}`), 'b'];
  for (const [at, name] of names.entries()) {
    await one.client.call('define', document(name, 2 + at));
    await one.client.call('autostart', { name, enable: true });
  }
  await one.close();

  const two = new TestDaemon(host(), folder);
  onTestFinished(() => two.close());
  let release: () => void = () => undefined;
  two.devicesFrom = new Promise((resolve) => {
    release = resolve;
  });
  const opening = two.open();
  await eventually('the first to start', () => two.told.includes('open a13'));
  const destroyed = two.daemon.changes.destroy('b');
  release();
  await destroyed;
  await opening;
  expect(two.told.filter((text) => text.endsWith(' b'))).toEqual(['release b']);
  expect(await two.client.call('info', { name: 'b' })).toMatchObject({ active: false, retrying: false });
});

it('a fence stays where no document of the tunnel can be read, until destroy', async () => {
  const folder = temporaryFolder();
  const one = await first(folder);
  for (const [at, name] of ['marked', 'kept'].entries()) {
    await one.client.call('define', document(name, 2 + at));
  }
  await one.client.call('autostart', { name: 'marked', enable: true });
  await one.client.call('start', { name: 'kept' });
  await one.client.call('create', document('passing', 4));
  await one.close();
  writeFileSync(join(one.configDir, 'marked.xml'), '<sectunnel');
  for (const name of ['kept', 'passing']) writeFileSync(liveFile(one, name), '<sectunnel');

  const two = await TestDaemon.start(host(), folder);
  // One that has a definition runs with that.
  expect(two.told[0]).toBe('keep kept,marked,passing');
  expect(two.told.at(-1)).toBe('open kept');
  expect(errors(two).filter((text) => text.includes('its fence stays in place'))).toHaveLength(2);
  for (const name of ['marked', 'passing']) {
    expect(await two.client.call('destroy', { name })).toEqual({ name });
    expect(two.told.at(-1)).toBe(`release ${name}`);
  }
  await expect(two.client.call('destroy', { name: 'passing' })).rejects.toThrow("there is no tunnel 'passing'");
  expect(existsSync(liveFile(two, 'passing'))).toBe(false);
});

it('a tunnel of which no document can be read is shown, and answers about others do not pass over its fence', async () => {
  const folder = temporaryFolder();
  const one = await first(folder);
  await one.client.call('create', document('lost', 2));
  await one.client.call('define', document('other', 3));
  await one.close();
  writeFileSync(liveFile(one, 'lost'), '<sectunnel');

  const two = new TestDaemon(host(), folder);
  two.foreign = { texts: [], unread: [] };
  const linkIndex = two.hostNetwork.addLink('stun-other', 1500);
  const destination = { address: address('10.3.0.0'), prefixLength: 24 };
  two.hostNetwork.addRoutes([{ type: 'unicast', destination, linkIndex }]);
  await two.open();
  onTestFinished(() => two.close());
  expect(await two.client.call('list', {})).toMatchObject({ tunnels: [{ name: 'other' }], unreadable: ['lost'] });
  await two.client.call('start', { name: 'other' });
  const question = { name: 'other', src: '10.1.0.1', dst: '10.3.0.1', proto: 'icmp' };
  const told = async (): Promise<readonly string[]> => (await two.client.call('explain', question)).warnings;
  const text = 'not checked: the fence of tunnel lost, whose document cannot be read';
  expect(await told()).toContain(text);
  await two.client.call('destroy', { name: 'lost' });
  expect(await two.client.call('list', {})).toMatchObject({ unreadable: [] });
  expect(await told()).not.toContain(text);
});
