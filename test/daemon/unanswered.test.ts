/** Many tunnels whose peers do not respond, or have another key: the daemon asks few at a time, and answers all the same. */
import { expect, it } from 'vitest';
import { formatAddress } from '../../src/base/address.ts';
import type { DaemonClient } from '../../src/control/client.ts';
import { MAX_INITIATING, PLACE_TIME } from '../../src/engine/initiation-gate.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { address, eventually, oppositeDocument, TestDaemon, tunnelDocument } from '../support/daemon.ts';

const COUNT = 400;
const KEY = 'k1xBeR5vTq8wZn3mYc7sDf2gHj9pLa4o';
const TIMEOUT = 180_000;
/** Milliseconds that an answer may take on a busy machine; about 10 of them are ours. */
const PATIENCE = 2_000;
/** In the header of a message on port 500 (RFC 7296 §3.1). */
const EXCHANGE = 18;
const IKE_SA_INIT = 34;

const inner = (at: number): [string, string] => ['10.1.0.0', `10.${2 + (at >> 8)}.${at & 0xff}.0`];
const nameOf = (at: number): string => `branch-${String(at).padStart(4, '0')}`;

async function defineAll(client: DaemonClient, documents: readonly string[]): Promise<void> {
  const sources = documents.map((xml, at) => ({ xml, source: `${at}.xml` }));
  expect(await client.call('define-each', { documents: sources })).toEqual({ done: documents.length, failed: 0 });
  expect(await client.call('each', { verb: 'start', all: true })).toEqual({ done: documents.length, failed: 0 });
}

it('asks few peers at a time, and answers at once meanwhile', { timeout: TIMEOUT }, async () => {
  /** When each IKE SA was begun, by the address of its peer. */
  const begun = new Map<string, number>();
  const network = new MemoryNetwork({
    route: ({ data, to }) => {
      const peer = formatAddress(to.address);
      if (data[EXCHANGE] === IKE_SA_INIT && !begun.has(peer)) begun.set(peer, performance.now());
      return [];
    },
  });
  const daemon = await TestDaemon.start(network.host([address('192.0.2.1')]));
  await daemon.giveSecret(KEY);
  const { client } = daemon;
  const documents = Array.from({ length: COUNT }, (_, at) =>
    tunnelDocument({
      name: nameOf(at),
      start: 'initiate',
      remote: `198.18.${at >> 8}.${at & 0xff}`,
      inner: inner(at),
    }),
  );
  await defineAll(client, documents);

  const within = async <T>(work: Promise<T>): Promise<T> => {
    const asked = performance.now();
    const answer = await work;
    expect(performance.now() - asked).toBeLessThan(PATIENCE);
    return answer;
  };
  expect((await within(client.call('list', {}))).tunnels).toHaveLength(COUNT);
  expect((await within(client.call('list', { patterns: ['branch-00*'], limit: 7 }))).tunnels).toHaveLength(7);
  expect((await within(client.call('status', { state: 'connecting', limit: 5 }))).tunnels).toHaveLength(5);
  expect((await within(client.call('status', { state: 'up' }))).tunnels).toEqual([]);
  expect((await within(client.call('status', { patterns: [nameOf(7), 'branch-019?'] }))).tunnels).toHaveLength(11);
  expect((await within(client.call('status', { name: nameOf(234) }))).tunnels).toHaveLength(1);

  await eventually('several turns', () => begun.size > 4 * MAX_INITIATING, 60_000);
  const times = [...begun.values()];
  // A place is taken before the key exchange is computed, and the datagram comes after it: on a busy machine by a while.
  const turn = PLACE_TIME / 2;
  const early = times.filter((time, at) => at >= MAX_INITIATING && time - times[at - MAX_INITIATING]! < turn);
  expect(early).toEqual([]);
});

it('tries those again whose peer has another key, each after a wait of its own', { timeout: TIMEOUT }, async () => {
  const count = 100;
  let asked = 0;
  const network = new MemoryNetwork({
    route: ({ data, from }) => {
      if (data[EXCHANGE] === IKE_SA_INIT && formatAddress(from.address) === '192.0.2.1') asked++;
      return [{ delayMs: 0 }];
    },
  });
  const [one, two] = [
    await TestDaemon.start(network.host([address('192.0.2.1')])),
    await TestDaemon.start(network.host([address('192.0.2.2')])),
  ];
  await one.giveSecret(KEY);
  await two.giveSecret(`${KEY} of another`);
  const extra = (at: number, of: string): string => `<id type='fqdn'>${nameOf(at)}.${of}</id>`;
  const withIds = (xml: string, at: number, [local, remote]: readonly [string, string]): string =>
    xml
      .replace(/<local address='(.*)'\/>/, `<local address='$1'>${extra(at, local)}</local>`)
      .replace(/<remote address='(.*)'><\/remote>/, `<remote address='$1'>${extra(at, remote)}</remote>`);
  const words = (at: number) => ({ name: nameOf(at), inner: inner(at) });
  const numbers = Array.from({ length: count }, (_, at) => at);
  await defineAll(
    two.client,
    numbers.map((at) => {
      const [left, right] = inner(at);
      return withIds(oppositeDocument({ ...words(at), inner: [right, left] }), at, ['two', 'one']);
    }),
  );
  await defineAll(
    one.client,
    numbers.map((at) => withIds(tunnelDocument({ ...words(at), start: 'initiate' }), at, ['one', 'two'])),
  );
  const failed = async (): Promise<readonly (number | undefined)[]> => {
    const { tunnels } = await one.client.call('status', {});
    return tunnels.filter(({ lastFailure }) => lastFailure !== undefined).map(({ retryIn }) => retryIn);
  };
  await eventually('each to be refused', async () => (await failed()).length === count, 60_000);
  const waits = (await failed()).filter((wait) => wait !== undefined);
  expect(new Set(waits.map((wait) => wait.toFixed(3))).size).toBeGreaterThan(waits.length / 2);
  // Each wait is twice the one before: five attempts take at least (1 + 2 + 4 + 8) · 3/4 seconds.
  const [before, began] = [asked, performance.now()];
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  const most = Math.ceil((performance.now() - began) / 750) * count;
  expect(asked - before).toBeLessThanOrEqual(most);
});
