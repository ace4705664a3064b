/** A host in a program that makes mistakes, goes away, waits, and writes down what it is told. */
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { readUdpPacket } from '../../examples/packet.ts';
import { utf8 } from '../../src/base/text.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import type { TunnelConfig } from '../../src/engine/config.ts';
import type { EngineEvent } from '../../src/engine/events.ts';
import { TunnelHost } from '../../src/host/host.ts';
import type { HostOptions } from '../../src/host/options.ts';
import { MemoryDevice } from '../../src/tun/memory.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { nodeUdp } from '../../src/tun/udp/node.ts';
import type { UdpNetwork } from '../../src/tun/udp/udp.ts';
import { address, eventually } from '../support/daemon.ts';
import { opposite, packet, tunnel } from '../support/engine-net.ts';
import { connection } from '../support/ike-pair.ts';

function host(network: UdpNetwork, options: Partial<HostOptions> = {}): TunnelHost {
  const made = new TunnelHost({ network, crypto: nodeProvider, secretFor: () => utf8('a secret'), ...options });
  onTestFinished(() => made.close());
  return made;
}

/** Two hosts in memory; the second one waits to be called. */
async function pair(options: Partial<HostOptions> = {}, config: TunnelConfig = tunnel()) {
  const network = new MemoryNetwork();
  const a = host(network.host([address('192.0.2.1')]), options);
  const b = host(network.host([address('192.0.2.2')]));
  const [left, right] = [new MemoryDevice(), new MemoryDevice()];
  await b.add(opposite(config), right);
  await a.add(config, left);
  return { a, b, left, right };
}

/** Of a tunnel in this machine's own loopback network. */
function looped(change: { local?: object; remote?: object }): TunnelConfig {
  const { local, remote } = connection();
  const [one, other] = [address('127.0.0.1'), address('127.0.0.1')];
  const changed = connection({
    local: { ...local, address: one, ...change.local },
    remote: { ...remote, address: other, ...change.remote },
  });
  return tunnel({ connections: [changed] });
}

const portOf = (of: TunnelHost): number => [...of.sockets.sockets()][0]!.local.port;

describe('a function of the program that throws', () => {
  it.each([
    [
      'throws',
      () => {
        throw new Error('a bug of the program');
      },
    ],
    ['rejects', () => Promise.reject(new Error('a bug of the program'))],
  ])('%s: the tunnel comes up, packets pass, and the host closes', async (_, buggy) => {
    const told: string[] = [];
    const onError = (error: unknown, where: string): void => void told.push(`${where}: ${String(error)}`);
    const { a, left, right } = await pair({ onEvent: buggy, onSecretRead: buggy, onError });
    const seen: string[] = [];
    right.onDelivered((data) => {
      seen.push(readUdpPacket(data).text);
    });
    await a.up('t');
    left.inject(packet('10.1.0.1', '10.2.0.1', 'one'));
    await eventually('the packet', () => seen.length === 1);
    await a.close();
    const bug = 'Error: a bug of the program';
    await eventually(
      'both to be told',
      () => told.includes(`onEvent: ${bug}`) && told.includes(`onSecretRead: ${bug}`),
    );
  });

  it('of a device loses its packet, not the next one, and no more than a warning in ten seconds is written', async () => {
    const warned: string[] = [];
    const warning = vi.spyOn(process, 'emitWarning').mockImplementation((text) => void warned.push(String(text)));
    onTestFinished(() => warning.mockRestore());
    const { a, b, left, right } = await pair();
    const seen: string[] = [];
    right.onDelivered((data) => {
      seen.push(readUdpPacket(data).text);
      throw new Error('not again');
    });
    await a.up('t');
    for (const text of ['one', 'two', 'three']) left.inject(packet('10.1.0.1', '10.2.0.1', text));
    await eventually('the packets', () => seen.length === 3);
    expect(warned).toEqual([expect.stringMatching(/^onDelivered of the program threw.*not again/)]);
    right.write = () => {
      throw new Error('a device of its own');
    };
    left.inject(packet('10.1.0.1', '10.2.0.1', 'four'));
    await eventually('the second warning', () => warned.length === 2);
    expect(warned[1]).toContain('write of a device');
    await b.close();
  });

  it.each([
    [
      'throws',
      () => {
        throw new Error('a bug of the handler');
      },
    ],
    ['rejects', () => Promise.reject(new Error('a bug of the handler'))],
  ])('and whose handler of errors %s is a warning: the tunnel comes up, and the host closes', async (_, onError) => {
    const warned: string[] = [];
    const warning = vi.spyOn(process, 'emitWarning').mockImplementation((text) => void warned.push(String(text)));
    onTestFinished(() => warning.mockRestore());
    const onEvent = (): never => {
      throw new Error('a bug of the program');
    };
    const { a } = await pair({ onEvent, onError });
    await a.up('t');
    await a.close();
    await eventually('the warning', () => warned.length > 0);
    expect(warned).toEqual([expect.stringMatching(/^onError of the program threw.*a bug of the handler/)]);
  });

  it.each([
    ['the host is closed', (of: TunnelHost) => of.close()],
    ['the tunnel is removed', (of: TunnelHost) => of.remove('t')],
  ])('may be one out of which %s: all calls end with that', async (_, end) => {
    const ends: Promise<void>[] = [];
    const { a, left } = await pair({ onEvent: () => void ends.push(end(a)) }, tunnel({ start: 'initiate' }));
    let gone = false;
    const close = left.close.bind(left);
    left.close = async () => {
      await sleep(20);
      await close();
      gone = true;
    };
    await eventually('the end', () => ends.length > 0);
    await ends[0];
    expect(gone).toBe(true);
    await Promise.all([...ends, a.remove('t'), a.close()]);
    expect(ends.length).toBeGreaterThan(1);
    expect(a.status('t')).toBeUndefined();
  });

  it('and a secret that is not there any more are a note', async () => {
    const key = utf8('a secret that is sent to another thread');
    structuredClone(key, { transfer: [key.buffer as ArrayBuffer] });
    const events: EngineEvent[] = [];
    const options = { secretFor: () => key, onEvent: (event: EngineEvent) => void events.push(event) };
    const { a } = await pair(options, tunnel({ start: 'initiate' }));
    await eventually('the failure', () => a.lastFailure('t') !== undefined);
    expect(events[0]).toMatchObject({ type: 'note', text: expect.stringContaining('the secret could not be read') });
  });

  it('and a secret that is no Uint8Array are a note, and the attempt fails', async () => {
    const events: EngineEvent[] = [];
    const options = { secretFor: () => 'a secret' as never, onEvent: (event: EngineEvent) => void events.push(event) };
    const { a } = await pair(options, tunnel({ start: 'initiate' }));
    await eventually('the failure', () => a.lastFailure('t') !== undefined);
    expect(events[0]).toMatchObject({ type: 'note', text: expect.stringContaining('secretFor gave a string') });
  });
});

