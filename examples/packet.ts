/** Makes and reads IPv4 UDP packets: what an application's socket would otherwise do. */

const IP_HEADER = 20;
const UDP_HEADER = 8;
const UDP = 17;

export interface UdpDatagram {
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
  readonly text: string;
}

export function makeUdpPacket({ source, sourcePort, destination, destinationPort, text }: UdpDatagram): Uint8Array {
  const payload = Buffer.from(text);
  const packet = Buffer.alloc(IP_HEADER + UDP_HEADER + payload.length);
  packet.writeUInt8(0x45, 0);
  packet.writeUInt16BE(packet.length, 2);
  packet.writeUInt8(64, 8);
  packet.writeUInt8(UDP, 9);
  packet.set(source.split('.').map(Number), 12);
  packet.set(destination.split('.').map(Number), 16);
  packet.writeUInt16BE(checksum(packet.subarray(0, IP_HEADER)), 10);
  packet.writeUInt16BE(sourcePort, IP_HEADER);
  packet.writeUInt16BE(destinationPort, IP_HEADER + 2);
  // A UDP checksum of 0 says that none was made (RFC 768); ESP's ICV protects the packet on its way.
  packet.writeUInt16BE(UDP_HEADER + payload.length, IP_HEADER + 4);
  packet.set(payload, IP_HEADER + UDP_HEADER);
  return packet;
}

export function readUdpPacket(bytes: Uint8Array): UdpDatagram {
  const packet = Buffer.from(bytes);
  return {
    source: packet.subarray(12, 16).join('.'),
    destination: packet.subarray(16, 20).join('.'),
    sourcePort: packet.readUInt16BE(IP_HEADER),
    destinationPort: packet.readUInt16BE(IP_HEADER + 2),
    text: packet.toString('utf8', IP_HEADER + UDP_HEADER),
  };
}

/** RFC 1071. */
function checksum(header: Buffer): number {
  let sum = 0;
  for (let at = 0; at < header.length; at += 2) sum += header.readUInt16BE(at);
  sum = (sum & 0xffff) + (sum >>> 16);
  return ~(sum + (sum >>> 16)) & 0xffff;
}
