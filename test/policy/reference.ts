/**
 * The policy look-up as one would write it down: no index, no words, addresses as integers. The compiled code
 * is held against it.
 */
import type { IpAddress } from '../../src/base/address.ts';
import type { PolicyEntry } from '../../src/policy/database.ts';
import { Flow, Fragment, PORT_HIDDEN } from '../../src/policy/flow.ts';
import type { SelectorPair, TrafficSelector } from '../../src/policy/selector.ts';

/** A packet as the selectors see it. */
export interface Packet {
  readonly src: IpAddress;
  readonly dst: IpAddress;
  readonly protocol: number;
  /** Undefined when hidden or not there. For ICMP both are type × 256 + code. */
  readonly ports: readonly [src: number, dst: number] | undefined;
  /** A later fragment whose first was not seen. */
  readonly stray: boolean;
}

const SINGLE_PORT = [1, 58, 135];

export function toFlow(packet: Packet): Flow {
  const flow = new Flow();
  flow.family = packet.src.family;
  flow.protocol = packet.protocol;
  const put = (at: number, { family, value }: IpAddress): void => {
    const words = family === 4 ? 1 : 4;
    for (let i = 0; i < words; i++) flow.words[at + i] = Number((value >> BigInt(32 * (words - 1 - i))) & 0xffffffffn);
  };
  put(0, packet.src);
  put(4, packet.dst);
  flow.srcPort = packet.ports?.[0] ?? PORT_HIDDEN;
  flow.dstPort = packet.ports?.[1] ?? PORT_HIDDEN;
  flow.fragment = packet.stray ? Fragment.later : Fragment.none;
  return flow;
}

function addressFits({ range }: TrafficSelector, address: IpAddress): boolean {
  return (
    range.start.family === address.family && range.start.value <= address.value && address.value <= range.end.value
  );
}

function portFits({ startPort, endPort }: TrafficSelector, port: number | undefined, receiverOfIcmp: boolean): boolean {
  if (startPort === 0 && endPort === 65535) return true;
  if (startPort === 65535 && endPort === 0) return port === undefined || receiverOfIcmp;
  return port !== undefined && startPort <= port && port <= endPort;
}

export function pairFits({ local, remote }: SelectorPair, packet: Packet, outbound: boolean): boolean {
  const [senders, receivers] = outbound ? [local, remote] : [remote, local];
  const protocolFits = (selector: TrafficSelector): boolean =>
    selector.protocol === 0 || selector.protocol === packet.protocol;
  const icmp = SINGLE_PORT.includes(packet.protocol);
  return (
    senders.some((s) => protocolFits(s) && addressFits(s, packet.src) && portFits(s, packet.ports?.[0], false)) &&
    receivers.some((s) => protocolFits(s) && addressFits(s, packet.dst) && portFits(s, packet.ports?.[1], icmp))
  );
}

/** Whether a stray fragment could belong to the entry: its ports, and in IPv6 its protocol, are anybody's guess. */
function mightFit({ local, remote }: SelectorPair, packet: Packet, outbound: boolean): boolean {
  const [senders, receivers] = outbound ? [local, remote] : [remote, local];
  const anyProtocol = packet.src.family === 6;
  const fits = (selector: TrafficSelector, address: IpAddress): boolean =>
    addressFits(selector, address) && (anyProtocol || selector.protocol === 0 || selector.protocol === packet.protocol);
  return senders.some((s) =>
    receivers.some((r) => fits(s, packet.src) && fits(r, packet.dst) && couldBeOnePacket(s, r)),
  );
}

/** Whether any packet could fit both selectors. */
function couldBeOnePacket(a: TrafficSelector, b: TrafficSelector): boolean {
  if (a.protocol !== 0 && b.protocol !== 0 && a.protocol !== b.protocol) return false;
  if (!SINGLE_PORT.includes(a.protocol || b.protocol)) return true;
  const opaque = a.startPort > a.endPort || b.startPort > b.endPort;
  return opaque || Math.max(a.startPort, b.startPort) <= Math.min(a.endPort, b.endPort);
}

/** The index of the deciding entry in the ordered list, -1 for none, -2 for a stray fragment that must not be bypassed. */
export function slowLookup(ordered: readonly PolicyEntry[], packet: Packet, outbound: boolean): number {
  const found = ordered.findIndex(({ selectors }) => pairFits(selectors, packet, outbound));
  if (found < 0 || !packet.stray || ordered[found]!.action !== 'bypass') return found;
  const guarded = ordered
    .slice(0, found)
    .some(({ action, selectors }) => action !== 'bypass' && mightFit(selectors, packet, outbound));
  return guarded ? -2 : found;
}
