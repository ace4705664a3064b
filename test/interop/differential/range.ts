/**
 * Three hosts in a row: one far away, the gateway with the fence, one in its LAN. Packets are shot at the gateway from either
 * side, or by itself; what gets through is seen on the line behind it, and by the host that puts it together.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type IpAddress, parseAddress } from '../../../src/base/address.ts';
import { LinuxFence } from '../../../src/hostnet/fence/linux.ts';
import { Protocol } from '../../../src/policy/protocols.ts';
import { withinNamespace } from '../../../src/sys/netns.ts';
import type { Lab } from '../../support/lab/lab.ts';
import { cable, type Namespace } from '../../support/lab/namespace.ts';
import type { Judge, Path, Verdict } from './judge.ts';
import { type Dice, type Ends, MAGIC, makeShot, plainPacket, type Shot } from './packets.ts';
import { HostSender, type Link, LinkSender, Receiver, type Sender } from './wire.ts';

/** Shots between two looks at what got through. */
const BURST = 96;
const RAW_PROTOCOLS = { 4: [1, 4, 6, 17, 50, 51, 200], 6: [6, 17, 50, 58, 135, 139, 200] } as const;
/** Last octets: the gateway and a host of its LAN; the peer of the tunnel and another host there. */
const [GATEWAY, HOST] = [1, 7];
const REMOTES = [9, 10];
/** On the local side 10.3.0.7, on the remote one 10.4.0.9: of these no policy speaks. */
export const OTHER_LOCAL = { 4: '10.3.0.7', 6: 'fd03::7' } as const;
export const OTHER_REMOTE = { 4: '10.4.0.9', 6: 'fd04::9' } as const;
const PATIENCE_MS = 5000;
const MARKER_PORT = 9;
/** Stands in place of the magic in what was sent past the tunnel. */
const CLEAR = Buffer.from('CLER');

/** What stands for the tunnel's device in the gateway. */
export const DEVICE = 'stun0';
export const PEER: Readonly<Record<4 | 6, IpAddress>> = { 4: parseAddress('10.2.0.9')!, 6: parseAddress('fd02::9')! };

export interface Score {
  packets: number;
  /** Packets that were seen on the line behind the gateway, and datagrams that were delivered. */
  passed: number;
  delivered: number;
}

export interface Shooting {
  readonly judge: Judge;
  readonly dice: Dice;
  readonly path: Path;
  /** Whether the gateway tracks connections, and so puts fragments together. */
  readonly tracked: boolean;
  /**
   * Whether half of the fragments come out of the tunnel: the others may not get into what is put together with them. Takes a
   * path that comes in.
   */
  readonly mixed?: boolean;
}

type Links = Readonly<Record<'far' | 'out' | 'lan' | 'inner' | 'tunnel' | 'device', Link>>;
type Hosts = Readonly<Record<'far' | 'gateway' | 'lan', Namespace>>;

export class Range {
  readonly gateway: Namespace;
  readonly fence: LinuxFence;
  readonly #hosts: Hosts;
  readonly #lines: Readonly<Record<'in' | 'out', Readonly<Record<4 | 6, Receiver>>>>;
  readonly #senders: Readonly<Record<'in' | 'out' | 'host' | 'tunnel', LinkSender | HostSender>>;
  /** Raw sockets, by host and family. BOUNDED: by both. */
  readonly #raw = new Map<string, readonly { readonly protocol: number; readonly socket: Receiver }[]>();
  #tag = 1;

  static async build(lab: Lab): Promise<Range> {
    const hosts = {
      far: await lab.namespace('far'),
      gateway: await lab.namespace('gate'),
      lan: await lab.namespace('lan'),
    };
    const range = new Range(hosts, await wire(hosts));
    lab.defer(async () => range.close());
    return range;
  }

