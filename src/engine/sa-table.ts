/**
 * The security association database (RFC 4301 §4.4.2) of the control plane: what is known of the CHILD SAs that IKE
 * negotiated. It has the data plane install, use and forget them.
 */
import { addressKey } from '../base/address.ts';
import { espRoom, IP_HEADER, MIN_MTU, UNKNOWN_PATH_MTU } from '../base/mtu.ts';
import type { PathReport } from '../base/path-report.ts';
import { SetMap } from '../base/set-map.ts';
import type { CipherSuite } from '../crypto/types.ts';
import { MAX_SAS } from '../esp/inbound.ts';
import { MAX_SAS_PER_ENTRY } from '../esp/outbound-entry.ts';
import { type EspShape, maxPayload } from '../esp/packet.ts';
import { restoreSaState, saveSaState } from '../esp/record.ts';
import type { TfcConfig } from '../esp/tfc.ts';
import { newSaState, SaCounter, type SaLimits } from '../esp/usage.ts';
import type { ChildLifetime } from '../ike/config.ts';
import type { ChildSa, DownReason, Path } from '../ike/events.ts';
import { samePath } from '../ike/path.ts';
import { type GuardEntries, guardEntries } from '../policy/guard.ts';
import type { CounterMemory, DataPlane } from './commands.ts';
import { childSummary } from './events.ts';
import { type BelievedReport, judgeReport } from './path-reports.ts';
import { espPath } from './paths.ts';
import type { SavedEspSa } from './state/esp-sa.ts';
import { copyEspKeys, type EspKeys, wipeEspKeys } from './suite.ts';
import type { EngineChild, Tunnel } from './tunnel.ts';
import type { DeviceTable } from './tunnels/device-table.ts';

/** A limit in bytes or packets asks for a new SA when this part of it is used. */
const SOFT_PART = 7 / 8;

/**
 * Milliseconds for which packets of a superseded SA are still opened after its deletion (RFC 7296 §2.8): the message that
 * deletes it may overtake packets that the peer sent on it.
 */
const OVERTAKEN = 5_000;
const MAX_SUPERSEDED = 256;
/** SAs for the same packets, old and new ones. All are of one peer, as no other may have these packets. */
const MAX_SAME_TRAFFIC = 16;
/** No IP packet is larger. */
const MAX_PACKET = 0xffff;

interface SupersededSa {
  readonly child: EngineChild;
  readonly until: number;
}

export class SaTable {
  readonly #plane: DataPlane;
  readonly #memory: CounterMemory;
  readonly #devices: DeviceTable;
  /** By child id. BOUNDED: by IKE. */
  readonly #children = new Map<number, EngineChild>();
  /** By the id of their IKE SA. BOUNDED: as the table above. */
  readonly #byIkeSa = new SetMap<number, EngineChild>();
  /** By where the peer is. BOUNDED: as the table above. */
  readonly #byPeer = new SetMap<string, EngineChild>();
  /** SPIs that packets are received on. BOUNDED: MAX_SAS. */
  readonly #spis = new Set<number>();
  /** The oldest first. BOUNDED: MAX_SUPERSEDED and OVERTAKEN. */
  #superseded: SupersededSa[] = [];
  readonly #keepsKeys: boolean;
  /** By our SPI, while SAs of another process are resumed. BOUNDED: by the record. */
  #resumed = new Map<number, SavedEspSa>();
  /** The moment of their record. */
  #savedAt = 0;

  constructor(
    plane: DataPlane,
    memory: CounterMemory,
    devices: DeviceTable,
    { keepsKeys }: { readonly keepsKeys: boolean },
  ) {
    this.#plane = plane;
    this.#memory = memory;
    this.#devices = devices;
    this.#keepsKeys = keepsKeys;
  }

  get(childId: number): EngineChild | undefined {
    return this.#children.get(childId);
  }

  /** When a packet last came or went on an SA. */
  lastUsed(childId: number): number | undefined {
    const child = this.#children.get(childId);
    if (child === undefined) return undefined;
    this.#plane.refresh?.();
    const used = Math.max(child.sent.counters[SaCounter.lastUsed]!, child.received.counters[SaCounter.lastUsed]!);
    return used < 0 ? undefined : used;
  }

