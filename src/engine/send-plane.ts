/**
 * The sending half of the data plane: the outbound pipelines of all tunnels, their SAs, the packets that wait for one,
 * and ICMP to the senders of packets that are not carried (RFC 4301 §5.1, §8.2.1).
 */
import { assertNever, invariant } from '../base/assert.ts';
import { PacketBatch } from '../base/batch.ts';
import { Numbered } from '../base/numbered.ts';
import { WakeQueue } from '../base/wake-queue.ts';
import type { CryptoProvider, RandomSource } from '../crypto/types.ts';
import { DropReason } from '../esp/drops.ts';
import { EspOutboundSa } from '../esp/outbound-sa.ts';
import type { Path } from '../ike/events.ts';
import { CompiledSelectors } from '../policy/compiled.ts';
import { CompiledPolicy } from '../policy/database.ts';
import type { Flow } from '../policy/flow.ts';
import type { InstallOutbound, PlaneReport, SendCommand } from './commands.ts';
import { Dummies } from './dummies.ts';
import type { HeldPacket } from './hold.ts';
import { IcmpReplies } from './icmp-replies.ts';
import { SendDevice } from './send-device.ts';
import { type AddTunnel, newSendTunnel, type SendTunnel, writeCounters } from './send-tunnel.ts';
import { installedCipher } from './suite.ts';

/** Slots of the batch in which packets that waited are sent. */
const RELEASED_SLOTS = 64;

export interface SendPlaneOptions {
  readonly crypto: CryptoProvider;
  readonly report: (report: PlaneReport) => void;
  /**
   * Takes sealed packets that waited for their SA, and dummies, valid during the call; they go to
   * `path(batch.tag[slot])`.
   */
  readonly onReleased: (batch: PacketBatch) => void;
  /** Takes a packet for a device: the ICMP message to the sender of one that could not be carried. */
  readonly onDeviceWrite: (device: number, packet: Uint8Array) => void;
  /** The largest packet that may wait. */
  readonly maxPacket: number;
  /** Says when dummies are sent, and how long they are. */
  readonly random: RandomSource;
}

interface SendSa {
  /** Another one when its policy has changed. */
  tunnel: SendTunnel;
  /** Packets are sent on it. */
  active: boolean;
  readonly child: string;
  readonly sa: EspOutboundSa;
  /** Dummies a second, on average; 0 for none. */
  readonly dummies: number;
}

