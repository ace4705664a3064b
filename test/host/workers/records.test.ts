/** The data plane taken over by another, as when a worker thread ends and its successor is told everything; or by several. */
import { MessageChannel, receiveMessageOnPort } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { NO_PORT } from '../../../src/base/address.ts';
import { PacketBatch } from '../../../src/base/batch.ts';
import { nodeProvider } from '../../../src/crypto/node/provider.ts';
import type { CryptoProvider, PacketCipher } from '../../../src/crypto/types.ts';
import type { InstallInbound, InstallOutbound, PlaneReport, SendCommand } from '../../../src/engine/commands.ts';
import { newTunnelCounters } from '../../../src/engine/commands.ts';
import { DEFAULT_HOLD } from '../../../src/engine/hold.ts';
import { InlinePlanes } from '../../../src/engine/inline-planes.ts';
import { ReceivePlane } from '../../../src/engine/receive-plane.ts';
import { SendPlane } from '../../../src/engine/send-plane.ts';
import { DropReason, namedDrops, newDropCounters } from '../../../src/esp/drops.ts';
import { newSaState, SaCounter, UNLIMITED } from '../../../src/esp/usage.ts';
import { KeySlots } from '../../../src/host/workers/key-slots.ts';
import { ReceiveRecords, SendRecords } from '../../../src/host/workers/records.ts';
import { Shards } from '../../../src/host/workers/shards.ts';
import type { Path } from '../../../src/ike/events.ts';
import type { PolicyEntry } from '../../../src/policy/database.ts';
import { packet, protect } from '../../support/engine-net.ts';
import { at } from '../../support/ike-pair.ts';

const PATH: Path = { local: at('192.0.2.1', 4500), remote: at('192.0.2.2', 4500) };
const shared = (bytes: number): SharedArrayBuffer => new SharedArrayBuffer(bytes);
const keys = (): { encryption: Uint8Array; integrity: Uint8Array } => ({
  encryption: new Uint8Array(20).fill(7),
  integrity: new Uint8Array(0),
});

const common = { encryption: 'aes128gcm16', integrity: undefined, esn: false, limits: UNLIMITED, path: PATH } as const;
const sizes = {
  mtu: 1_400,
  room: 1_452,
  clampMtu: 1_400,
  dscp: undefined,
  tfc: undefined,
  offered: undefined,
} as const;

function install(id: number): InstallOutbound {
  const { selectors } = protect();
  const own = { id, tunnel: 0, spi: 0x1000 + id, keys: keys(), selectors, state: newSaState(shared), child: 'c' };
  return { type: 'install', ...common, ...sizes, ...own, transport: undefined };
}

function installInbound(id: number, drops = newDropCounters()): InstallInbound {
  const { local, remote } = protect().selectors;
  const selectors = { local: remote, remote: local };
  const own = {
    id,
    tunnel: 0,
    device: 0,
    spi: 0x1000 + id,
    keys: keys(),
    selectors,
    state: newSaState(shared),
    drops,
    child: 'c',
  };
  return {
    type: 'install',
    ...common,
    clampMtu: 1_400,
    replayWindow: 64,
    ...own,
    transport: undefined,
    guard: undefined,
  };
}

const addDevice = (): SendCommand => ({
  type: 'add-device',
  device: 0,
  fragmentSeed: 1,
  drops: new Float64Array(shared(newDropCounters().byteLength)),
});

const addTunnel = (): SendCommand => ({
  type: 'add-tunnel',
  tunnel: 0,
  device: 0,
  policy: [protect()],
  hold: DEFAULT_HOLD,
  counters: newTunnelCounters(shared),
});

