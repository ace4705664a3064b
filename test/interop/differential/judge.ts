/**
 * What a policy has to say of packets that are met outside of the tunnel, from the engine's own parser and database, and
 * from nothing that the fence is made of but the rule for packets that nobody can classify.
 */
import { anyRange, type IpAddress, sameAddress } from '../../../src/base/address.ts';
import { decidingEntry } from '../../../src/hostnet/fence/decision.ts';
import type { OwnPackets, TunnelFence } from '../../../src/hostnet/fence/fence.ts';
import { type PolicyBox, policyBoxes } from '../../../src/hostnet/steering/plan.ts';
import { tunnelFence } from '../../../src/hostnet/steering/tunnel-fence.ts';
import { type CompiledPolicy, compilePolicy, type PolicyEntry } from '../../../src/policy/database.ts';
import { DESTINATION, Flow, FlowError, Fragment, readFlow, SOURCE } from '../../../src/policy/flow.ts';
import { flowAddress } from '../../../src/policy/flow-values.ts';
import { claimsOf } from '../../../src/policy/precedence.ts';
import { Protocol } from '../../../src/policy/protocols.ts';

export type Verdict = 'drop' | 'pass' | 'either';

/** Whether the packet is of the host's own, or for the host: those of the tunnel itself pass. */
export interface Path {
  readonly outbound: boolean;
  readonly host: boolean;
}

export class Judge {
  readonly fence: TunnelFence;
  readonly #own: OwnPackets;
  readonly #policy: Readonly<Record<'in' | 'out', CompiledPolicy>>;
  /** For the host's own packets of which the policy does not know the source: RFC 4301 §4.4.1 has them discarded. */
  readonly #anySource: CompiledPolicy;
  readonly #flow = new Flow();

  constructor(entries: readonly PolicyEntry[], own: OwnPackets, device: string) {
    const boxes = (direction: 'in' | 'out'): PolicyBox[] => policyBoxes(entries, direction);
    const order = { claims: claimsOf(entries), redundancy: undefined };
    const plan = {
      tunnel: 't',
      table: 1,
      own,
      outbound: boxes('out'),
      inbound: boxes('in'),
      ...order,
      host: undefined,
    };
    this.fence = tunnelFence(plan, device);
    this.#own = own;
    this.#policy = { in: compilePolicy(entries, 'in'), out: compilePolicy(entries, 'out') };
    this.#anySource = compilePolicy(entries.map(withoutSource), 'out');
  }

