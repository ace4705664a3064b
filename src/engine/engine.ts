/**
 * The engine that carries packets itself: the control plane joined with a data plane in the same thread. A pure machine:
 * it has no clock, socket or timer, so its owner hands it datagrams, packets and the time, and fetches what comes of them.
 */
import { invariant } from '../base/assert.ts';
import type { PacketBatch } from '../base/batch.ts';
import type { Path } from '../ike/events.ts';
import { ControlPlane } from './control-plane.ts';
import { classify } from './demux.ts';
import { InlinePlanes } from './inline-planes.ts';
import type { DeviceWrite, EngineCounters, EngineOptions, Transmit } from './options.ts';

/**
 * Tunnels as a pure machine. `docs/library.md` describes the loop that its owner runs. Times are milliseconds of the
 * owner's clock; they must not go back.
 *
 * @example
 * ```ts
 * const engine = new Engine({ crypto: nobleProvider, random: (length) => crypto.getRandomValues(new Uint8Array(length)) });
 * engine.addTunnel(config);
 * engine.up(performance.now(), config.name);
 * for (let next = engine.pollTransmit(); next !== undefined; next = engine.pollTransmit()) {
 *   socket.send(next.data, next.path.remote);
 * }
 * ```
 */
export class Engine extends ControlPlane {
  override readonly counters: EngineCounters = {
    keepalives: 0,
    empty: 0,
    oversized: 0,
    overflow: 0,
    'path-report-ignored': 0,
  };
  /** @internal */
  readonly planes: InlinePlanes;
  // BOUNDED: drained by the owner after every call, both; the writes by each tunnel's rate limit besides.
  readonly #released: Transmit[] = [];
  readonly #deviceWrites: DeviceWrite[] = [];

  constructor(options: EngineOptions) {
    const { crypto, random, allocate } = options;
    let planes = undefined as InlinePlanes | undefined;
    super({
      ...options,
      plane: (fragmentSeed) => {
        planes = new InlinePlanes({
          crypto,
          random,
          allocate,
          fragmentSeed,
          now: () => this.now,
          report: (report) => this.applyReport(report),
          onReleased: (batch) => this.#keepReleased(batch),
          onDeviceWrite: (index, packet) => {
            const tunnel = this.tunnelOfDevice(index);
            if (tunnel !== undefined) this.#deviceWrites.push({ tunnel, packet });
          },
        });
        return planes;
      },
    });
    invariant(planes !== undefined, 'a control plane without its data plane');
    this.planes = planes;
  }

  /**
   * Takes a UDP datagram. IKE is served at once; ESP is gathered. Returns true when `flush` must not wait.
   * @param trafficClass DSCP and ECN of its IP header; 0 where the owner does not know it
   */
  override receive(now: number, path: Path, data: Uint8Array, trafficClass = 0): boolean {
    if (classify(path.local.port, data) !== 'esp') return super.receive(now, path, data);
    const { planes } = this;
    if (!planes.gather(path, data, trafficClass)) {
      if (planes.isFull) this.counters.overflow++;
      else this.counters.oversized++;
    }
    return planes.isFull;
  }

  /** Whether ESP packets wait for `flush`. */
  get hasGathered(): boolean {
    return this.planes.hasGathered;
  }

  /**
   * Opens the ESP packets that were gathered.
   * @param deliver called once for each device that packets came out for, with one of its tunnels; slots with a length hold
   *   its packets
   */
  flush(now: number, deliver: (tunnel: string, batch: PacketBatch) => void): void {
    if (!this.hasGathered) return;
    this.act(now, () => {
      this.planes.flush(now, (index, batch) => {
        const tunnel = this.tunnelOfDevice(index);
        if (tunnel !== undefined) deliver(tunnel, batch);
      });
    });
  }

  /**
   * Takes a batch of packets that were read from the tunnel's device through its policy. Slots that hold a length
   * afterwards are ESP packets to be sent to `path(batch.tag[slot])`, each with its `batch.trafficClass`.
   * @throws RangeError when there is no such tunnel
   */
  send(now: number, name: string, batch: PacketBatch): void {
    this.sendFrom(now, this.deviceOf(this.tunnelNamed(name)).index, batch);
  }

  /** The same for the number of a device. @internal */
  sendFrom(now: number, device: number, batch: PacketBatch): void {
    this.act(now, () => this.planes.sending.process(now, device, batch));
  }

  /** Where packets with this tag go; `undefined` when their SA is gone. */
  path(tag: number): Path | undefined {
    return this.planes.sending.path(tag);
  }

  /** The next datagram to be sent. IKE first: the peer can open what was released only after it has read of its SA. */
  override pollTransmit(): Transmit | undefined {
    return super.pollTransmit() ?? this.#released.shift();
  }

  /** The next packet to be written to the device of a tunnel. */
  pollDeviceWrite(): DeviceWrite | undefined {
    return this.#deviceWrites.shift();
  }

  /** Packets that waited for their SA go out behind what IKE has to say. */
  #keepReleased(batch: PacketBatch): void {
    for (let slot = 0; slot < batch.count; slot++) {
      const path = batch.length[slot] === 0 ? undefined : this.path(batch.tag[slot]!);
      if (path === undefined) continue;
      this.#released.push({ path, data: batch.packet(slot).slice(), trafficClass: batch.trafficClass[slot]! });
    }
  }
}