function sender(crypto: CryptoProvider = nodeProvider): {
  readonly plane: SendPlane;
  readonly reports: PlaneReport[];
  readonly released: number[];
} {
  const reports: PlaneReport[] = [];
  const released: number[] = [];
  const plane = new SendPlane({
    crypto,
    random: (length) => new Uint8Array(length),
    maxPacket: 2_000,
    report: (report) => reports.push(report),
    onReleased: (batch) => released.push(batch.count),
    onDeviceWrite: () => undefined,
  });
  return { plane, reports, released };
}

function receiver(crypto: CryptoProvider = nodeProvider): {
  readonly plane: ReceivePlane;
  readonly drops: Float64Array;
} {
  const drops = newDropCounters();
  const options = { crypto, report: () => undefined, fragmentSeed: 1, reportEvery: 0 };
  return { plane: new ReceivePlane({ ...options, drops }), drops };
}

/** What leaves for some packets. */
function sealed(plane: SendPlane, count: number): Uint8Array[] {
  const batch = new PacketBatch(count, 2_000);
  for (let i = 0; i < count; i++) batch.push(packet('10.1.0.1', '10.2.0.1', `p${i}`));
  plane.process(0, 0, batch);
  return Array.from({ length: count }, (_, slot) => batch.packet(slot).slice()).filter((data) => data.length > 0);
}

function open(plane: ReceivePlane, packets: readonly Uint8Array[]): number {
  const batch = new PacketBatch(packets.length, 2_000);
  for (const data of packets) batch.push(data.slice());
  plane.open(
    0,
    batch,
    packets.map(() => PATH),
  );
  return packets.filter((_, slot) => batch.length[slot]! > 0).length;
}

const sequences = (packets: readonly Uint8Array[]): number[] => packets.map((data) => data[7]!);
const spis = (packets: readonly Uint8Array[]): number[] => packets.map((data) => data[2]! * 256 + data[3]!);