describe('a device that is taken away', () => {
  it('ends its tunnel, and notifies the peer and the program', async () => {
    const events: EngineEvent[] = [];
    const { a, b, left } = await pair({ onEvent: (event) => void events.push(event) });
    const heard: unknown[] = [];
    left.onClosed((reason) => heard.push(reason));
    await a.up('t');
    const reason = new Error('unplugged');
    left.fail(reason);
    await eventually('the end', () => a.engine.tunnel('t') === undefined);
    await eventually('the peer to know', () => b.engine.tunnel('t')!.children.size === 0);
    expect(heard).toEqual([reason]);
    expect(events).toContainEqual({
      type: 'note',
      tunnel: 't',
      level: 'warn',
      text: 'device memory was taken away, the tunnel is removed: unplugged',
    });
  });

  it('is the program’s to see to where it says so; one that it closes itself is none', async () => {
    const lost: unknown[][] = [];
    const { a, left } = await pair({ onDeviceLost: (...words) => lost.push(words) });
    await a.up('t');
    left.fail(new Error('unplugged'));
    expect(lost).toEqual([['t', new Error('unplugged')]]);
    expect(a.engine.tunnel('t')).toBeDefined();
    const other = await pair({ onDeviceLost: (...words) => lost.push(words) });
    await other.a.close();
    expect(lost).toHaveLength(1);
  });
});

