/** Reads what tcpdump captured (classic pcap, Ethernet): enough to tell what passed between two hosts. */

export interface Frame {
  readonly etherType: number;
  /** IP protocol, or `undefined` for what is not IP. */
  readonly protocol: number | undefined;
  readonly sourcePort: number | undefined;
  readonly destinationPort: number | undefined;
  readonly payload: Uint8Array;
}

const GLOBAL_HEADER = 24;
const RECORD_HEADER = 16;
const ETHERNET_HEADER = 14;
const UDP_HEADER = 8;
const EtherType = { ipv4: 0x0800, ipv6: 0x86dd } as const;
const UDP = 17;

export function readPcap(file: Buffer): Frame[] {
  const frames: Frame[] = [];
  const little = file.readUInt32LE(0) === 0xa1b2c3d4;
  let at = GLOBAL_HEADER;
  while (at + RECORD_HEADER <= file.length) {
    const length = little ? file.readUInt32LE(at + 8) : file.readUInt32BE(at + 8);
    frames.push(readFrame(file.subarray(at + RECORD_HEADER, at + RECORD_HEADER + length)));
    at += RECORD_HEADER + length;
  }
  return frames;
}

function readFrame(frame: Buffer): Frame {
  const etherType = frame.readUInt16BE(12);
  const ip = frame.subarray(ETHERNET_HEADER);
  const isV4 = etherType === EtherType.ipv4;
  const none = { etherType, protocol: undefined, sourcePort: undefined, destinationPort: undefined, payload: ip };
  if (!isV4 && etherType !== EtherType.ipv6) return none;
  const protocol = ip.readUInt8(isV4 ? 9 : 6);
  const transport = ip.subarray(isV4 ? (ip.readUInt8(0) & 0x0f) * 4 : 40);
  if (protocol !== UDP) return { ...none, protocol };
  return {
    etherType,
    protocol,
    sourcePort: transport.readUInt16BE(0),
    destinationPort: transport.readUInt16BE(2),
    payload: transport.subarray(UDP_HEADER, transport.readUInt16BE(4)),
  };
}

/** Counts of what passed. */
export interface Traffic {
  ike: number;
  esp: number;
  keepalives: number;
  /** Address resolution: no traffic of the hosts' own. */
  neighbour: number;
  /** Anything else: what must not be there. */
  other: string[];
}

const ICMPV6 = 58;
const ARP = 0x0806;

/** Sorts frames into IKE and ESP in UDP on one port (RFC 3948), address resolution, and everything else. */
export function sortTraffic(frames: readonly Frame[], port: number): Traffic {
  const traffic = emptyTraffic();
  for (const frame of frames) {
    if (frame.etherType === ARP || frame.protocol === ICMPV6) traffic.neighbour++;
    else if (frame.protocol !== UDP) traffic.other.push(`protocol ${frame.protocol}`);
    else sortPayload(traffic, frame.sourcePort, frame.destinationPort, frame.payload, port);
  }
  return traffic;
}

export function emptyTraffic(): Traffic {
  return { ike: 0, esp: 0, keepalives: 0, neighbour: 0, other: [] };
}

/** Counts one UDP payload. */
export function sortPayload(
  traffic: Traffic,
  source: number | undefined,
  destination: number | undefined,
  payload: Uint8Array,
  port: number,
): void {
  if (source !== port || destination !== port) traffic.other.push(`UDP port ${source} to ${destination}`);
  else if (payload.length === 1 && payload[0] === 0xff) traffic.keepalives++;
  else if (payload.length >= 4 && payload.slice(0, 4).every((byte) => byte === 0)) traffic.ike++;
  else traffic.esp++;
}