describe('a plane that takes the place of another', () => {
  it('uses no sequence number again, sends on the SA that was sent on last, and counts on', () => {
    const records = new SendRecords(new KeySlots());
    const first = sender();
    const commands: SendCommand[] = [
      addDevice(),
      addTunnel(),
      { type: 'hold', tunnel: 0, hold: true, forget: false },
      install(1),
      { type: 'activate', id: 1, afterIke: false },
      install(2),
      install(3),
      { type: 'activate', id: 3, afterIke: false },
      { type: 'activate', id: 2, afterIke: false },
      { type: 'remove', id: 1 },
      { type: 'fit', id: 2, mtu: 1_300, room: 1_352, clampMtu: 1_300 },
      // Of packets that wait now, which another has none of.
      { type: 'ask-again', tunnel: 0 },
      { type: 'refuse', tunnel: 0, children: ['c'], selectors: undefined, until: 1_000 },
    ];
    for (const command of commands) first.plane.apply(0, structuredClone(records.note(command)));
    expect(sequences(sealed(first.plane, 3))).toEqual([1, 2, 3]);
    const next = sender();
    for (const command of records.restore()) next.plane.apply(0, structuredClone(command));
    const after = sealed(next.plane, 2);
    expect(sequences(after)).toEqual([4, 5]);
    expect(spis(after)).toEqual([0x1002, 0x1002]);
    expect(next.plane.size).toBe(2);
    expect(next.plane.sa(2)?.mtu).toBe(1_300);
    expect(next.plane.sa(2)?.usage.counters[0]).toBe(5);
    // It holds packets as its predecessor did.
    for (const id of [2, 3]) next.plane.apply(0, { type: 'remove', id });
    sealed(next.plane, 1);
    expect(next.reports).toMatchObject([
      { type: 'missing', tunnel: 0, child: 'c', trigger: { local: [{ startPort: 1000 }] } },
    ]);
  });

  it('has the policy that its predecessor was given last, with the SAs in use that were', () => {
    const records = new SendRecords(new KeySlots());
    const first = sender();
    const policy = (...entries: PolicyEntry[]): SendCommand => ({ type: 'policy', tunnel: 0, policy: entries });
    const discard = protect({ name: 'first', action: 'discard', child: undefined });
    const commands: SendCommand[] = [
      ...[addDevice(), addTunnel(), install(1), install(2)],
      { type: 'activate', id: 2, afterIke: false },
      policy(discard, protect()),
    ];
    for (const command of commands) first.plane.apply(0, structuredClone(records.note(command)));
    const next = sender();
    for (const command of records.restore()) next.plane.apply(0, structuredClone(command));
    for (const { plane } of [first, next]) expect(sealed(plane, 2)).toEqual([]);
    for (const { plane } of [first, next]) plane.apply(0, structuredClone(records.note(policy(protect()))));
    for (const { plane } of [first, next]) expect(spis(sealed(plane, 1))).toEqual([0x1002]);
    // The one that was not in use is there still.
    next.plane.apply(0, { type: 'activate', id: 1, afterIke: false });
    expect(spis(sealed(next.plane, 1))).toEqual([0x1001]);
  });

  it('takes no packet twice, whichever of the two took it first', () => {
    const out = sender();
    for (const command of [
      addDevice(),
      addTunnel(),
      install(1),
      { type: 'activate', id: 1, afterIke: false } as const,
    ]) {
      out.plane.apply(0, command);
    }
    const packets = sealed(out.plane, 80);
    const records = new ReceiveRecords(new KeySlots());
    const first = receiver();
    first.plane.apply(structuredClone(records.note(installInbound(1))));
    // Every other one of them.
    expect(
      open(
        first.plane,
        packets.filter((_, i) => i < 60 && i % 2 === 0),
      ),
    ).toBe(30);
    const next = receiver();
    for (const command of records.restore()) next.plane.apply(structuredClone(command));
    // What was overtaken by the newest that was seen is lost; what comes after it is not.
    expect(open(next.plane, packets)).toBe(80 - 59);
    expect(namedDrops(next.drops)).toEqual({ replay: 59 });
    expect(open(next.plane, packets)).toBe(0);
  });

  it('is told of SAs that are received on only a while longer', () => {
    const records = new ReceiveRecords(new KeySlots());
    for (const command of [installInbound(1), installInbound(2)]) records.note(command);
    records.note({ type: 'supersede', id: 1 });
    records.note({ type: 'path', id: 2, path: { ...PATH, remote: at('192.0.2.9', 4500) } });
    const told = [...records.restore()];
    expect(told.map(({ type, id }) => [type, id])).toEqual([
      ['install', 1],
      ['supersede', 1],
      ['install', 2],
    ]);
    expect(told[2]).toMatchObject({ path: { remote: at('192.0.2.9', 4500) } });
    records.note({ type: 'remove', id: 1 });
    expect([...records.restore()].map(({ id }) => id)).toEqual([2]);
  });
});