  private constructor(hosts: Hosts, links: Links) {
    this.#hosts = hosts;
    this.gateway = hosts.gateway;
    this.fence = new LinuxFence({ start: (work) => withinNamespace(hosts.gateway.name, work) });
    const line = (link: Link): Readonly<Record<4 | 6, Receiver>> => {
      return { 4: Receiver.ofLink(link, 4), 6: Receiver.ofLink(link, 6) };
    };
    this.#lines = { in: line(links.lan), out: line(links.far) };
    this.#senders = {
      in: new LinkSender(links.far, links.out),
      out: new LinkSender(links.lan, links.inner),
      host: new HostSender(hosts.gateway.name),
      tunnel: new LinkSender(links.tunnel, links.device),
    };
    for (const { name } of Object.values(hosts)) {
      for (const family of [4, 6] as const) {
        const sockets = RAW_PROTOCOLS[family].map((protocol) => {
          return { protocol, socket: Receiver.ofProtocol(name, family, protocol) };
        });
        this.#raw.set(`${name} ${family}`, sockets);
      }
    }
  }

  close(): void {
    const sockets = [...this.#raw.values()].flat().map(({ socket }) => socket);
    const lines = Object.values(this.#lines).flatMap((line) => Object.values(line));
    for (const each of [...sockets, ...lines, ...Object.values(this.#senders)]) each.close();
  }

  /** Shoots `count` packets or a few more. @throws Error that tells of the first that fared as it must not */
  async shoot(shooting: Shooting, count: number): Promise<Score> {
    const { dice, path } = shooting;
    const score = { packets: 0, passed: 0, delivered: 0 };
    // What is left of others was judged by others.
    for (const family of [4, 6] as const) this.#collect(path, family, new Seen());
    while (score.packets < count) {
      const family = dice.pick([4, 6, 6] as const);
      const local = path.host ? GATEWAY : HOST;
      await this.#burst(shooting, { family, local, remote: dice.pick(REMOTES), outbound: path.outbound }, score);
    }
    return score;
  }

  /** Sends packets on a path. Returns what comes out on the line behind the gateway, and what is delivered there. */
  async send(
    path: Path,
    packets: readonly Uint8Array[],
    to: IpAddress,
  ): Promise<{ line: Buffer[]; delivered: Buffer[] }> {
    const ends = { family: to.family, local: path.host ? GATEWAY : HOST, remote: REMOTES[0]!, outbound: path.outbound };
    const sender = this.#senderOf(path);
    this.#collect(path, to.family, new Seen());
    sender.send(packets, to);
    const seen = new Seen();
    const marker = await this.#untilMarked(sender, path, ends, seen);
    // The gateway has things of its own to say on a link.
    const isSent = (packet: Buffer): boolean => ![undefined, marker].includes(tagIn(packet));
    return { line: seen.packets.filter(isSent), delivered: seen.delivered.map(({ bytes }) => bytes).filter(isSent) };
  }

  #senderOf({ outbound, host }: Path): Sender {
    return this.#senders[outbound ? (host ? 'host' : 'out') : 'in'];
  }

  async #burst(shooting: Shooting, ends: Ends, score: Score): Promise<void> {
    const { dice, path } = shooting;
    const shots = Array.from({ length: BURST }, () => makeShot(dice, this.#tag++, ends));
    const packets = shots.flatMap(({ packets: all }) => all);
    const sender = this.#senderOf(path);
    const to = addressOf(ends.family, path.outbound ? 2 : 1, path.outbound ? ends.remote : ends.local);
    if (shooting.mixed === true) this.#sendMixed(dice, packets, to);
    else sender.send(packets, to);
    const seen = new Seen();
    const marker = await this.#untilMarked(sender, path, ends, seen);
    score.packets += packets.length;
    score.passed += seen.keys.size;
    score.delivered += seen.delivered.length;
    checkDelivered(shooting, ends, seen, marker, shots);
    if (shooting.mixed !== true) checkPackets(shooting, seen, shots);
  }

  #sendMixed(dice: Dice, packets: readonly Uint8Array[], to: IpAddress): void {
    const clear = new Set(packets.filter(() => dice.chance(50)));
    const ways = [
      () => this.#senders.in.send([...clear].map(inClear), to),
      () =>
        this.#senders.tunnel.send(
          packets.filter((packet) => !clear.has(packet)),
          to,
        ),
    ];
    // Whichever comes last is what the kernel takes all of a datagram for.
    for (const send of dice.chance(50) ? ways : ways.reverse()) send();
  }

  /** A marker goes the same way, between addresses of which the policy does not speak: what was before it has arrived too. */
  async #untilMarked(sender: Sender, path: Path, ends: Ends, seen: Seen): Promise<number> {
    const tag = this.#tag++;
    const [to, from] = markerEnds(ends.family, path);
    sender.send([plainPacket(tag, [from, to], MARKER_PORT)], to);
    const end = Date.now() + PATIENCE_MS;
    for (;;) {
      this.#collect(path, ends.family, seen);
      if (seen.tags.has(tag)) return tag;
      if (Date.now() > end)
        throw new Error('the marker behind the packets did not arrive: the gateway forwards nothing');
      await sleep(1);
    }
  }

  #collect(path: Path, family: 4 | 6, seen: Seen): void {
    const toHost = path.host && !path.outbound;
    const receiver = path.outbound ? 'far' : toHost ? 'gateway' : 'lan';
    // The line first: its packets are not delivered before they are seen there.
    for (const { protocol, socket } of this.#raw.get(`${this.#hosts[receiver].name} ${family}`)!) {
      socket.receive((packet, source) => seen.onDelivery(family, protocol, packet, source));
    }
    if (!toHost) this.#lines[path.outbound ? 'out' : 'in'][family].receive((packet) => seen.onLine(packet));
  }
}

