/**
 * The security association database (RFC 4301 §4.4.2): turns CHILD SAs that IKE negotiated into ESP SAs, installs
 * them in the pipelines, and finds them again by child, by SPI and by path.
 */
import type { PacketBatch } from '../base/batch.ts';
import { espRoom, MIN_MTU } from '../base/mtu.ts';
import type { CryptoProvider } from '../crypto/types.ts';
import { InboundPipeline } from '../esp/inbound.ts';
import { EspInboundSa } from '../esp/inbound-sa.ts';
import { EspOutboundSa } from '../esp/outbound-sa.ts';
import type { LimitKind, SaLimits } from '../esp/usage.ts';
import type { ChildLifetime } from '../ike/config.ts';
import type { ChildSa, DownReason, Path } from '../ike/events.ts';
import { CompiledSelectors } from '../policy/compiled.ts';
import { FragmentTracker } from '../policy/fragments.ts';
import { childSummary } from './events.ts';
import { PathTable, samePath } from './paths.ts';
import type { EngineChild, Tunnel } from './tunnel.ts';

/** A limit in bytes or packets asks for a new SA when this part of it is used. */
const SOFT_PART = 7 / 8;

/**
 * An SA that was replaced is received on so long after its deletion (RFC 7296 §2.8): what the peer sent on it may have
 * been overtaken by the message that deletes it.
 */
const OVERTAKEN = 5_000;
const MAX_RETIRED = 256;
/** No IP packet is larger. */
const MAX_PACKET = 0xffff;

interface RetiredSa {
  readonly child: EngineChild;
  readonly until: number;
}

/** What is told to IKE of the SAs that a batch came by. */
export interface SaObserver {
  /** An authentic packet came; `path` is where from, if that is elsewhere than before and the packet was the newest. */
  received(child: EngineChild, path: Path | undefined): void;
  limitReached(child: EngineChild, kind: LimitKind): void;
}

export class SaTable {
  readonly inbound: InboundPipeline;
  readonly #crypto: CryptoProvider;
  readonly #paths = new PathTable();
  /** By child id. BOUNDED: by IKE. */
  readonly #children = new Map<number, EngineChild>();
  /** The oldest first. BOUNDED: MAX_RETIRED and OVERTAKEN. */
  #retired: RetiredSa[] = [];

  constructor(crypto: CryptoProvider, fragmentSeed: number) {
    this.inbound = new InboundPipeline({ fragments: new FragmentTracker({ seed: fragmentSeed }) });
    this.#crypto = crypto;
  }

  get(childId: number): EngineChild | undefined {
    return this.#children.get(childId);
  }

  /** Where packets with this tag go. */
  path(tag: number): Path | undefined {
    return this.#paths.get(tag);
  }

  /**
   * Installs both directions and wipes the keys that IKE handed over. Packets leave on it at once if `sendNow`.
   * Returns `undefined` when there is no room for it.
   */
  install(now: number, tunnel: Tunnel, sa: ChildSa, sendNow: boolean): EngineChild | undefined {
    const pathIndex = this.#paths.add(sa.path);
    const selectors = new CompiledSelectors(sa.selectors);
    const common = { id: sa.id, esn: sa.esn, selectors, limits: limitsOf(now, sa.config.lifetime) };
    const inbound = new EspInboundSa({
      ...common,
      spi: sa.spiIn,
      cipher: this.#crypto.packetCipher(sa.suite, sa.keysIn),
      tag: tunnel.index,
      replayWindow: tunnel.config.replayWindow,
    });
    const outbound = new EspOutboundSa({
      ...common,
      spi: sa.spiOut,
      cipher: this.#crypto.packetCipher(sa.suite, sa.keysOut),
      pathIndex,
    });
    wipeKeys(sa);
    const child: EngineChild = {
      summary: childSummary(sa),
      ikeSaId: sa.ikeSaId,
      tunnel,
      inbound,
      outbound,
      pathIndex,
      path: sa.path,
      pathMtu: knownMtu(tunnel, sa.path),
      installedAt: now,
    };
    fitPackets(child);
    this.#children.set(sa.id, child);
    tunnel.children.set(sa.id, child);
    const entries = tunnel.entriesOf(sa.config.name);
    const fits = this.inbound.add(inbound) && entries.every((entry) => tunnel.outbound.add(entry, outbound, sendNow));
    if (fits) return child;
    this.remove(child);
    // Its SPI may be another's in the pipeline.
    inbound.wipe();
    return undefined;
  }

  /** From now on packets leave on this SA. */
  activate(childId: number): EngineChild | undefined {
    const child = this.#children.get(childId);
    if (child !== undefined) child.tunnel.outbound.activate(child.outbound);
    return child;
  }

  /** Takes the SA out of the pipelines and wipes its keys. */
  remove(child: EngineChild): void {
    this.#stopSending(child);
    this.#stopReceiving(child);
  }

