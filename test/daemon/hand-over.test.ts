/** A daemon that hands its SAs over to the next one, and what may be wrong with what it left. */
import { chmodSync, existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { makeUdpPacket } from '../../examples/packet.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { address, eventually, oppositeDocument, TestDaemon, tunnelDocument } from '../support/daemon.ts';

const packet = makeUdpPacket({
  source: '10.1.0.1',
  sourcePort: 1000,
  destination: '10.2.0.1',
  destinationPort: 2000,
  text: 'hello',
});

interface Pair {
  readonly left: TestDaemon;
  readonly right: TestDaemon;
}

/** Two daemons with a tunnel that is up. The left one is to hand over. */
async function upPair(): Promise<Pair> {
  const network = new MemoryNetwork();
  const left = await TestDaemon.start(network.host([address('192.0.2.1')]));
  await left.close();
  left.handsOver = true;
  await left.open();
  const right = await TestDaemon.start(network.host([address('192.0.2.2')]));
  for (const end of [left, right]) await end.giveSecret();
  await right.client.call('create', { xml: oppositeDocument() });
  await left.client.call('create', { xml: tunnelDocument({ start: 'initiate' }) });
  await isUp(left);
  await isUp(right);
  return { left, right };
}

function isUp(test: TestDaemon): Promise<void> {
  return eventually('the tunnel to be up', async () => (await spis(test)).length > 0);
}

async function spis(test: TestDaemon): Promise<unknown[]> {
  const { tunnels } = await test.client.call('status', { name: 'net' });
  return tunnels.flatMap(({ ikeSas }) =>
    ikeSas.flatMap(({ spiInitiator, spiResponder, children }) =>
      children.map(({ spiIn, spiOut }) => [spiInitiator, spiResponder, spiIn, spiOut]),
    ),
  );
}

async function expectTraffic({ left, right }: Pair): Promise<void> {
  const device = (test: TestDaemon): ReturnType<TestDaemon['devices']['get']> & object =>
    [...test.devices.values()][0]!;
  device(left).inject(packet);
  await eventually('the packet', () => device(right).takeDelivered().length > 0);
}

const stateFile = ({ runDir }: TestDaemon): string => join(runDir, 'state');
const keyFile = ({ configDir }: TestDaemon): string => join(configDir, 'state.key');
const warnings = ({ lines }: TestDaemon): string[] =>
  lines.filter(({ level }) => level === 'warn' || level === 'error').map(({ text }) => text);

it('the next daemon goes on with the same SAs, and uses what was left once', async () => {
  const pair = await upPair();
  const { left, right } = pair;
  const before = [await spis(left), await spis(right)];
  await left.close();
  for (const file of [stateFile(left), keyFile(left)]) expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(await spis(right)).toEqual(before[1]);
  await left.open();
  expect(existsSync(stateFile(left))).toBe(false);
  expect([await spis(left), await spis(right)]).toEqual(before);
  await expectTraffic(pair);
  expect(warnings(left)).toEqual([]);
  const told = left.lines.find(({ text }) => text.startsWith('going on with the SAs'));
  expect(told?.fields).toEqual({ connections: 1 });
  // And once more, by the one that went on.
  await left.close();
  await left.open();
  expect([await spis(left), await spis(right)]).toEqual(before);
  await expectTraffic(pair);
});

it.each<[what: string, change: (test: TestDaemon) => void, why: RegExp]>([
  [
    'is cut short',
    (test) => writeFileSync(stateFile(test), readFileSync(stateFile(test)).subarray(0, -5)),
    /it has \d+ bytes of \d+/,
  ],
  [
    'was changed',
    (test) => {
      const bytes = readFileSync(stateFile(test));
      bytes[bytes.length - 40]! ^= 1;
      writeFileSync(stateFile(test), bytes);
    },
    /another key, or changed since/,
  ],
  ['is another file', (test) => writeFileSync(stateFile(test), 'what is this?'), /not a record of state/],
  [
    'was sealed with another key',
    (test) => writeFileSync(keyFile(test), new Uint8Array(32).fill(1)),
    /another key, or changed/,
  ],
  [
    'has a key that is cut short',
    (test) => writeFileSync(keyFile(test), 'short'),
    /state\.key has 5 bytes, and 32 are required/,
  ],
  ['has lost its key', (test) => rmSync(keyFile(test)), /ENOENT.*state\.key/],
  [
    'can be read by others',
    (test) => chmodSync(stateFile(test), 0o644),
    /has mode 0644, so others may read it; 0600 is required/,
  ],
])('state that %s is not used: the log says why, and the tunnel begins anew', async (_, change, why) => {
  const pair = await upPair();
  const { left } = pair;
  const before = await spis(left);
  await left.close();
  change(left);
  await left.open();
  expect(warnings(left).join('\n')).toMatch(why);
  await isUp(left);
  expect(await spis(left)).not.toEqual(before);
  await expectTraffic(pair);
});

it('what no tunnel takes is forgotten, and said to be', async () => {
  const { left } = await upPair();
  await left.close();
  rmSync(join(left.runDir, 'live', 'net.xml'));
  await left.open();
  expect(warnings(left)).toEqual([]);
  await left.close();
  expect(warnings(left)).toEqual([expect.stringMatching(/left are forgotten: their tunnels have not started/)]);
});

it('SAs that do not fit the document any more are made anew', async () => {
  const pair = await upPair();
  const { left } = pair;
  await left.close();
  const changed = tunnelDocument({ start: 'initiate', esp: "<proposal encryption='aes128gcm16'/>" });
  writeFileSync(join(left.runDir, 'live', 'net.xml'), changed);
  await left.open();
  await isUp(left);
  expect(warnings(left).join('\n')).toMatch(/a CHILD SA of \S+ of the process before this one is not gone on with/);
});

it('a daemon that cannot make the key deletes the SAs, as others do, and says so', async () => {
  const { left, right } = await upPair();
  await left.close();
  rmSync(stateFile(left));
  writeFileSync(keyFile(left), 'short');
  await left.open();
  await isUp(left);
  expect(warnings(left).join('\n')).toMatch(/cannot be handed over.*they will be deleted:.*state\.key has 5 bytes/);
  await left.close();
  expect(existsSync(stateFile(left))).toBe(false);
  expect(await spis(right)).toEqual([]);
});
