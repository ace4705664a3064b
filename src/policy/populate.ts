/**
 * "Populate from packet" (PFP, RFC 4301 §4.4.1.2): an entry of the policy database each of whose SAs carries one value
 * of some selectors: the value in the packet that triggered the SA.
 */
import { type AddressRange, rangeContains } from '../base/address.ts';
import { DESTINATION, type Flow, PORT_HIDDEN, PROTOCOL_HIDDEN, SOURCE } from './flow.ts';
import { flowSelectors } from './flow-values.ts';
import { pairable } from './narrow.ts';
import { hasPorts, Protocol } from './protocols.ts';
import {
  intersectPorts,
  intersectProtocol,
  isOpaquePorts,
  makeSelector,
  type SelectorPair,
  simplifySelectors,
  type TrafficSelector,
} from './selector.ts';
import { addressWords, mixHash } from './words.ts';

/** Which selectors are taken from the packet: `PacketFlags` of RFC 4301, appendix C. A port is taken with its protocol. */
export interface PacketFlags {
  readonly localAddress: boolean;
  readonly remoteAddress: boolean;
  readonly protocol: boolean;
  /** Of protocols with two ports: the answer to an ICMP message has another type. */
  readonly localPort: boolean;
  readonly remotePort: boolean;
}

/**
 * The selectors of the SA that an outbound packet of an entry triggers; `undefined` when the packet does not show a
 * required value.
 */
export function populate({ local, remote }: SelectorPair, flags: PacketFlags, flow: Flow): SelectorPair | undefined {
  const packet = flowSelectors(flow, 'out');
  if (flags.protocol && flow.protocol === PROTOCOL_HIDDEN) return undefined;
  const populateSide = (
    selectors: readonly TrafficSelector[],
    own: TrafficSelector,
    address: boolean,
    port: boolean,
  ): TrafficSelector[] =>
    simplifySelectors(selectors.flatMap((selector) => cut(selector, own, address, flags.protocol, port) ?? []));
  const ours = populateSide(local, packet.local[0]!, flags.localAddress, flags.localPort);
  const theirs = populateSide(remote, packet.remote[0]!, flags.remoteAddress, flags.remotePort);
  const paired = pairable({ local: ours, remote: theirs });
  return paired.local.length === 0 ? undefined : paired;
}

function cut(
  selector: TrafficSelector,
  own: TrafficSelector,
  address: boolean,
  protocol: boolean,
  port: boolean,
): TrafficSelector | undefined {
  const number = protocol ? intersectProtocol(selector.protocol, own.protocol) : selector.protocol;
  const ports = port && hasPorts(own.protocol) ? intersectPorts(selector, own) : selector;
  if (number === undefined || ports === undefined) return undefined;
  if (address && !holds(selector.range, own.range)) return undefined;
  return makeSelector(address ? own.range : selector.range, number, ports);
}

function holds(range: AddressRange, { start }: AddressRange): boolean {
  return range.start.family === start.family && rangeContains(range, start);
}

/** A number for the values that `populate` would take from an outbound packet. Hot path: no allocation. */
export function populatedKey(flags: PacketFlags, flow: Flow): number {
  let hash = flags.protocol ? mixHash(0, flow.protocol) : 0;
  const words = flow.family === 4 ? 1 : 4;
  if (flags.localAddress) for (let i = 0; i < words; i++) hash = mixHash(hash, flow.words[SOURCE + i]! | 0);
  if (flags.remoteAddress) for (let i = 0; i < words; i++) hash = mixHash(hash, flow.words[DESTINATION + i]! | 0);
  const ports = hasPorts(flow.protocol);
  if (flags.localPort) hash = mixHash(hash, ports ? flow.srcPort : PORT_HIDDEN);
  if (flags.remotePort) hash = mixHash(hash, ports ? flow.dstPort : PORT_HIDDEN);
  return hash;
}

/** The same of the packets of an SA; `undefined` when those have more than one value: the peer asked for it so. */
export function populatedKeyOf(flags: PacketFlags, { local, remote }: SelectorPair): number | undefined {
  const [mine, theirs] = [local[0], remote[0]];
  if (mine === undefined || theirs === undefined) return undefined;
  const all = [...local, ...remote];
  const protocol = mine.protocol === Protocol.any ? theirs.protocol : mine.protocol;
  if (flags.protocol && all.some((selector) => selector.protocol !== protocol || protocol === Protocol.any))
    return undefined;
  let hash = flags.protocol ? mixHash(0, protocol) : 0;
  for (const [wanted, side] of [
    [flags.localAddress, local],
    [flags.remoteAddress, remote],
  ] as const) {
    if (!wanted) continue;
    const { start } = side[0]!.range;
    if (side.some(({ range }) => range.start.value !== start.value || range.end.value !== start.value))
      return undefined;
    for (const word of addressWords(start)) hash = mixHash(hash, word | 0);
  }
  for (const [wanted, side] of [
    [flags.localPort, local],
    [flags.remotePort, remote],
  ] as const) {
    if (!wanted) continue;
    const port = singlePort(side);
    if (port === undefined) return undefined;
    hash = mixHash(hash, port);
  }
  return hash;
}

/** `PORT_HIDDEN` where there is none to be seen; `undefined` for more than one. */
function singlePort(side: readonly TrafficSelector[]): number | undefined {
  const [first] = side;
  if (first === undefined) return undefined;
  if (!hasPorts(first.protocol)) return PORT_HIDDEN;
  if (side.every(isOpaquePorts)) return PORT_HIDDEN;
  const port = first.startPort;
  return side.every(({ startPort, endPort }) => startPort === port && endPort === port) ? port : undefined;
}