  /**
   * What has to become of a packet on the line. `either` where the kernel has reasons of its own, and where a packet that
   * would pass is of a shape that the fence is free not to read.
   */
  ofPacket(bytes: Uint8Array, path: Path, sane: boolean): Verdict {
    const flow = this.#flow;
    const error = readFlow(bytes, 0, bytes.length, flow);
    if (error === FlowError.none && flow.fragment !== Fragment.later && !isHidden(flow)) {
      if (path.host && this.#isLetThrough(bytes, flow, path)) return 'either';
      if (this.#protects(flow, path)) return 'drop';
      return sane && isPlain(bytes, flow) ? 'pass' : 'either';
    }
    const family = bytes[0]! >>> 4;
    if (family !== 4 && family !== 6) return 'either';
    return this.#closes(bytes, family, path) ? 'drop' : 'either';
  }

  /** Whether a datagram may be delivered. `bytes` begin with its transport header. */
  mayReach(
    protocol: number,
    bytes: Uint8Array,
    ends: { readonly local: IpAddress; readonly remote: IpAddress },
    path: Path,
  ): boolean {
    const flow = this.#flow;
    // As a packet of its own: what brought it here does not count.
    const whole = asPacket(protocol, bytes, path.outbound ? [ends.local, ends.remote] : [ends.remote, ends.local]);
    if (readFlow(whole, 0, whole.length, flow) !== FlowError.none) return true;
    if (path.host && this.#isLetThrough(whole, flow, path)) return true;
    return !this.#protects(flow, path);
  }

  /** Fragments of UDP from the peer may be of its IKE: whether they are shows when they are put together. */
  mayMix(protocol: number, remote: IpAddress, { host }: Path): boolean {
    const { peer } = this.#own;
    const isPeer = host && (peer === undefined || sameAddress(peer, remote));
    return isPeer && (remote.family === 6 || protocol === Protocol.udp || protocol === Protocol.esp);
  }

  #protects(flow: Flow, { outbound, host }: Path): boolean {
    const policy = this.#policy[outbound ? 'out' : 'in'];
    const found = policy.entries[policy.lookup(flow)];
    const any = outbound && host && !this.#isOfSomeTunnel(flow) ? this.#anySource : undefined;
    const action = (found ?? any?.entries[any.lookup(flow)])?.action;
    return action === 'protect' || action === 'discard';
  }

  #isOfSomeTunnel({ protocol, srcPort }: Flow): boolean {
    return protocol === Protocol.esp || (protocol === Protocol.udp && this.#own.ports.includes(srcPort));
  }

  /** Whether something may be meant that is not let pass. */
  #closes(bytes: Uint8Array, family: 4 | 6, { outbound, host }: Path): boolean {
    const at = family === 4 ? 12 : 8;
    const size = family === 4 ? 4 : 16;
    if (bytes.length < at + 2 * size) return false;
    const [source, destination] = [address(family, bytes, at), address(family, bytes, at + size)];
    const [local, remote] = outbound ? [source, destination] : [destination, source];
    const seen = { local, remote, protocol: bytes[family === 4 ? 9 : 6]!, transport: undefined };
    const found = decidingEntry(outbound ? this.fence.outbound : this.fence.inbound, seen);
    const entry = found ?? (outbound && host ? decidingEntry(this.fence.anySource, seen) : undefined);
    return entry !== undefined && entry.action !== 'pass';
  }

  /** IKE, ESP, errors on them, neighbour discovery. */
  #isLetThrough(bytes: Uint8Array, flow: Flow, { outbound }: Path): boolean {
    const { peer, ports, peerPorts } = this.#own;
    const { protocol, family, headerLength: at } = flow;
    const remote = flowAddress(flow, outbound ? DESTINATION : SOURCE);
    const isPeer = peer === undefined || sameAddress(peer, remote);
    if (isPeer && protocol === Protocol.esp) return true;
    if (isPeer && protocol === Protocol.udp && ports.includes(outbound ? flow.srcPort : flow.dstPort)) return true;
    if (outbound && peer && isPeer && protocol === Protocol.udp && peerPorts.includes(flow.dstPort)) return true;
    const type = flow.srcPort >> 8;
    if (family === 6 && protocol === Protocol.icmpv6 && type >= 133 && type <= 137) return bytes[7] === 255;
    if (outbound) return false;
    const quoted = at + 8;
    if (family === 4) {
      if (protocol !== Protocol.icmp || ![3, 11, 12].includes(type)) return false;
      if (bytes[quoted + 9] === Protocol.esp) return true;
      return bytes[quoted] === 0x45 && bytes[quoted + 9] === Protocol.udp && ports.includes(port(bytes, quoted + 20));
    }
    if (protocol !== Protocol.icmpv6 || type < 1 || type > 4) return false;
    if (bytes[quoted + 6] === Protocol.esp) return true;
    return bytes[quoted + 6] === Protocol.udp && ports.includes(port(bytes, quoted + 40));
  }
}

/** The same for packets from anywhere. */
function withoutSource(entry: PolicyEntry): PolicyEntry {
  const local = entry.selectors.local.map((one) => ({ ...one, range: anyRange(one.range.start.family) }));
  return { ...entry, selectors: { ...entry.selectors, local } };
}

/** What a receiver may take for another header. */
function isHidden({ family, protocol }: Flow): boolean {
  return family === 6 && (protocol === 51 || protocol === 140 || protocol >= 148);
}

/** Without options, or with one extension header of those that every host skips; and with four bytes behind. */
function isPlain(bytes: Uint8Array, flow: Flow): boolean {
  if (flow.totalLength - flow.headerLength < 4) return false;
  if (flow.family === 4) return flow.headerLength === 20;
  const first = bytes[6]!;
  if (flow.headerLength === 40) return true;
  return (
    [0, 44, 60].includes(first) &&
    bytes[40] === flow.protocol &&
    flow.headerLength === 40 + 8 * (first === 44 ? 1 : bytes[41]! + 1)
  );
}

function port(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}

function address(family: 4 | 6, bytes: Uint8Array, at: number): IpAddress {
  let value = 0n;
  for (const byte of bytes.subarray(at, at + (family === 4 ? 4 : 16))) value = (value << 8n) | BigInt(byte);
  return { family, value };
}

function asPacket(
  protocol: number,
  bytes: Uint8Array,
  [source, destination]: readonly [IpAddress, IpAddress],
): Uint8Array {
  const v4 = source.family === 4;
  const [size, at, length] = v4 ? [4, 12, 20] : [16, 8, 40];
  const packet = new Uint8Array(length + bytes.length);
  packet[0] = v4 ? 0x45 : 0x60;
  const claimed = v4 ? packet.length : bytes.length;
  packet[v4 ? 2 : 4] = claimed >>> 8;
  packet[v4 ? 3 : 5] = claimed;
  packet[v4 ? 9 : 6] = protocol;
  // Neighbour discovery is taken with this hop limit alone.
  packet[v4 ? 8 : 7] = 255;
  for (const [index, { value }] of [source, destination].entries()) {
    for (let i = 0; i < size; i++)
      packet[at + index * size + i] = Number((value >> BigInt(8 * (size - 1 - i))) & 0xffn);
  }
  packet.set(bytes, length);
  return packet;
}
