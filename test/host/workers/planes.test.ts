/** The order in which IKE and the workers are told things, with workers that answer when the test lets them. */
import { describe, expect, it, vi } from 'vitest';
import type { IpAddress } from '../../../src/base/address.ts';
import type { CipherKeys } from '../../../src/crypto/types.ts';
import type { InstallOutbound, PlaneReport } from '../../../src/engine/commands.ts';
import type { Transmit } from '../../../src/engine/options.ts';
import { newDropCounters } from '../../../src/esp/drops.ts';
import { newSaState, type SaState, UNLIMITED } from '../../../src/esp/usage.ts';
import type { Handle, HandleOptions } from '../../../src/host/workers/handle.ts';
import { CONTROL_BYTES, Control, type WorkerCommand, type WorkerRole } from '../../../src/host/workers/messages.ts';
import { WorkerPlanes } from '../../../src/host/workers/planes.ts';
import { MemoryDevice } from '../../../src/tun/memory.ts';
import type { UdpSocket } from '../../../src/tun/udp/udp.ts';
import { protect } from '../../support/engine-net.ts';
import { at } from '../../support/ike-pair.ts';

class FakeLink implements Handle {
  readonly ready = Promise.resolve();
  readonly control = new Int32Array(new SharedArrayBuffer(CONTROL_BYTES));
  readonly options: HandleOptions;
  commands: WorkerCommand[] = [];
  issued = 0;
  applied = 0;
  down = false;
  stopped = false;

  constructor(options: HandleOptions) {
    this.options = options;
  }

  get status(): Handle['status'] {
    return { role: this.options.setup.role, running: !this.down, restarts: 0, cpu: 0 };
  }

  hasApplied(ticket: number): boolean {
    return this.down || this.applied >= ticket;
  }

  post(command: WorkerCommand): void {
    this.commands.push(command);
    this.issued++;
  }

  async stop(): Promise<void> {
    this.stopped = true;
  }

  /** Carries out all that it was told. */
  apply(): void {
    this.applied = this.issued;
    this.options.onProgress();
  }

  crash(): void {
    this.down = true;
    this.options.onCrash('it broke', 100);
    this.options.onProgress();
  }

  types(): string[] {
    return this.commands.map((command) => ('command' in command ? command.command.type : command.type));
  }
}

function make() {
  const handles = new Map<WorkerRole, FakeLink>();
  const sent: string[] = [];
  const reports: PlaneReport[] = [];
  const datagrams: number[] = [];
  const crashes: string[] = [];
  const planes = new WorkerPlanes(
    {
      pairs: 1,
      crypto: 'node',
      fragmentSeed: 1,
      now: () => 0,
      onReport: (report) => reports.push(report),
      onDatagram: (data) => datagrams.push(data.length),
      onTransmit: ({ data }) => sent.push(String(data[0])),
      onDeviceLost: () => undefined,
      onTooLarge: () => undefined,
      onPathReport: () => undefined,
      onRefusal: () => undefined,
      onCrash: (text) => crashes.push(text),
    },
    (options) => {
      const handle = new FakeLink(options);
      handles.set(options.setup.role, handle);
      return handle;
    },
  );
  return { planes, sent, reports, datagrams, crashes, send: handles.get('send')!, receive: handles.get('receive')! };
}

const PATH = { local: at('192.0.2.1', 4500), remote: at('192.0.2.2', 4500) };
const message = (number: number): Transmit => ({ path: PATH, data: Uint8Array.of(number), trafficClass: 0 });