export class SendPlane {
  readonly #options: SendPlaneOptions;
  // BOUNDED: the owner's tunnels, both.
  readonly #devices: (SendDevice<SendTunnel> | undefined)[] = [];
  readonly #tunnels: (SendTunnel | undefined)[] = [];
  // BOUNDED: by IKE.
  readonly #sas = new Map<number, SendSa>();
  readonly #dummies: Dummies;
  /** When limits of a tunnel's SAs or packets that wait are due. BOUNDED: by the tunnels. */
  readonly #wake = new WakeQueue<SendTunnel>();
  /** By the small number (tag) that travels with each packet. BOUNDED: one for each CHILD SA. */
  readonly #paths = new Numbered<Path>();
  readonly #released: PacketBatch;
  /** By slot of `#released`, the packet that waited. BOUNDED: its slots. */
  #returning: HeldPacket[] = [];
  /** The time of the call that is being served. */
  #now = 0;
  /** Packets of a tunnel went through its pipeline. */
  readonly #processed = (tunnel: SendTunnel): void => {
    this.#reportLimits(tunnel);
    this.#settle(tunnel);
  };
  constructor(options: SendPlaneOptions) {
    this.#options = options;
    this.#dummies = new Dummies(options.random);
    this.#released = new PacketBatch(RELEASED_SLOTS, options.maxPacket);
  }

  apply(now: number, command: SendCommand): void {
    this.#now = now;
    switch (command.type) {
      case 'add-device':
        this.#devices[command.device] = this.#newDevice(command);
        return;
      case 'remove-device':
        this.#devices[command.device] = undefined;
        return;
      case 'add-tunnel':
        this.#addTunnel(command);
        return;
      case 'remove-tunnel':
        this.#removeTunnel(command.tunnel);
        return;
      case 'policy':
        this.#setPolicy(command);
        return;
      case 'hold':
        this.#setHold(command);
        return;
      case 'ask-again':
        this.#tunnels[command.tunnel]?.waiting.askAgain();
        return;
      case 'refuse':
        this.#refuse(command);
        return;
      case 'install':
        this.#install(command);
        return;
      case 'activate':
        this.#activate(command.id);
        return;
      case 'remove':
        this.#remove(command.id);
        return;
      case 'path': {
        const { sa } = this.#sas.get(command.id) ?? {};
        if (sa !== undefined) this.#paths.set(sa.pathIndex, command.path);
        return;
      }
      case 'fit': {
        const { sa } = this.#sas.get(command.id) ?? {};
        if (sa !== undefined) Object.assign(sa, { mtu: command.mtu, room: command.room, clampMtu: command.clampMtu });
        return;
      }
      default:
        assertNever(command, 'send command');
    }
  }

  /**
   * Takes a batch of packets that were read from a device through the policy. Slots that hold a length afterwards are ESP
   * packets to be sent to `path(batch.tag[slot])`.
   */
  process(now: number, device: number, batch: PacketBatch): void {
    this.#now = now;
    const from = this.#devices[device];
    if (from === undefined) {
      batch.clear();
      return;
    }
    from.process(now, batch, this.#processed);
    clearBypassed(batch);
  }

  /** Where packets with this tag go; `undefined` when their SA is gone. */
  path(tag: number): Path | undefined {
    return this.#paths.get(tag);
  }

  /** When `expire` is due next; `Infinity` for never. */
  nextDeadline(): number {
    const never = Number.POSITIVE_INFINITY;
    return Math.min(this.#wake.next() ?? never, this.#dummies.next());
  }

  /** Applies time limits to SAs that may be idle, gives up packets that waited too long, and sends dummies. */
  expire(now: number): void {
    this.#now = now;
    for (const tunnel of this.#wake.takeDue(now)) {
      tunnel.wakeAt = Number.POSITIVE_INFINITY;
      tunnel.outbound.expire(now);
      this.#reportLimits(tunnel);
      tunnel.waiting.expire(now);
      this.#settle(tunnel);
    }
    for (const id of this.#dummies.takeDue(now)) {
      const { tunnel, sa } = this.#sas.get(id)!;
      this.#sendDummy(tunnel, sa);
    }
  }

  /** The sending SA of a CHILD SA. */
  sa(id: number): EspOutboundSa | undefined {
    return this.#sas.get(id)?.sa;
  }

  /** Forgets the keys of all SAs; the plane must not be used afterwards. */
  wipe(): void {
    for (const { sa } of this.#sas.values()) sa.wipe();
  }

  /** SAs that packets may be sent on. */
  get size(): number {
    return this.#sas.size;
  }

  #newDevice({ device, drops, fragmentSeed }: Extract<SendCommand, { type: 'add-device' }>): SendDevice<SendTunnel> {
    const replies = new IcmpReplies((packet) => this.#options.onDeviceWrite(device, packet));
    return new SendDevice<SendTunnel>({
      fragmentSeed,
      drops,
      onDenied: (batch, slot, flow) => replies.unreachable(this.#now, batch, slot, flow, 'prohibited'),
    });
  }

  #addTunnel(command: AddTunnel): SendTunnel {
    const device = this.#devices[command.device];
    invariant(device !== undefined, 'a tunnel without its device');
    const policy = new CompiledPolicy(command.policy, 'out');
    const { tunnel: index } = command;
    const tunnel = newSendTunnel(command, {
      device,
      policy,
      now: () => this.#now,
      write: (packet) => this.#options.onDeviceWrite(command.device, packet),
      onMissing: (entry, batch, slot, flow) => this.#onMissing(tunnel, entry, batch, slot, flow),
      ask: (child, selectors, trigger) => {
        // A limit first, if one has ended the SA: IKE negotiates no SA for a child that it believes to have one.
        this.#reportLimits(tunnel);
        this.#options.report({ type: 'missing', tunnel: index, child, selectors, trigger });
      },
    });
    this.#tunnels[index] = tunnel;
    device.add(tunnel, policy);
    return tunnel;
  }

  /** SAs go on, and packets that wait for one pass the new policy. */
  #setPolicy({ tunnel: index, policy }: Extract<SendCommand, { type: 'policy' }>): void {
    const former = this.#tunnels[index];
    if (former === undefined) return;
    this.#removeTunnel(index);
    const waiting = former.waiting.hold.take(() => true);
    writeCounters(former);
    const tunnel = this.#addTunnel({ ...former.command, policy });
    tunnel.waiting.enabled = former.waiting.enabled;
    // The oldest first: the one that is added last sends.
    for (const { id } of [...former.outbound.sas()].reverse()) {
      const found = this.#sas.get(id)!;
      found.tunnel = tunnel;
      for (const entry of tunnel.entries.get(found.child)) tunnel.outbound.add(entry, found.sa, found);
    }
    this.#sendHeld(tunnel, waiting, { canReturn: false });
    this.#settle(tunnel);
  }

  #removeTunnel(index: number): void {
    const tunnel = this.#tunnels[index];
    if (tunnel === undefined) return;
    this.#wake.set(tunnel, undefined);
    tunnel.device.delete(index);
    this.#tunnels[index] = undefined;
  }

  #setHold({ tunnel: index, hold, forget }: Extract<SendCommand, { type: 'hold' }>): void {
    const tunnel = this.#tunnels[index];
    if (tunnel === undefined) return;
    tunnel.waiting.enabled = hold;
    if (forget) tunnel.waiting.clear();
    this.#settle(tunnel);
  }

  #refuse({ tunnel: index, children, selectors, until }: Extract<SendCommand, { type: 'refuse' }>): void {
    const tunnel = this.#tunnels[index];
    if (tunnel === undefined) return;
    const { drops } = tunnel.outbound;
    for (const child of children) {
      const narrowed = tunnel.waiting.refuse(this.#now, child, selectors, until);
      // While they waited they were counted as dropped for want of an SA.
      drops[DropReason.noSa]! -= narrowed;
      drops[DropReason.narrowed]! += narrowed;
    }
    this.#settle(tunnel);
  }

  #install(command: InstallOutbound): void {
    const tunnel = this.#tunnels[command.tunnel];
    const cipher = installedCipher(this.#options.crypto, command);
    if (tunnel === undefined) {
      cipher.wipe();
      return;
    }
    const sa = new EspOutboundSa({
      id: command.id,
      spi: command.spi,
      cipher,
      esn: command.esn,
      selectors: new CompiledSelectors(command.selectors),
      transport: command.transport !== undefined,
      limits: command.limits,
      pathIndex: this.#paths.add(command.path),
      dscp: command.dscp,
      tfc: command.tfc,
      state: command.state,
      sharers: command.sharers,
    });
    sa.mtu = command.mtu;
    sa.room = command.room;
    sa.clampMtu = command.clampMtu;
    const dummies = command.tfc?.dummies ?? 0;
    this.#sas.set(command.id, { tunnel, active: false, child: command.child, sa, dummies });
    for (const entry of tunnel.entries.get(command.child)) tunnel.outbound.add(entry, sa, { active: false });
    this.#settle(tunnel);
  }

  #activate(id: number): void {
    const found = this.#sas.get(id);
    if (found === undefined) return;
    const { tunnel, child, sa, dummies } = found;
    found.active = true;
    tunnel.outbound.activate(sa);
    this.#release(tunnel, child);
    if (dummies > 0) this.#dummies.begin(this.#now, sa, dummies);
  }

  #remove(id: number): void {
    const found = this.#sas.get(id);
    if (found === undefined) return;
    this.#sas.delete(id);
    this.#dummies.delete(id);
    found.tunnel.outbound.remove(found.sa);
    this.#paths.remove(found.sa.pathIndex);
    this.#settle(found.tunnel);
  }

  /** Sends the packets that waited for an SA of the child. Those that still have none wait again. */
  #release(tunnel: SendTunnel, child: string): void {
    this.#sendHeld(tunnel, tunnel.waiting.take(child), { canReturn: true });
    // The SA may carry less than was wanted: packets that still wait ask for the rest.
    tunnel.waiting.askAgain(child);
    this.#settle(tunnel);
  }

  /** @param canReturn what has no SA still waits as before, which it does not under another policy */
  #sendHeld(tunnel: SendTunnel, waiting: readonly HeldPacket[], { canReturn }: { readonly canReturn: boolean }): void {
    const { hold } = tunnel.waiting;
    const batch = this.#released;
    for (let next = 0; next < waiting.length; ) {
      batch.clear();
      this.#returning = [];
      for (; next < waiting.length && batch.count < batch.capacity; next++) {
        const packet = waiting[next]!;
        // A packet larger than any slot stays counted as dropped.
        if (batch.push(packet.data) < 0) continue;
        hold.released++;
        if (canReturn) this.#returning.push(packet);
      }
      this.#process(tunnel, batch);
      this.#returning = [];
      this.#options.onReleased(batch);
    }
  }

  #process(tunnel: SendTunnel, batch: PacketBatch): void {
    tunnel.outbound.process(this.#now, batch);
    clearBypassed(batch);
    this.#processed(tunnel);
  }

  #sendDummy(tunnel: SendTunnel, sa: EspOutboundSa): void {
    const batch = this.#released;
    batch.clear();
    tunnel.outbound.addDummy(this.#now, sa, batch, sa.dummyLength(this.#dummies.uniform()));
    this.#reportLimits(tunnel);
    if (batch.count > 0) this.#options.onReleased(batch);
  }

  /** After anything that was done with a tunnel: writes its counters, and notes when it is due next. */
  #settle(tunnel: SendTunnel): void {
    writeCounters(tunnel);
    const at = Math.min(tunnel.outbound.nextDeadline(), tunnel.waiting.hold.next() ?? Number.POSITIVE_INFINITY);
    if (at === tunnel.wakeAt) return;
    tunnel.wakeAt = at;
    this.#wake.set(tunnel, at === Number.POSITIVE_INFINITY ? undefined : at);
  }

  #reportLimits(tunnel: SendTunnel): void {
    for (const { sa, kind } of tunnel.outbound.takeSignals()) {
      this.#options.report({ type: 'limit', id: sa.id, kind });
    }
  }

  /** An outbound packet needs an SA that is not there. Returns whether the peer has just refused one. */
  #onMissing({ waiting }: SendTunnel, entry: number, batch: PacketBatch, slot: number, flow: Flow): boolean {
    const held = this.#returning[slot];
    if (held === undefined) return waiting.add(this.#now, entry, batch, slot, flow);
    waiting.hold.putBack(held);
    return false;
  }
}

/** A tunnel cannot send in the clear: what the policy lets bypass must not be routed into its device. */
function clearBypassed(batch: PacketBatch): void {
  for (let slot = 0; slot < batch.count; slot++) if (batch.tag[slot]! < 0) batch.length[slot] = 0;
}
