/** The packet of a `sectunnel explain` question: from the text of its parameters to the flow that a policy sees. */
import { addressBits, formatAddress, type IpAddress, parseAddress, type SocketAddress } from '../base/address.ts';
import { SectunnelError } from '../base/error.ts';
import { type Flow, PORT_HIDDEN } from '../policy/flow.ts';
import { makeFlow } from '../policy/flow-values.ts';
import { hasPorts, hasSinglePort, isIcmp, Protocol, protocolByName, protocolName } from '../policy/protocols.ts';
import { MAX_PORT } from '../policy/selector.ts';
import type { ExplainQuestion } from './explanation.ts';

export interface AskedPacket {
  readonly direction: 'in' | 'out';
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly protocol: number;
  /** `undefined` where the protocol has none. */
  readonly sourcePort: number | undefined;
  readonly destinationPort: number | undefined;
  readonly flow: Flow;
  readonly assumed: readonly string[];
}

/** The first of the ports that systems take for clients (RFC 6335 §6). */
const CLIENT_PORT = 49_152;
const ECHO_REQUEST = { 4: 8, 6: 128 } as const;

/** @throws SectunnelError of the kind `bad-request` that says what is wrong with the question */
export function readPacketQuestion(question: ExplainQuestion): AskedPacket {
  const source = readEnd('--src', question.src);
  const destination = readEnd('--dst', question.dst);
  const { family } = source.address;
  if (destination.address.family !== family) {
    throw wrong(`--src is IPv${family} and --dst is IPv${destination.address.family}: a packet has one family`);
  }
  const protocol = readProtocol(question.proto, family);
  const direction = readDirection(question.direction);
  const assumed: string[] = [];
  const [sourcePort, destinationPort] = readPorts(question, protocol, source, destination, assumed);
  const flow = makeFlow({
    source: source.address,
    destination: destination.address,
    protocol,
    sourcePort: sourcePort ?? PORT_HIDDEN,
    destinationPort: destinationPort ?? PORT_HIDDEN,
  });
  const ported = hasPorts(protocol);
  return {
    direction,
    source: source.address,
    destination: destination.address,
    protocol,
    sourcePort: ported ? sourcePort : undefined,
    destinationPort: ported ? destinationPort : undefined,
    flow,
    assumed,
  };
}

/** The same packet with other addresses, as where another program translates it. */
export function readdressed(
  packet: AskedPacket,
  change: Partial<Pick<AskedPacket, 'source' | 'destination'>>,
): AskedPacket {
  const { source, destination } = { ...packet, ...change };
  const { protocol, srcPort, dstPort } = packet.flow;
  const flow = makeFlow({ source, destination, protocol, sourcePort: srcPort, destinationPort: dstPort });
  return { ...packet, source, destination, flow };
}

function wrong(message: string): SectunnelError {
  return new SectunnelError('bad-request', message);
}

type End = Omit<SocketAddress, 'port'> & { readonly port: number | undefined };

/** `A`, `A:p` or `[A]:p`; more than one colon without brackets is an IPv6 address. */
function readEnd(option: string, text: string): End {
  const bracketed = /^\[([^\]]*)\](?::(.*))?$/.exec(text);
  const plain = /^([^:]*)(?::([^:]*))?$/.exec(text);
  const [, addressText = text, portText] = bracketed ?? plain ?? [];
  const address = parseAddress(addressText);
  if (address === undefined) {
    throw wrong(
      `${option} '${text}': expected an address, with a port A:p or [A]:p, such as 10.1.0.1:53 or [fd00::1]:53`,
    );
  }
  if (portText === undefined) return { address, port: undefined };
  const port = /^[0-9]{1,5}$/.test(portText) ? Number(portText) : Number.NaN;
  if (!(port <= MAX_PORT)) throw wrong(`${option} '${text}': expected a port from 0 to ${MAX_PORT}`);
  return { address, port };
}

function readProtocol(text: string, family: 4 | 6): number {
  const protocol = protocolByName(text);
  if (protocol === undefined || protocol === Protocol.any) {
    throw wrong(
      `--proto '${text}': expected one protocol by name or number, such as tcp, udp, icmp, icmpv6, esp or 47`,
    );
  }
  const other = family === 4 ? Protocol.icmpv6 : Protocol.icmp;
  if (protocol === other) {
    const right = protocolName(family === 4 ? Protocol.icmp : Protocol.icmpv6);
    throw wrong(`--proto '${text}' with addresses of IPv${family}: use ${right}`);
  }
  return protocol;
}

function readDirection(text: string | undefined): 'in' | 'out' {
  if (text === undefined || text === 'out') return 'out';
  if (text === 'in') return 'in';
  throw wrong(`--direction '${text}': expected in or out`);
}

/** Those of the flow: type and code stand where others have ports. */
function readPorts(
  { type, code }: ExplainQuestion,
  protocol: number,
  source: End,
  destination: End,
  assumed: string[],
): readonly [number | undefined, number | undefined] {
  const name = protocolName(protocol);
  const single = hasSinglePort(protocol);
  if (!single && (type !== undefined || code !== undefined)) throw wrong(`${name} has no --type and --code`);
  if (!hasPorts(protocol)) {
    if (source.port !== undefined || destination.port !== undefined) throw wrong(`${name} has no ports`);
    if (!single) return [undefined, undefined];
    const both = typeAndCode(protocol, source.address.family, type, code, assumed);
    return [both, both];
  }
  if (destination.port === undefined) {
    throw wrong(`--dst has no port, which ${name} needs: write ${bracketed(destination.address)}:PORT`);
  }
  if (source.port === undefined) assumed.push(`source port ${CLIENT_PORT}`);
  return [source.port ?? CLIENT_PORT, destination.port];
}

function bracketed(address: IpAddress): string {
  return addressBits(address.family) === 32 ? formatAddress(address) : `[${formatAddress(address)}]`;
}

function typeAndCode(
  protocol: number,
  family: 4 | 6,
  type: number | undefined,
  code: number | undefined,
  assumed: string[],
): number {
  if (type === undefined && !isIcmp(protocol)) throw wrong(`${protocolName(protocol)} needs a --type`);
  if (type === undefined && code !== undefined) throw wrong('--code without --type');
  if (type === undefined) assumed.push('an echo request, as ping sends it');
  return (type ?? ECHO_REQUEST[family]) * 256 + (code ?? 0);
}