/** Cables, addresses and routes; the hosts on either side never say a word of their own. */
async function wire({ far, gateway, lan }: Hosts): Promise<Links> {
  const plug = (namespace: Namespace, device: string) => ({ namespace, device, addresses: [] });
  await cable(plug(far, 'eth0'), plug(gateway, 'out0'));
  await cable(plug(lan, 'eth0'), plug(gateway, 'lan0'));
  await cable(plug(far, 'tunnel'), plug(gateway, DEVICE));
  for (const namespace of [far, gateway, lan]) await namespace.exec(['sh', '-c', SETTINGS]);
  const links = {
    far: await linkOf(far, 'eth0'),
    out: await linkOf(gateway, 'out0'),
    lan: await linkOf(lan, 'eth0'),
    inner: await linkOf(gateway, 'lan0'),
    tunnel: await linkOf(far, 'tunnel'),
    device: await linkOf(gateway, DEVICE),
  };
  const locals = ['10.1.0.7', 'fd01::7', ...Object.values(OTHER_LOCAL)];
  const remotes = ['10.2.0.9', '10.2.0.10', 'fd02::9', 'fd02::a', ...Object.values(OTHER_REMOTE)];
  const reach = (to: string, { address }: Link, device: string): string[] => [
    `route add ${to} dev ${device}`,
    `neigh add ${to} lladdr ${[...address].map((byte) => byte.toString(16).padStart(2, '0')).join(':')} dev ${device}`,
  ];
  const give = (address: string, device: string): string =>
    `addr add ${address} dev ${device}${address.includes(':') ? ' nodad' : ''}`;
  await lan.ip(locals.map((address) => give(address, 'eth0')));
  await far.ip(remotes.map((address) => give(address, 'eth0')));
  await gateway.ip([
    ...['10.1.0.1', 'fd01::1'].map((address) => give(address, 'lan0')),
    ...locals.flatMap((to) => reach(to, links.lan, 'lan0')),
    ...remotes.flatMap((to) => reach(to, links.far, 'out0')),
  ]);
  const silence =
    'add table inet silence; add chain inet silence out { type filter hook output priority 0; policy drop; }';
  for (const namespace of [far, lan]) await namespace.exec(['nft', silence]);
  return links;
}

/** Fragments that come to nothing are not waited for long. */
const SETTINGS = Object.entries({
  'ipv4/ip_forward': 1,
  'ipv6/conf/all/forwarding': 1,
  'ipv4/conf/all/rp_filter': 0,
  'ipv4/conf/default/rp_filter': 0,
  'ipv4/ipfrag_time': 1,
  'ipv6/ip6frag_time': 1,
  'ipv4/ipfrag_high_thresh': 64 << 20,
  'ipv6/ip6frag_high_thresh': 64 << 20,
})
  .map(([file, value]) => `echo ${value} >/proc/sys/net/${file}`)
  .join('; ');

async function linkOf(namespace: Namespace, device: string): Promise<Link> {
  const { stdout } = await namespace.exec(['ip', '-j', 'link', 'show', 'dev', device]);
  const [{ ifindex, address }] = JSON.parse(stdout) as [{ ifindex: number; address: string }];
  return {
    namespace: namespace.name,
    index: ifindex,
    address: Uint8Array.from(address.split(':').map((byte) => Number.parseInt(byte, 16))),
  };
}

/** Source of a marker last. */
function markerEnds(family: 4 | 6, { outbound, host }: Path): readonly [IpAddress, IpAddress] {
  const local = host ? addressOf(family, 1, GATEWAY) : parseAddress(OTHER_LOCAL[family])!;
  const remote = parseAddress(OTHER_REMOTE[family])!;
  return outbound ? [remote, local] : [local, remote];
}

function addressOf(family: 4 | 6, side: 1 | 2, host: number): IpAddress {
  return family === 4
    ? { family, value: BigInt((10 << 24) | (side << 16) | host) }
    : { family, value: (BigInt(0xfd00 | side) << 112n) | BigInt(host) };
}

/** Nothing may be delivered that the policy protects; of what came out of the tunnel no part. */
function checkDelivered(
  { judge, path, mixed }: Shooting,
  ends: Ends,
  seen: Seen,
  marker: number,
  shots: readonly Shot[],
): void {
  for (const { protocol, bytes, source } of seen.delivered) {
    const tag = tagIn(bytes);
    if (tag === marker || !(path.outbound ? [ends.local] : REMOTES).includes(source)) continue;
    const local = addressOf(ends.family, 1, ends.local);
    const remote = addressOf(ends.family, 2, path.outbound ? ends.remote : source);
    if (mixed === true && (!bytes.includes(CLEAR) || judge.mayMix(protocol, remote, path))) continue;
    if (judge.mayReach(protocol, bytes, { local, remote }, path)) continue;
    throw new Error(`delivered in the clear: protocol ${protocol}: ${hex(bytes)}\n${story(shots, tag)}`);
  }
}