describe('several workers for each direction', () => {
  it('use each sequence number once, count together, and stay within the limits of all', () => {
    const shards = new Shards(3);
    const senders = [sender(), sender(), sender()];
    const tunnel = addTunnel();
    const sa = { ...install(1), limits: { ...UNLIMITED, hardPackets: 31, softPackets: 24 } };
    for (const command of [addDevice(), tunnel, sa, { type: 'activate', id: 1, afterIke: false } as const]) {
      for (const [shard, { plane }] of senders.entries()) {
        plane.apply(0, structuredClone(shards.sendCommand(shard, command)));
      }
    }
    const numbers = [0, 1, 2, 0, 2, 1, 1, 0, 2, 2, 1].flatMap((shard) => sequences(sealed(senders[shard]!.plane, 2)));
    expect(numbers).toEqual(Array.from({ length: 22 }, (_, i) => i + 1));
    shards.gather();
    expect(sa.state.counters[SaCounter.packets]).toBe(22);
    expect(sa.state.counters[SaCounter.lastUsed]).toBe(0);
    expect([...sa.state.sequence]).toEqual([0, 22]);
    // Each has a third of what the SA may carry, rounded down.
    for (const { plane } of senders) sealed(plane, 20);
    shards.gather();
    expect(sa.state.counters[SaCounter.packets]).toBe(30);
    expect(tunnel.type === 'add-tunnel' && namedDrops(tunnel.counters.outboundDrops)).toEqual({ 'no-sa': 52 });
    for (const { reports } of senders) {
      expect(reports.map((report) => report.type === 'limit' && report.kind)).toEqual(['soft', 'hard']);
    }
    for (const [shard, { plane }] of senders.entries()) {
      plane.apply(0, shards.sendCommand(shard, { type: 'remove', id: 1 }));
    }
    shards.sent({ type: 'remove', id: 1 });
    expect(sa.state.counters[SaCounter.packets]).toBe(30);
  });

  it('receive each SA in one place, that of its SPI, or the first for ESP without a port', () => {
    const shards = new Shards(2);
    const tunnel = addTunnel();
    if (tunnel.type !== 'add-tunnel') throw new Error('no tunnel');
    shards.sendCommand(0, tunnel);
    const { inboundDrops } = tunnel.counters;
    const raw = { local: at('192.0.2.1', NO_PORT), remote: at('192.0.2.2', NO_PORT) };
    const installs = [1, 2, 3].map((id) => installInbound(id, inboundDrops));
    const commands = [...installs, { ...installInbound(5, inboundDrops), path: raw }];
    const takers = commands.map((command) =>
      [0, 1].filter((shard) => shards.receiveCommand(shard, command) !== undefined),
    );
    expect(takers).toEqual([[1], [0], [1], [0]]);
    const other = shards.receiveCommand(1, installs[0]!);
    if (other?.type !== 'install') throw new Error('no SA');
    other.drops[DropReason.replay] = 5;
    shards.gather();
    expect(namedDrops(inboundDrops)).toEqual({ replay: 5 });
    expect(shards.receiveCommand(0, { type: 'supersede', id: 1 })).toBeUndefined();
    expect(shards.receiveCommand(1, { type: 'remove', id: 1 })).toEqual({ type: 'remove', id: 1 });
    shards.received({ type: 'remove', id: 1 });
    expect(shards.receiveCommand(1, { type: 'remove', id: 1 })).toBeUndefined();
  });

  it('are not many when there is one: it writes what the engine reads', () => {
    const shards = new Shards(1);
    const command = install(1);
    expect(shards.sendCommand(0, command)).toBe(command);
    expect(shards.inboundDrops.parts).toEqual([shards.inboundDrops.whole]);
  });

  it('end with the numbers of an SA before any of them can come round, ESN or not', () => {
    for (const esn of [false, true]) {
      const state = newSaState(shared);
      state.sequence[1] = 0xfffe_fffe;
      const { plane } = sender();
      const sa = { ...install(1), esn, state, sharers: 2 };
      for (const command of [addDevice(), addTunnel(), sa, { type: 'activate', id: 1, afterIke: false } as const]) {
        plane.apply(0, command);
      }
      expect(sealed(plane, 4).filter((data) => data.length > 0)).toHaveLength(2);
      expect([...state.sequence]).toEqual([0, 0xffff_0000]);
    }
  });
});

