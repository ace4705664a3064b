/** The data plane taken over by another: as when a worker thread ends and its successor is told everything again. */
import { describe, expect, it } from 'vitest';
import { PacketBatch } from '../../src/base/batch.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import { ReceiveRecords, SendRecords } from '../../src/daemon/workers/records.ts';
import type { InstallInbound, InstallOutbound, PlaneReport, SendCommand } from '../../src/engine/commands.ts';
import { newTunnelCounters } from '../../src/engine/commands.ts';
import { DEFAULT_HOLD } from '../../src/engine/hold.ts';
import { ReceivePlane } from '../../src/engine/receive-plane.ts';
import { SendPlane } from '../../src/engine/send-plane.ts';
import { namedDrops, newDropCounters } from '../../src/esp/drops.ts';
import { newSaState, UNLIMITED } from '../../src/esp/usage.ts';
import type { Path } from '../../src/ike/events.ts';
import { packet, protect } from '../support/engine-net.ts';
import { at } from '../support/ike-pair.ts';

const PATH: Path = { local: at('192.0.2.1', 4500), remote: at('192.0.2.2', 4500) };
const shared = (bytes: number): SharedArrayBuffer => new SharedArrayBuffer(bytes);
const keys = (): { encryption: Uint8Array; integrity: Uint8Array } => ({
  encryption: new Uint8Array(20).fill(7),
  integrity: new Uint8Array(0),
});

const common = { encryption: 'aes128gcm16', integrity: undefined, esn: false, limits: UNLIMITED, path: PATH } as const;
const sizes = { mtu: 1_400, clampMtu: 1_400, dscp: undefined, tfc: undefined } as const;

function install(id: number): InstallOutbound {
  const { selectors } = protect();
  const own = { id, tunnel: 0, spi: 0x1000 + id, keys: keys(), selectors, state: newSaState(shared), child: 'c' };
  return { type: 'install', ...common, ...sizes, ...own, transport: undefined };
}

function installInbound(id: number, drops = newDropCounters()): InstallInbound {
  const { local, remote } = protect().selectors;
  const selectors = { local: remote, remote: local };
  const own = { id, tunnel: 0, spi: 0x1000 + id, keys: keys(), selectors, state: newSaState(shared), drops };
  return { type: 'install', ...common, clampMtu: 1_400, replayWindow: 64, ...own, transport: undefined };
}

const addTunnel = (): SendCommand => ({
  type: 'add-tunnel',
  tunnel: 0,
  policy: [protect()],
  hold: DEFAULT_HOLD,
  fragmentSeed: 1,
  counters: newTunnelCounters(shared),
});

function sender(): { readonly plane: SendPlane; readonly reports: PlaneReport[]; readonly released: number[] } {
  const reports: PlaneReport[] = [];
  const released: number[] = [];
  const plane = new SendPlane({
    crypto: nodeProvider,
    random: (length) => new Uint8Array(length),
    maxPacket: 2_000,
    report: (report) => reports.push(report),
    onReleased: (batch) => released.push(batch.count),
    onAnswer: () => undefined,
  });
  return { plane, reports, released };
}

function receiver(): { readonly plane: ReceivePlane; readonly drops: Float64Array } {
  const drops = newDropCounters();
  const options = { crypto: nodeProvider, report: () => undefined, fragmentSeed: 1, reportEvery: 0 };
  return { plane: new ReceivePlane({ ...options, drops }), drops };
}

/** What leaves for some packets. */
function sealed(plane: SendPlane, count: number): Uint8Array[] {
  const batch = new PacketBatch(count, 2_000);
  for (let i = 0; i < count; i++) batch.push(packet('10.1.0.1', '10.2.0.1', `p${i}`));
  plane.process(0, 0, batch);
  return Array.from({ length: count }, (_, slot) => batch.packet(slot).slice());
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
    const records = new SendRecords();
    const first = sender();
    const commands: SendCommand[] = [
      addTunnel(),
      { type: 'hold', tunnel: 0, hold: true, forget: false },
      install(1),
      { type: 'activate', id: 1, afterIke: false },
      install(2),
      install(3),
      { type: 'activate', id: 3, afterIke: false },
      { type: 'activate', id: 2, afterIke: false },
      { type: 'remove', id: 1 },
      { type: 'fit', id: 2, mtu: 1_300, clampMtu: 1_300 },
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
    expect(next.reports).toEqual([{ type: 'missing', tunnel: 0, child: 'c' }]);
  });

  it('takes no packet twice, whichever of the two took it first', () => {
    const out = sender();
    for (const command of [addTunnel(), install(1), { type: 'activate', id: 1, afterIke: false } as const]) {
      out.plane.apply(0, command);
    }
    const packets = sealed(out.plane, 80);
    const records = new ReceiveRecords();
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
    const records = new ReceiveRecords();
    for (const command of [installInbound(1), installInbound(2)]) records.note(command);
    records.note({ type: 'retire', id: 1 });
    records.note({ type: 'path', id: 2, path: { ...PATH, remote: at('192.0.2.9', 4500) } });
    const told = [...records.restore()];
    expect(told.map(({ type, id }) => [type, id])).toEqual([
      ['install', 1],
      ['retire', 1],
      ['install', 2],
    ]);
    expect(told[2]).toMatchObject({ path: { remote: at('192.0.2.9', 4500) } });
    records.note({ type: 'remove', id: 1 });
    expect([...records.restore()].map(({ id }) => id)).toEqual([2]);
  });
});

describe('keys', () => {
  it('are kept in one place, and wiped there when the SA goes', () => {
    for (const records of [new SendRecords(), new ReceiveRecords()] as const) {
      // Cut from more key material, none of which may travel along.
      const material = new Uint8Array(64).fill(7);
      const given = { ...install(1), ...installInbound(1) };
      const command = { ...given, keys: { encryption: material.subarray(10, 30), integrity: material.subarray(64) } };
      const passed = records.note(command) as InstallOutbound & InstallInbound;
      expect(passed.keys.encryption.buffer.byteLength).toBe(20);
      expect(passed.keys.encryption[0]).toBe(7);
      expect([...material.subarray(10, 30)]).toEqual(new Array(20).fill(0));
      records.note({ type: 'remove', id: 1 });
      expect([...passed.keys.encryption]).toEqual(new Array(20).fill(0));
      expect([...records.restore()]).toEqual([]);
    }
  });

  it('are wiped at the end, whatever is still installed', () => {
    const records = new SendRecords();
    const passed = records.note(install(1)) as InstallOutbound;
    records.clear();
    expect([...passed.keys.encryption]).toEqual(new Array(20).fill(0));
  });

  it('do not outlive the command that brings them', () => {
    const { plane } = sender();
    plane.apply(0, addTunnel());
    const command = install(1);
    plane.apply(0, command);
    expect([...command.keys.encryption]).toEqual(new Array(20).fill(0));
  });
});