  /** The same; but of an SA that another has taken the place of, packets that are under way are still received. */
  close(now: number, child: EngineChild, reason: DownReason): void {
    const { name } = child.summary;
    const replaced = [...child.tunnel.children.values()].some(
      (other) => other !== child && other.summary.name === name,
    );
    if (!replaced || reason === 'expired') {
      this.remove(child);
      return;
    }
    this.#stopSending(child);
    this.#retired.push({ child, until: now + OVERTAKEN });
    if (this.#retired.length > MAX_RETIRED) this.#stopReceiving(this.#retired.shift()!.child);
  }

  removeAllOf(tunnel: Tunnel): void {
    for (const child of [...tunnel.children.values()]) this.remove(child);
    for (const { child } of this.#retired) if (child.tunnel === tunnel) this.#stopReceiving(child);
    this.#retired = this.#retired.filter(({ child }) => child.tunnel !== tunnel);
  }

  #stopSending(child: EngineChild): void {
    this.#children.delete(child.summary.id);
    child.tunnel.children.delete(child.summary.id);
    child.tunnel.outbound.remove(child.outbound);
    this.#paths.remove(child.pathIndex);
  }

  #stopReceiving({ inbound, tunnel }: EngineChild): void {
    for (const [reason, count] of inbound.drops.entries()) tunnel.inboundDrops[reason]! += count;
    this.inbound.remove(inbound);
  }

  /** Any child of an IKE SA. */
  ofIkeSa(ikeSaId: number): EngineChild | undefined {
    for (const child of this.#children.values()) if (child.ikeSaId === ikeSaId) return child;
    return undefined;
  }

  /** The peer of an IKE SA moved. */
  move(ikeSaId: number, path: Path): void {
    for (const child of this.#children.values()) {
      if (child.ikeSaId === ikeSaId) {
        child.path = path;
        child.pathMtu = undefined;
        fitPackets(child);
        this.#paths.set(child.pathIndex, path);
      }
    }
  }

  /** A path takes outer packets of up to so many bytes in one piece. */
  setPathMtu(path: Path, mtu: number): void {
    for (const child of this.#children.values()) {
      if (child.pathMtu === mtu || !samePath(child.path, path)) continue;
      child.pathMtu = mtu;
      fitPackets(child);
    }
  }

  /** The children of an IKE SA belong to the one that replaced it (RFC 7296 §2.8). */
  adopt(oldIkeSaId: number, newIkeSaId: number): void {
    for (const child of this.#children.values()) if (child.ikeSaId === oldIkeSaId) child.ikeSaId = newIkeSaId;
  }

  /** Opens a batch of ESP packets in place; `paths` tells by slot where each came from. */
  open(now: number, batch: PacketBatch, paths: readonly Path[], observer: SaObserver): void {
    this.inbound.process(now, batch);
    let last: EngineChild | undefined;
    for (let slot = 0; slot < batch.count; slot++) {
      const sa = this.inbound.slotSa[slot];
      const child = sa === undefined ? undefined : this.#children.get(sa.id);
      if (child === undefined) continue;
      // Only the newest authentic packet shows where the peer is: an old one may come by an old way.
      const moved = this.inbound.slotAdvanced[slot] === 1 && !samePath(paths[slot]!, child.path);
      if (child !== last || moved) observer.received(child, moved ? paths[slot] : undefined);
      last = child;
    }
    this.report(this.inbound.takeSignals(), observer);
  }

  /** When `expire` is due next; `Infinity` for never. */
  nextDeadline(): number {
    return Math.min(this.inbound.nextDeadline(), this.#retired[0]?.until ?? Number.POSITIVE_INFINITY);
  }

  /** Applies time limits to SAs that may be idle, and forgets those that were replaced. */
  expire(now: number, observer: SaObserver): void {
    while (this.#retired.length > 0 && this.#retired[0]!.until <= now)
      this.#stopReceiving(this.#retired.shift()!.child);
    this.inbound.expire(now);
    this.report(this.inbound.takeSignals(), observer);
  }

  /** Passes on which SAs reached a limit. */
  report(
    signals: readonly { readonly sa: { readonly id: number }; readonly kind: LimitKind }[],
    observer: SaObserver,
  ): void {
    for (const { sa, kind } of signals) {
      const child = this.#children.get(sa.id);
      if (child !== undefined) observer.limitReached(child, kind);
    }
  }
}

/** What is known of a path from the tunnel's other SAs: from the one that a new one replaces, as a rule. */
function knownMtu(tunnel: Tunnel, path: Path): number | undefined {
  for (const other of tunnel.children.values()) if (samePath(other.path, path)) return other.pathMtu;
  return undefined;
}

/** Tells the SA how large its packets may be. */
function fitPackets({ tunnel, outbound, inbound, path, pathMtu }: EngineChild): void {
  const { mtu = MAX_PACKET, clampMss = true } = tunnel.config;
  const room = pathMtu === undefined ? MAX_PACKET : outbound.maxPacket(espRoom(pathMtu, path.remote.address.family));
  outbound.mtu = Math.max(MIN_MTU[4], room);
  outbound.clampMtu = clampMss ? Math.min(mtu, outbound.mtu) : MAX_PACKET;
  inbound.clampMtu = outbound.clampMtu;
}

/** IKE follows the time; ESP enforces its end all the same, in case a deletion gets lost. */
function limitsOf(now: number, lifetime: ChildLifetime): SaLimits {
  const bytes = lifetime.bytes === undefined ? Number.POSITIVE_INFINITY : Number(lifetime.bytes);
  const packets = lifetime.packets === undefined ? Number.POSITIVE_INFINITY : Number(lifetime.packets);
  return {
    softTime: Number.POSITIVE_INFINITY,
    // IKE takes 0 for no limit.
    hardTime: lifetime.hard > 0 ? now + lifetime.hard : Number.POSITIVE_INFINITY,
    softBytes: bytes * SOFT_PART,
    hardBytes: bytes,
    softPackets: packets * SOFT_PART,
    hardPackets: packets,
  };
}

function wipeKeys(sa: ChildSa): void {
  for (const { encryption, integrity } of [sa.keysIn, sa.keysOut]) {
    encryption.fill(0);
    integrity.fill(0);
  }
}