describe('keys of an SA', () => {
  const keysOf = (handle: FakeLink): CipherKeys => {
    const [command] = handle.commands.flatMap((posted) => ('command' in posted ? [posted.command] : []));
    return (command as InstallOutbound).keys;
  };
  const erased = new Uint8Array(20);
  const there = new Uint8Array(20).fill(7);

  function installed(): ReturnType<typeof make> {
    const made = make();
    const { selectors } = protect();
    const keys = (): CipherKeys => ({ encryption: there.slice(), integrity: new Uint8Array(0) });
    const common = { id: 1, tunnel: 0, spi: 0x1000, child: 'c', selectors, encryption: 'aes128gcm16' } as const;
    const rest = { integrity: undefined, esn: false, limits: UNLIMITED, path: PATH, clampMtu: 1_400 } as const;
    const state = (): SaState => newSaState((bytes) => new SharedArrayBuffer(bytes));
    const install = { type: 'install', ...common, ...rest, transport: undefined } as const;
    const outbound = { mtu: 1_400, room: 1_452, dscp: undefined, tfc: undefined, offered: undefined };
    const inbound = { device: 0, guard: undefined, replayWindow: 64, drops: newDropCounters() };
    made.planes.commandSender({ ...install, ...outbound, keys: keys(), state: state() });
    made.planes.commandReceiver({ ...install, ...inbound, keys: keys(), state: state() });
    return made;
  }

  it('are erased when all workers have removed it, and not before: one may still be about to install it', () => {
    const { planes, send, receive } = installed();
    for (const [give, handle] of [
      [() => planes.commandSender({ type: 'remove', id: 1 }), send],
      [() => planes.commandReceiver({ type: 'remove', id: 1 }), receive],
    ] as const) {
      const { encryption } = keysOf(handle);
      give();
      expect(encryption).toEqual(there);
      send.apply();
      expect(encryption).toEqual(there);
      receive.apply();
      expect(encryption).toEqual(erased);
    }
  });

  it('are erased at once when the worker is gone, and stay for the next one otherwise', () => {
    const { planes, send, receive } = installed();
    const { encryption } = keysOf(send);
    send.crash();
    receive.apply();
    const [again] = [...send.options.restore()].flatMap((posted) => ('command' in posted ? [posted.command] : []));
    expect((again as InstallOutbound).keys.encryption).toBe(encryption);
    expect(encryption).toEqual(there);
    planes.commandSender({ type: 'remove', id: 1 });
    expect(encryption).toEqual(erased);
  });

  it('are erased when the planes are closed', async () => {
    const { planes, send, receive } = installed();
    const keys = [keysOf(send).encryption, keysOf(receive).encryption];
    await planes.close();
    expect(keys).toEqual([erased, erased]);
  });
});

describe('what IKE says', () => {
  it('goes out at once when nothing is to be done before', () => {
    const { planes, sent } = make();
    planes.transmit([message(1), message(2)]);
    expect(sent).toEqual(['1', '2']);
  });

  it('waits until both workers have done what was asked before, in its order', () => {
    const { planes, sent, send, receive } = make();
    planes.commandReceiver({ type: 'remove', id: 1 });
    planes.commandSender({ type: 'remove', id: 1 });
    planes.transmit([message(1)]);
    planes.commandReceiver({ type: 'remove', id: 2 });
    planes.transmit([message(2)]);
    send.apply();
    expect(sent).toEqual([]);
    receive.applied = 1;
    receive.options.onProgress();
    expect(sent).toEqual(['1']);
    receive.apply();
    expect(sent).toEqual(['1', '2']);
  });

  it('goes before the use of an SA that the peer only learns of by it, and behind that of all others', () => {
    const { planes, sent, send } = make();
    planes.commandSender({ type: 'activate', id: 1, afterIke: false });
    planes.commandSender({ type: 'activate', id: 2, afterIke: true });
    planes.transmit([message(1)]);
    expect(send.types()).toEqual(['activate']);
    expect(sent).toEqual([]);
    send.apply();
    expect(sent).toEqual(['1']);
    expect(send.commands.map((command) => ('command' in command ? command.command : undefined))).toMatchObject([
      { id: 1 },
      { id: 2 },
    ]);
  });

  it('does not wait for a worker that is not there', () => {
    const { planes, sent, send, receive, crashes } = make();
    planes.commandReceiver({ type: 'remove', id: 1 });
    planes.commandSender({ type: 'remove', id: 1 });
    planes.transmit([message(1)]);
    send.apply();
    receive.crash();
    expect(sent).toEqual(['1']);
    expect(crashes).toEqual([
      expect.stringContaining('A new one starts in 100 ms; until then no packets are received by it'),
    ]);
  });

  it('is dropped from the oldest on when too much of it waits', () => {
    const { planes, sent, send } = make();
    planes.commandSender({ type: 'remove', id: 1 });
    planes.transmit(Array.from({ length: 5_000 }, (_, i) => message(i % 256)));
    send.apply();
    expect(sent).toHaveLength(4_096);
  });
});