  /**
   * Has both directions installed; packets leave on it after `activate`. The keys that IKE handed over are wiped here,
   * or by the data plane that takes them. Returns `undefined` when there is no room for it.
   */
  install(now: number, tunnel: Tunnel, sa: ChildSa): EngineChild | undefined {
    if (!this.#hasRoom(tunnel, sa)) {
      wipeEspKeys(sa);
      return undefined;
    }
    const path = espPath(sa);
    const resumed = this.#resumed.get(sa.spiIn);
    const child: EngineChild = {
      summary: childSummary(sa),
      ikeSaId: sa.ikeSaId,
      tunnel,
      received: newSaState(this.#memory),
      sent: newSaState(this.#memory),
      keys: this.#keepsKeys ? copyEspKeys(sa) : undefined,
      shape: shapeOf(sa.suite),
      path,
      receivesBare: false,
      pathMtu: this.#knownMtu(sa.ikeSaId, path),
      installedAt: resumed === undefined ? now : this.#savedAt + resumed.installedAt,
    };
    if (resumed !== undefined) {
      restoreSaState(resumed.received, child.received, this.#savedAt);
      restoreSaState(resumed.sent, child.sent, this.#savedAt);
    }
    this.#children.set(sa.id, child);
    tunnel.addChild(child);
    this.#byIkeSa.add(sa.ikeSaId, child);
    this.#byPeer.add(peerOf(child), child);
    this.#spis.add(sa.spiIn);
    const common = {
      type: 'install',
      id: sa.id,
      tunnel: tunnel.index,
      child: sa.config.name,
      encryption: sa.suite.encryption.name,
      integrity: sa.suite.integrity?.name,
      esn: sa.esn,
      selectors: sa.selectors,
      transport: sa.transport,
      limits: limitsOf(child.installedAt, sa.config.lifetime),
      path,
    } as const;
    const { mtu, room, clampMtu } = sizesOf(child);
    const { replayWindow } = tunnel.config;
    // In transport mode the outer header is the packet's own.
    const dscp = sa.transport === undefined ? tunnel.config.dscp : undefined;
    const { inboundDrops: drops } = tunnel.counters;
    const { index: device } = this.#devices.of(tunnel);
    const guard = this.#guardOf(child);
    const inbound = { device, spi: sa.spiIn, keys: sa.keysIn, state: child.received, clampMtu, replayWindow, drops };
    this.#plane.commandReceiver({ ...common, ...inbound, guard });
    const outbound = {
      spi: sa.spiOut,
      keys: sa.keysOut,
      state: child.sent,
      mtu,
      room,
      clampMtu,
      dscp,
      tfc: tfcOf(tunnel, sa),
    };
    this.#plane.commandSender({ ...common, ...outbound });
    return child;
  }

  /** The SAs whose keys are kept, as another process goes on with them. The keys are not copies. */
  save(at: number): SavedEspSa[] {
    this.#plane.refresh?.();
    return [...this.#children.values()].flatMap(({ summary: { spiIn }, keys, installedAt, received, sent }) => {
      if (keys === undefined) return [];
      const { keysIn, keysOut } = keys;
      const states = { received: saveSaState(received, keysIn, at), sent: saveSaState(sent, keysOut, at) };
      return [{ spiIn, installedAt: installedAt - at, ...states }];
    });
  }

  /** SAs that `action` has installed go on as they are saved. It gets copies of their keys. */
  resume<T>(
    at: number,
    saved: readonly SavedEspSa[],
    action: (keysOf: (spiIn: number) => EspKeys | undefined) => T,
  ): T {
    this.#savedAt = at;
    this.#resumed = new Map(saved.map((sa) => [sa.spiIn, sa]));
    try {
      return action((spiIn) => {
        const found = this.#resumed.get(spiIn);
        return found && copyEspKeys({ keysIn: found.received.keys, keysOut: found.sent.keys });
      });
    } finally {
      this.#resumed = new Map();
    }
  }

  /** Tunnels came to the device of this one, or left it. */
  guardAnew(tunnel: Tunnel): void {
    for (const child of tunnel.children.values()) {
      this.#plane.commandReceiver({ type: 'guard', id: child.summary.id, guard: this.#guardOf(child) });
    }
  }

  #guardOf({ tunnel, summary: { name, selectors } }: EngineChild): GuardEntries | undefined {
    const rivals = this.#devices.rivals(tunnel).map(({ inbound }) => inbound);
    return guardEntries(tunnel.inbound, { child: name, selectors }, rivals);
  }

  /** IKE draws SPIs at random, and may draw one of a superseded SA again. */
  #hasRoom(tunnel: Tunnel, { spiIn, config, selectors }: ChildSa): boolean {
    if (this.#spis.has(spiIn) || this.#spis.size >= MAX_SAS) return false;
    const { name } = config;
    return tunnel.sasOf(name) < MAX_SAS_PER_ENTRY && tunnel.sasForSameTraffic({ name, selectors }) < MAX_SAME_TRAFFIC;
  }

  /**
   * From now on packets leave on this SA.
   * @param afterIke the peer knows of it only once it has read what IKE has just written
   */
  activate(childId: number, { afterIke }: { readonly afterIke: boolean }): void {
    if (this.#children.has(childId)) this.#plane.commandSender({ type: 'activate', id: childId, afterIke });
  }

  /** Takes the SA out of the pipelines; its keys are wiped. */
  remove(child: EngineChild): void {
    this.#stopSending(child);
    this.#stopReceiving(child);
  }

  /** The same; but packets under way on an SA that another one replaced are still opened for a while. */
  close(
    now: number,
    child: EngineChild,
    { reason, replaced }: { readonly reason: DownReason; readonly replaced: boolean },
  ): void {
    if (!replaced || reason === 'expired') {
      this.remove(child);
      return;
    }
    this.#stopSending(child);
    this.#plane.commandReceiver({ type: 'supersede', id: child.summary.id });
    this.#superseded.push({ child, until: now + OVERTAKEN });
    if (this.#superseded.length > MAX_SUPERSEDED) this.#stopReceiving(this.#superseded.shift()!.child);
  }

  removeAllOf(tunnel: Tunnel): void {
    for (const child of [...tunnel.children.values()]) this.remove(child);
    for (const { child } of this.#superseded) if (child.tunnel === tunnel) this.#stopReceiving(child);
    this.#superseded = this.#superseded.filter(({ child }) => child.tunnel !== tunnel);
  }

  #stopSending(child: EngineChild): void {
    const { id } = child.summary;
    if (child.keys !== undefined) wipeEspKeys(child.keys);
    this.#children.delete(id);
    child.tunnel.removeChild(child);
    this.#byIkeSa.delete(child.ikeSaId, child);
    this.#byPeer.delete(peerOf(child), child);
    this.#plane.commandSender({ type: 'remove', id });
  }

  #stopReceiving({ summary: { id, spiIn } }: EngineChild): void {
    this.#spis.delete(spiIn);
    this.#plane.commandReceiver({ type: 'remove', id });
  }

  /** Any child of an IKE SA. */
  ofIkeSa(ikeSaId: number): EngineChild | undefined {
    for (const child of this.#byIkeSa.get(ikeSaId)) return child;
    return undefined;
  }

  /** The peer of an IKE SA moved: where to, and from where IKE is spoken with it. */
  move(ikeSaId: number, ike: Path): void {
    for (const child of this.#byIkeSa.get(ikeSaId)) {
      const { id, encapsulated } = child.summary;
      const path = espPath({ path: ike, encapsulated });
      this.#byPeer.delete(peerOf(child), child);
      child.path = path;
      this.#byPeer.add(peerOf(child), child);
      child.pathMtu = undefined;
      this.#fit(child);
      this.#plane.commandSender({ type: 'path', id, path });
      this.#plane.commandReceiver({ type: 'path', id, path });
    }
  }

  /** The path takes outer packets of up to `mtu` bytes in one piece. */
  setPathMtu(path: Path, mtu: number): void {
    for (const child of this.#byPeer.get(addressKey(path.remote.address))) {
      if (child.pathMtu === mtu || !samePath(child.path, path)) continue;
      child.pathMtu = mtu;
      this.#fit(child);
    }
  }

  /** A router's report about a packet of ours, if it is believed and the path was taken to carry more. */
  judge(report: PathReport): BelievedReport | undefined {
    const children = this.#byPeer.get(addressKey(report.remote.address));
    const believed = judgeReport(report, children);
    if (believed === undefined) return undefined;
    for (const { path, pathMtu } of children) {
      if (samePath(path, believed.path) && (pathMtu === undefined || believed.mtu < pathMtu)) return believed;
    }
    return undefined;
  }

  /** What is known of a path from the other SAs of the IKE SA: from the one that a new one replaces, as a rule. */
  #knownMtu(ikeSaId: number, path: Path): number | undefined {
    for (const other of this.#byIkeSa.get(ikeSaId)) if (samePath(other.path, path)) return other.pathMtu;
    return undefined;
  }

  /** Tells the data plane how large the packets of the SA may be. */
  #fit(child: EngineChild): void {
    const { id } = child.summary;
    const { mtu, room, clampMtu } = sizesOf(child);
    this.#plane.commandSender({ type: 'fit', id, mtu, room, clampMtu });
    this.#plane.commandReceiver({ type: 'fit', id, clampMtu });
  }

  /** The children of an IKE SA belong to the one that replaced it (RFC 7296 §2.8). */
  adopt(oldIkeSaId: number, newIkeSaId: number): void {
    for (const child of [...this.#byIkeSa.get(oldIkeSaId)]) {
      this.#byIkeSa.delete(oldIkeSaId, child);
      child.ikeSaId = newIkeSaId;
      this.#byIkeSa.add(newIkeSaId, child);
    }
  }

  /** When `expire` is due next; `Infinity` for never. */
  nextDeadline(): number {
    return this.#superseded[0]?.until ?? Number.POSITIVE_INFINITY;
  }

  /** Forgets SAs that were replaced. */
  expire(now: number): void {
    while (this.#superseded.length > 0 && this.#superseded[0]!.until <= now)
      this.#stopReceiving(this.#superseded.shift()!.child);
  }
}

interface Sizes {
  readonly mtu: number;
  readonly room: number;
  readonly clampMtu: number;
}

/**
 * How large the packets of an SA may be: in one piece, and of TCP. In transport mode all are sealed whole, and fragmented
 * outside where the path takes less: fragments that the sender made could not be sealed (RFC 4303 §3.3.4).
 */
function sizesOf({ tunnel, summary, shape, path, pathMtu }: EngineChild): Sizes {
  const { mtu: device = MAX_PACKET, clampMss = true } = tunnel.config;
  const { family } = path.remote.address;
  const transport = summary.mode === 'transport';
  // In transport mode the device's MTU says nothing about the path.
  const known = pathMtu ?? (transport ? UNKNOWN_PATH_MTU : undefined);
  const sealed = (path: number): number => espRoom(path, { outer: family, encapsulated: summary.encapsulated });
  const most = known === undefined ? MAX_PACKET : maxPayload(sealed(known), shape);
  const fits = Math.max(MIN_MTU[4], transport ? most + IP_HEADER[family] : most);
  const mtu = transport ? MAX_PACKET : fits;
  const room = pathMtu === undefined ? 0 : sealed(pathMtu);
  return { mtu, room, clampMtu: clampMss ? Math.min(device, fits) : MAX_PACKET };
}

function peerOf({ path }: EngineChild): string {
  return addressKey(path.remote.address);
}

function shapeOf({ encryption, integrity }: CipherSuite): EspShape {
  const { ivLength, blockSize } = encryption;
  return { ivLength, blockSize, icvLength: (integrity ?? encryption).icvLength };
}

/** Padding is for tunnel mode, and for peers that take it (RFC 7296 §1.3.1); dummies every peer drops (RFC 4303 §2.6). */
function tfcOf({ config: { tfc } }: Tunnel, { mode, takesPadding }: ChildSa): TfcConfig | undefined {
  if (tfc === undefined || mode === 'transport') return undefined;
  return takesPadding ? tfc : { padding: 'none', dummies: tfc.dummies };
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
