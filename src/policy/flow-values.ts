/** A packet's selectors as values: for proposals, logs and explanations. Control path. */

import { formatAddress, formatSocketAddress, type IpAddress } from '../base/address.ts';
import type { Direction } from './direction.ts';
import { DESTINATION, Flow, Fragment, PORT_HIDDEN, PROTOCOL_HIDDEN, portsKnown, SOURCE } from './flow.ts';
import { hasPorts, hasSinglePort, protocolName } from './protocols.ts';
import {
  ANY_PORTS,
  formatPorts,
  makeSelector,
  OPAQUE_PORTS,
  type PortRange,
  type SelectorPair,
  type TrafficSelector,
} from './selector.ts';
import { addressWords } from './words.ts';

/** The packet's source or destination. */
export function flowAddress(flow: Flow, at: typeof SOURCE | typeof DESTINATION): IpAddress {
  let value = 0n;
  const words = flow.family === 4 ? 1 : 4;
  for (let i = 0; i < words; i++) value = (value << 32n) | BigInt(flow.words[at + i]!);
  return { family: flow.family, value };
}

/**
 * The selectors that match this packet alone: the first ones of a proposal that the packet triggers
 * (RFC 7296 §2.9), and what `pfp` takes over (RFC 4301 §4.4.1.2). Ports that a fragment hides are OPAQUE.
 */
export function flowSelectors(flow: Flow, direction: Direction): SelectorPair {
  const source = [packetSelector(flow, SOURCE, flow.srcPort)];
  const destination = [packetSelector(flow, DESTINATION, flow.dstPort)];
  return direction === 'out' ? { local: source, remote: destination } : { local: destination, remote: source };
}

function packetSelector(flow: Flow, at: typeof SOURCE | typeof DESTINATION, port: number): TrafficSelector {
  const address = flowAddress(flow, at);
  const range = { start: address, end: address };
  if (flow.protocol === PROTOCOL_HIDDEN) return makeSelector(range);
  return makeSelector(range, flow.protocol, packetPorts(flow, port));
}

function packetPorts(flow: Flow, port: number): PortRange {
  if (port !== PORT_HIDDEN) return { startPort: port, endPort: port };
  return hasPorts(flow.protocol) || hasSinglePort(flow.protocol) ? OPAQUE_PORTS : ANY_PORTS;
}

/** `udp 10.1.0.1:5000 > 10.2.0.1:53`, `icmp 10.1.0.1 > 10.2.0.1 type 8 code 0`, for logs. */
export function formatFlow(flow: Flow): string {
  const source = flowAddress(flow, SOURCE);
  const destination = flowAddress(flow, DESTINATION);
  const protocol = flow.protocol === PROTOCOL_HIDDEN ? 'unknown protocol' : protocolName(flow.protocol);
  if (portsKnown(flow) && hasPorts(flow.protocol)) {
    const from = formatSocketAddress({ address: source, port: flow.srcPort });
    return `${protocol} ${from} > ${formatSocketAddress({ address: destination, port: flow.dstPort })}`;
  }
  const addresses = `${protocol} ${formatAddress(source)} > ${formatAddress(destination)}`;
  if (flow.fragment === Fragment.later && !flow.firstSeen) return `${addresses} (a later fragment)`;
  if (!portsKnown(flow)) return addresses;
  return `${addresses} ${formatPorts({ protocol: flow.protocol, startPort: flow.srcPort, endPort: flow.srcPort })}`;
}

/** What a flow is made of when there is no packet to read. */
export interface FlowValues {
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly protocol: number;
  /** As in `Flow`: for ICMP both are type × 256 + code; `PORT_HIDDEN` where the protocol has none. */
  readonly sourcePort: number;
  readonly destinationPort: number;
}

/** The flow of a whole packet with these values. */
export function makeFlow({ source, destination, protocol, sourcePort, destinationPort }: FlowValues): Flow {
  const flow = new Flow();
  flow.family = source.family;
  flow.protocol = protocol;
  flow.words.set(addressWords(source), SOURCE);
  flow.words.set(addressWords(destination), DESTINATION);
  flow.srcPort = sourcePort;
  flow.dstPort = destinationPort;
  return flow;
}