describe('keys', () => {
  const zeros = (length: number): number[] => new Array<number>(length).fill(0);

  it('reach a worker as a place in shared memory, never as a copy', () => {
    const command = new SendRecords(new KeySlots()).note(install(1)) as InstallOutbound;
    const { port1, port2 } = new MessageChannel();
    port1.postMessage(command);
    const received = receiveMessageOnPort(port2)!.message as InstallOutbound;
    port1.close();
    expect(received.keys.encryption).toEqual(new Uint8Array(20).fill(7));
    command.keys.encryption.fill(9);
    expect(received.keys.encryption).toEqual(new Uint8Array(20).fill(9));
  });

  it('are in one place: those that are handed in are erased, and those of the slot when it is released', () => {
    for (const makeRecords of [
      () => new SendRecords(new KeySlots()),
      () => new ReceiveRecords(new KeySlots()),
    ] as const) {
      const records = makeRecords();
      const material = new Uint8Array(64).fill(7);
      const given = { ...install(1), ...installInbound(1) };
      const command = { ...given, keys: { encryption: material.subarray(10, 30), integrity: material.subarray(40) } };
      const { keys } = records.note(command) as InstallOutbound & InstallInbound;
      expect([...keys.encryption, ...keys.integrity]).toEqual(new Array(44).fill(7));
      expect([...material.subarray(10, 30), ...material.subarray(40)]).toEqual(zeros(44));
      const slot = records.slotOf(1)!;
      records.note({ type: 'remove', id: 1 });
      // A worker may still be about to install it.
      expect(keys.encryption[0]).toBe(7);
      slot.release();
      expect([...keys.encryption, ...keys.integrity]).toEqual(zeros(44));
      expect([records.slotOf(1), ...records.restore()]).toEqual([undefined]);
    }
  });

  it('never share a slot, and take one again that was released', () => {
    const slots = new KeySlots();
    const key = (value: number): { encryption: Uint8Array; integrity: Uint8Array } => ({
      encryption: new Uint8Array(36).fill(value),
      integrity: new Uint8Array(64).fill(value),
    });
    const taken = Array.from({ length: 200 }, (_, i) => slots.take(key(i)));
    for (const [i, { keys }] of taken.entries()) expect(keys).toEqual(key(i));
    const places = new Set(taken.map(({ keys: { encryption } }) => `${encryption.byteOffset % 8192}`));
    expect(places.size).toBe(64);
    const [first] = taken;
    first!.release();
    const again = slots.take(key(5));
    expect(again.keys.encryption.buffer).toBe(first!.keys.encryption.buffer);
    expect(again.keys.encryption.byteOffset).toBe(first!.keys.encryption.byteOffset);
    expect(() => slots.take({ ...key(1), encryption: new Uint8Array(65) })).toThrow(/longer than its slot/);
  });

  it('are erased at the end, whatever is still installed', () => {
    const slots = new KeySlots();
    const passed = new SendRecords(slots).note(install(1)) as InstallOutbound;
    slots.eraseAll();
    expect([...passed.keys.encryption]).toEqual(zeros(20));
  });

  it('do not outlive the command that brings them to planes in the same thread', () => {
    const planes = new InlinePlanes({
      crypto: nodeProvider,
      random: (length) => new Uint8Array(length),
      fragmentSeed: 1,
      now: () => 0,
      report: () => undefined,
      onReleased: () => undefined,
      onDeviceWrite: () => undefined,
    });
    planes.commandSender(addDevice());
    planes.commandSender(addTunnel());
    const [sent, received] = [install(1), installInbound(1)];
    planes.commandSender(sent);
    planes.commandReceiver(received);
    expect([...sent.keys.encryption, ...received.keys.encryption]).toEqual(zeros(40));
  });

  it('of all SAs are gone from the ciphers of a worker that ends', () => {
    const wiped: number[] = [];
    const crypto: CryptoProvider = {
      ...nodeProvider,
      packetCipher: (suite, keysOf) => {
        const cipher = nodeProvider.packetCipher(suite, keysOf);
        return Object.assign(Object.create(cipher) as PacketCipher, { wipe: () => void wiped.push(1) });
      },
    };
    const { plane: sending } = sender(crypto);
    for (const command of [addDevice(), addTunnel(), install(1), install(2)]) sending.apply(0, command);
    sending.wipe();
    const { plane: receiving } = receiver(crypto);
    receiving.apply(installInbound(3));
    receiving.wipe();
    expect(wiped).toHaveLength(3);
  });
});