/** Each packet has to fare as the policy says, where it says so. */
function checkPackets({ judge, path, tracked }: Shooting, seen: Seen, shots: readonly Shot[]): void {
  for (const shot of shots) {
    for (const packet of shot.packets) {
      if (tracked && isFragment(packet)) continue;
      const verdict = judge.ofPacket(packet, path, shot.sane);
      const fate = fateOf(packet, shot, path, seen);
      if (verdict === 'either' || fate === 'unknown' || fate === verdict) continue;
      throw new Error(`has to ${verdict}, and does not: ${hex(packet)}\n${story(shots, shot.tag)}`);
    }
  }
}

/** A fragment that says of each part of its payload that it came in the clear. */
function inClear(packet: Uint8Array): Buffer {
  const marked = Buffer.from(packet);
  for (let at = marked.indexOf(MAGIC); at >= 0; at = marked.indexOf(MAGIC, at + 4)) CLEAR.copy(marked, at);
  return marked;
}

/** What got through in a burst. */
class Seen {
  /** On the line. BOUNDED, as all of these: by the packets of a burst. */
  readonly keys = new Set<string>();
  readonly tags = new Set<number>();
  readonly packets: Buffer[] = [];
  readonly delivered: { readonly protocol: number; readonly bytes: Buffer; readonly source: number }[] = [];

  onLine(packet: Buffer): void {
    this.keys.add(keyOf(packet));
    this.packets.push(Buffer.from(packet));
    this.#note(packet);
  }

  /** @param source last octet, where the packet does not hold it */
  onDelivery(family: 4 | 6, protocol: number, packet: Buffer, source: number): void {
    this.#note(packet);
    const bytes = Buffer.from(family === 4 ? packet.subarray(4 * (packet[0]! & 15)) : packet);
    this.delivered.push({ protocol, bytes, source: family === 4 ? packet[15]! : source });
  }

  #note(packet: Buffer): void {
    const tag = tagIn(packet);
    if (tag !== undefined) this.tags.add(tag);
  }
}

/** On the line; or, for the gateway itself, by what it was delivered, where that shows which it was. */
function fateOf(packet: Uint8Array, { tag, packets }: Shot, { outbound, host }: Path, seen: Seen): Verdict | 'unknown' {
  if (outbound || !host) return seen.keys.has(keyOf(Buffer.from(packet))) ? 'pass' : 'drop';
  if (packets.length > 1) return 'unknown';
  if (seen.tags.has(tag)) return isFragment(packet) ? 'unknown' : 'pass';
  const isShown = showsDelivery(packet) && tagIn(Buffer.from(packet)) !== undefined;
  return isShown && !isFragment(packet) ? 'drop' : 'unknown';
}

/** Whether a raw socket is there for the packet, and shown all that the kernel delivers. */
function showsDelivery(packet: Uint8Array): boolean {
  if (packet[0]! >>> 4 === 4) return RAW_PROTOCOLS[4].some((protocol) => protocol === packet[9]);
  const protocol = [0, 60].includes(packet[6]!) ? packet[40] : packet[6];
  // The kernel looks into headers of Mobile IPv6 first.
  return protocol !== Protocol.mobility && RAW_PROTOCOLS[6].some((one) => one === protocol);
}

/** The packet but for what a router changes. */
function keyOf(packet: Buffer): string {
  const text = packet.toString('latin1');
  return packet[0]! >>> 4 === 6 ? text.slice(0, 7) + text.slice(8) : text.slice(0, 8) + text[9] + text.slice(12);
}

function tagIn(packet: Buffer): number | undefined {
  const at = packet.indexOf(MAGIC);
  return at < 0 || at + 8 > packet.length ? undefined : packet.readUInt32BE(at + 4);
}

function isFragment(packet: Uint8Array): boolean {
  if (packet[0]! >>> 4 !== 6) return ((packet[6]! & 0x3f) | packet[7]!) !== 0;
  let [next, at] = [packet[6]!, 40];
  while ([0, 43, 51, 60].includes(next) && at + 2 <= packet.length) {
    const length = next === 51 ? 4 * (packet[at + 1]! + 2) : 8 * (packet[at + 1]! + 1);
    next = packet[at]!;
    at += length;
  }
  return next === 44;
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** All packets of the shot that a failure is about. */
function story(shots: readonly Shot[], tag: number | undefined): string {
  const shot = shots.find((one) => one.tag === tag);
  if (shot === undefined) return 'of a shot that is not known';
  return `shot ${tag}:\n${shot.packets.map((packet) => `  ${hex(packet)}`).join('\n')}`;
}