describe('waiting for a tunnel', () => {
  it.each(['initiate', 'trap', 'respond'] as const)(
    'negotiates with start %s, and ends when it is up',
    async (start) => {
      const { a } = await pair({}, tunnel({ start }));
      await a.up('t');
      expect(a.status('t')).toMatchObject({
        state: 'up',
        ikeSas: [{ remote: '192.0.2.2:500' }],
        lastFailure: undefined,
      });
      await a.up('t', { signal: AbortSignal.timeout(1) });
    },
  );

  it('ends with what the signal is aborted with, and the tunnel is left to its start again', async () => {
    const network = new MemoryNetwork().host([address('192.0.2.1')]);
    const a = host(network, { retransmit: { base: 20, growth: 1, tries: 2 } as never });
    await a.add(tunnel(), new MemoryDevice());
    const abort = new AbortController();
    const [first, second] = [a.up('t', { signal: abort.signal }), a.up('t')];
    setTimeout(() => abort.abort(new Error('no patience')), 50);
    await expect(first).rejects.toThrow('no patience');
    expect(a.engine.tunnel('t')!.keepUp).toBe('always');
    await expect(a.up('t', { signal: AbortSignal.timeout(30) })).rejects.toThrow(/timeout/);
    await expect(a.up('t', { signal: AbortSignal.abort(new Error('never')) })).rejects.toThrow('never');
    await Promise.all([expect(second).rejects.toThrow("'t' was removed before it was up"), a.remove('t')]);
    await expect(a.up('t')).rejects.toThrow("there is no tunnel 't'");
    expect(a.status('t')).toBeUndefined();
    await a.add(tunnel(), new MemoryDevice());
    await expect(a.up('t', { signal: AbortSignal.timeout(30) })).rejects.toThrow(/timeout/);
    expect(a.engine.tunnel('t')!.keepUp).toBe('packet');
  });

  it('shows in the status what is in the way', async () => {
    const { a } = await pair({ secretFor: () => utf8('another secret') });
    const abort = new AbortController();
    const up = a.up('t', { signal: abort.signal });
    await eventually('a failure', () => a.status('t')?.lastFailure !== undefined);
    expect(JSON.parse(JSON.stringify(a.status('t')))).toMatchObject({
      state: 'connecting',
      lastFailure: { reason: 'AUTHENTICATION_FAILED' },
    });
    abort.abort();
    await expect(up).rejects.toThrow();
  });

  it('is over with the scope of the host', async () => {
    const { a } = await pair();
    await a[Symbol.asyncDispose]();
    expect(a.engine.tunnel('t')).toBeUndefined();
  });
});

it('reports events that JSON can represent, as text', async () => {
  const lines: string[] = [];
  const { a } = await pair({ onEvent: (event) => void lines.push(JSON.stringify(event)) });
  await a.up('t');
  await a.remove('t');
  const events = lines.map((line) => JSON.parse(line));
  expect(events.map(({ type }) => type)).toEqual(expect.arrayContaining(['ike-up', 'child-up', 'ike-down']));
  expect(events.find(({ type }) => type === 'ike-up').ikeSa).toMatchObject({
    spiInitiator: expect.stringMatching(/^[0-9a-f]{16}$/),
    localId: expect.any(String),
    path: { local: '192.0.2.1:500', remote: '192.0.2.2:500' },
  });
  expect(events.find(({ type }) => type === 'child-up').child).toMatchObject({
    spiIn: expect.stringMatching(/^[0-9a-f]{8}$/),
    selectors: { local: ['10.1.0.0/24'], remote: ['10.2.0.0/24'] },
  });
});

describe('a local end that the system chooses', () => {
  it.each([
    ['an address', { address: address('127.0.0.1') }],
    ['any address', { address: undefined }],
  ])('has %s and a port of its own, from which it negotiates and at which it is called', async (_, local) => {
    const [a, b] = [host(nodeUdp), host(nodeUdp)];
    const [left, right] = [new MemoryDevice(), new MemoryDevice()];
    const any = { port: 0, natPort: 0 };
    const caller = looped({ local: { ...local, ...any } });
    // The other end has a free port too, which is known when it listens.
    await b.add(
      opposite(looped({ remote: { ...any, address: address('127.0.0.1') }, local: { address: undefined } }), {}),
      right,
    );
    const port = portOf(b);
    expect(port).toBeGreaterThan(0);
    const { local: own, remote } = caller.connections[0]!;
    const connections = [connection({ local: own, remote: { ...remote, port, natPort: port } })];
    await a.add({ ...caller, connections }, left);
    await a.up('t', { signal: AbortSignal.timeout(10_000) });
    left.inject(packet('10.1.0.1', '10.2.0.1', 'there'));
    const arrived: string[] = [];
    await eventually('the packet', () => arrived.push(...right.takeDelivered().map((p) => readUdpPacket(p).text)) > 0);
    right.inject(packet('10.2.0.1', '10.1.0.1', 'and back'));
    await eventually('the answer', () => arrived.push(...left.takeDelivered().map((p) => readUdpPacket(p).text)) > 1);
    expect(arrived).toEqual(['there', 'and back']);
    expect([...a.sockets.sockets()]).toHaveLength(1);
    await Promise.all([a.close(), b.close()]);
    await sleep(0);
    expect([[...a.sockets.sockets()], [...b.sockets.sockets()]]).toEqual([[], []]);
  });
});