describe('devices', () => {
  it('are closed only when both workers have let go of them, or are gone', async () => {
    const { planes, send, receive } = make();
    const device = Object.assign(new MemoryDevice(), { handOver: () => [{ fd: 9, offload: 'all' as const }] });
    planes.openDevice(3, device);
    expect([send.types(), receive.types()]).toEqual([['open-device'], ['open-device']]);
    expect([...send.options.restore()]).toHaveLength(1);
    let closed = false;
    const closing = planes.closeDevice(3).then(() => {
      closed = true;
    });
    send.apply();
    await Promise.resolve();
    expect(closed).toBe(false);
    receive.crash();
    await closing;
    expect([...send.options.restore(), ...receive.options.restore()]).toEqual([]);
    await planes.closeDevice(3);
  });

  it('that belong to this thread alone are refused', () => {
    expect(() => make().planes.openDevice(1, new MemoryDevice())).toThrow('cannot be handed to worker threads');
  });
});

describe('a handle-local peer', () => {
  it('keeps its IPv6 zone, which a copy of its address lacks', () => {
    const { planes, send } = make();
    const path = { ...PATH, remote: at('fe80::1', 4500) };
    const descriptor = { fd: 9, local: PATH.local, gro: false, gso: false, ecn: false };
    const socket = {
      local: PATH.local,
      handOver: () => [descriptor],
      scopeOf: (address: IpAddress) => (address === path.remote.address ? 3 : 0),
    };
    planes.openSocket(socket as unknown as UdpSocket);
    for (const each of [path, PATH]) planes.commandSender({ type: 'path', id: 1, path: each });
    expect(send.commands.slice(1)).toMatchObject([{ scope: 3 }, { scope: 0 }]);
  });
});

describe('what workers tell', () => {
  it('reaches engine and host; datagrams are no longer under way then', () => {
    const { planes, receive, datagrams, reports } = make();
    receive.control[Control.underWay] = 1;
    receive.control[Control.keepalives] = 4;
    receive.options.onReports([
      { type: 'datagram', data: new Uint8Array(30), from: PATH.remote, local: PATH.local },
      { type: 'received', id: 1, path: undefined, bare: false },
    ]);
    expect([datagrams, reports]).toEqual([[30], [{ type: 'received', id: 1, path: undefined, bare: false }]]);
    expect(receive.control[Control.underWay]).toBe(0);
    expect(planes.strayCounters()).toEqual({ keepalives: 4, empty: 0, oversized: 0, overflow: 0 });
  });

  it('ends with them', async () => {
    const { planes, send, receive } = make();
    await planes.close();
    expect([send.stopped, receive.stopped]).toEqual([true, true]);
  });
});

it('a device for whose counters there is no memory is opened by no worker', () => {
  const { planes, send, receive } = make();
  const device = new MemoryDevice();
  Object.assign(device, { handOver: () => [{ fd: 7, offload: 'none' }] });
  let left = 1;
  vi.stubGlobal(
    'SharedArrayBuffer',
    class extends SharedArrayBuffer {
      constructor(bytes: number) {
        if (left-- <= 0) throw new RangeError('Array buffer allocation failed');
        super(bytes);
      }
    },
  );
  expect(() => planes.openDevice(1, device)).toThrow('allocation failed');
  vi.unstubAllGlobals();
  expect([...send.types(), ...receive.types()]).toEqual([]);
  planes.openDevice(1, device);
  expect([...send.types(), ...receive.types()]).toEqual(['open-device', 'open-device']);
});
