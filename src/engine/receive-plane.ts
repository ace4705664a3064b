/** The receiving half of the data plane: the inbound pipeline with its SAs (RFC 4301 §5.2), and reports about peers. */
import { assertNever } from '../base/assert.ts';
import type { PacketBatch } from '../base/batch.ts';
import { readI32 } from '../base/bytes.ts';
import type { CryptoProvider } from '../crypto/types.ts';
import { type DropCounters, DropReason } from '../esp/drops.ts';
import { InboundPipeline } from '../esp/inbound.ts';
import { EspInboundSa } from '../esp/inbound-sa.ts';
import type { Path } from '../ike/events.ts';
import { CompiledSelectors } from '../policy/compiled.ts';
import { FragmentTracker } from '../policy/fragments.ts';
import { InboundGuard } from '../policy/guard.ts';
import type { InstallInbound, PlaneReport, ReceiveCommand } from './commands.ts';
import { type EarlyPacket, EarlyPackets } from './early.ts';
import { hasMoved, isBare } from './paths.ts';
import { installedCipher } from './suite.ts';

/**
 * An SA is reported when its first packet comes, and then at most once in this many milliseconds: enough to know that the peer
 * is alive, at a bounded cost for thousands of SAs. A peer that seems to have moved is reported sooner.
 */
const REPORT_EVERY = 1_000;
const REPORT_MOVED_EVERY = 100;

const NONE: readonly EarlyPacket[] = [];

export interface ReceivePlaneOptions {
  readonly crypto: CryptoProvider;
  readonly report: (report: PlaneReport) => void;
  readonly fragmentSeed: number;
  /** All drops, those of packets without an SA included. */
  readonly drops: DropCounters;
}

interface ReceiveSa {
  readonly sa: EspInboundSa;
  readonly child: string;
  path: Path;
  superseded: boolean;
  reportedAt: number;
}

export class ReceivePlane {
  readonly #options: ReceivePlaneOptions;
  readonly #inbound: InboundPipeline;
  // BOUNDED: by the pipeline.
  readonly #sas = new Map<number, ReceiveSa>();
  readonly #early = new EarlyPackets();
  /** Early packets whose SAs were installed meanwhile. BOUNDED: by `#early`. */
  #ready: EarlyPacket[] = [];
  /** By slot: the path that each packet of the current batch came by. */
  #paths: readonly Path[] = [];

  constructor(options: ReceivePlaneOptions) {
    this.#options = options;
    this.#inbound = new InboundPipeline({
      drops: options.drops,
      fragments: new FragmentTracker({ seed: options.fragmentSeed }),
      onUnknown: (batch, slot) => this.#hold(batch, slot),
    });
  }

  apply(command: ReceiveCommand): void {
    if (command.type === 'install') {
      this.#install(command);
      return;
    }
    if (command.type === 'expect') {
      this.#early.expect(command.spi, command.until);
      return;
    }
    const found = this.#sas.get(command.id);
    if (found === undefined) return;
    switch (command.type) {
      case 'supersede':
        found.superseded = true;
        return;
      case 'remove':
        this.#sas.delete(command.id);
        this.#inbound.remove(found.sa);
        return;
      case 'path':
        found.path = command.path;
        return;
      case 'fit':
        found.sa.clampMtu = command.clampMtu;
        return;
      case 'guard':
        found.sa.guard = command.guard && new InboundGuard(command.guard, found.child);
        return;
      default:
        assertNever(command, 'receive command');
    }
  }

  /**
   * Opens a batch of ESP packets in place. Slots with a length then hold packets for the device `batch.tag[slot]`.
   * @param paths by slot, where each came from
   */
  open(now: number, batch: PacketBatch, paths: readonly Path[]): void {
    const inbound = this.#inbound;
    this.#paths = paths;
    inbound.process(now, batch);
    let last: EspInboundSa | undefined;
    for (let slot = 0; slot < batch.count; slot++) {
      const sa = inbound.slotSa[slot];
      if (sa === undefined) continue;
      // Only the newest authentic packet shows where the peer is: an older one may have come from its former address.
      const newest = inbound.slotAdvanced[slot] === 1;
      if (sa === last && !newest) continue;
      const found = this.#sas.get(sa.id);
      if (found === undefined || found.superseded) continue;
      const moved = newest && hasMoved(found.path, paths[slot]!);
      if (sa !== last || moved) this.#received(now, found, paths[slot]!, { moved });
      last = sa;
    }
    this.#reportLimits();
  }

  /** When `expire` is due next; `Infinity` for never. */
  nextDeadline(): number {
    return Math.min(this.#inbound.nextDeadline(), this.#early.next());
  }

  /** Applies time limits to SAs that may be idle, and gives up packets whose SA did not come. */
  expire(now: number): void {
    this.#inbound.expire(now);
    this.#drop(this.#early.expire(now));
    this.#reportLimits();
  }

  /** Takes packets that came before their SA was installed: to be called after `apply`, and to be opened like others. */
  takeEarly(): readonly EarlyPacket[] {
    if (this.#ready.length === 0) return NONE;
    const ready = this.#ready;
    this.#ready = [];
    return ready;
  }

  #hold(batch: PacketBatch, slot: number): boolean {
    const spi = readI32(batch.buffer, batch.offset[slot]!);
    return this.#early.hold(spi, batch.packet(slot), this.#paths[slot]!, batch.trafficClass[slot]!);
  }

  #drop(packets: number): void {
    this.#inbound.drops[DropReason.unknownSpi]! += packets;
  }

  /** The receiving SA of a CHILD SA. */
  sa(id: number): EspInboundSa | undefined {
    return this.#sas.get(id)?.sa;
  }

  /** Forgets the keys of all SAs; the plane must not be used afterwards. */
  wipe(): void {
    for (const { sa } of this.#sas.values()) sa.wipe();
  }

  /** SAs that packets are received on. */
  get size(): number {
    return this.#inbound.size;
  }

  #install(command: InstallInbound): void {
    const sa = new EspInboundSa({
      id: command.id,
      spi: command.spi,
      cipher: installedCipher(this.#options.crypto, command),
      esn: command.esn,
      selectors: new CompiledSelectors(command.selectors),
      guard: command.guard && new InboundGuard(command.guard, command.child),
      transport: command.transport,
      tag: command.device,
      limits: command.limits,
      replayWindow: command.replayWindow,
      state: command.state,
      drops: command.drops,
    });
    sa.clampMtu = command.clampMtu;
    if (this.#inbound.add(sa)) {
      const { child, path } = command;
      this.#sas.set(command.id, { sa, child, path, superseded: false, reportedAt: Number.NEGATIVE_INFINITY });
      this.#ready.push(...this.#early.take(command.spi));
    } else {
      sa.wipe();
    }
  }

  #received(now: number, found: ReceiveSa, seen: Path, { moved }: { readonly moved: boolean }): void {
    if (now - found.reportedAt < (moved ? REPORT_MOVED_EVERY : REPORT_EVERY)) return;
    found.reportedAt = now;
    const path = moved ? seen : undefined;
    this.#options.report({ type: 'received', id: found.sa.id, path, bare: isBare(found.path, seen) });
  }

  #reportLimits(): void {
    for (const { sa, kind } of this.#inbound.takeSignals()) {
      this.#options.report({ type: 'limit', id: sa.id, kind });
    }
  }
}
