/**
 * Floods a host with datagrams that no daemon can want, as fast as it can; run inside a namespace as a program of its own.
 *
 *   node flood.mjs CAPTURE DESTINATION PORT COUNT
 *     CAPTURE is a pcap file of Ethernet frames: the ESP in UDP to DESTINATION that it holds is sent again and again,
 *     and bent in all ways; prints {"sent"}
 */
import { randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { readFileSync } from 'node:fs';

const FILE_HEADER = 24;
const FRAME_HEADER = 16;
const ETHERNET = 14;
const UDP = 8;
/** After so many the event loop has its turn: a socket that is full empties itself. */
const AT_ONCE = 64;

/** Payloads of the UDP datagrams to an end point. @param {Buffer} file @param {string} address @param {number} port */
function payloads(file, address, port) {
  const found = [];
  for (let at = FILE_HEADER; at + FRAME_HEADER <= file.length; ) {
    const length = file.readUInt32LE(at + 8);
    const ip = at + FRAME_HEADER + ETHERNET;
    const udp = ip + (file.readUInt8(ip) & 0x0f) * 4;
    const to = file.subarray(ip + 16, ip + 20).join('.');
    if (file.readUInt8(ip + 9) === 17 && to === address && file.readUInt16BE(udp + 2) === port) {
      found.push(Buffer.from(file.subarray(udp + UDP, at + FRAME_HEADER + length)));
    }
    at += FRAME_HEADER + length;
  }
  return found;
}

/** Each kind in turn. @param {readonly Buffer[]} esp @param {number} i */
function datagram(esp, i) {
  const genuine = esp[i % esp.length];
  switch (i % 8) {
    case 0: // Of no SA.
      return Buffer.concat([Buffer.from([1, 2, 3, i & 0xff]), randomBytes(80)]);
    case 1: // Of an SA, with a number that is new and an ICV that is wrong.
      return Buffer.concat([genuine.subarray(0, 4), Buffer.from([0, 0xf0, 0, i & 0xff]), randomBytes(80)]);
    case 2: // Too short for anything.
      return genuine.subarray(0, 10);
    case 3: // IKE that is none.
      return Buffer.concat([Buffer.alloc(4), randomBytes(60)]);
    case 4: // An IKE_SA_INIT that ends too early.
      return Buffer.concat([Buffer.alloc(4), randomBytes(8), Buffer.alloc(8), Buffer.from('2120220800000000', 'hex')]);
    case 5: // A keepalive, or nothing.
      return (i & 8) === 0 ? Buffer.from([0xff]) : Buffer.alloc(0);
    default: // What was received before.
      return genuine;
  }
}

const [file, destination, port, count] = process.argv.slice(2);
const known = payloads(readFileSync(String(file)), String(destination), Number(port)).filter(
  (data) => data.length > 8 && data.readUInt32BE(0) !== 0,
);
if (known.length === 0) throw new Error(`${file} holds no ESP to port ${port}`);
const socket = createSocket('udp4');
socket.on('error', () => {});
for (let i = 0; i < Number(count); i++) {
  socket.send(datagram(known, i), Number(port), String(destination), () => {});
  if (i % AT_ONCE === AT_ONCE - 1) await new Promise((resolve) => setImmediate(resolve));
}
socket.close(() => process.stdout.write(`${JSON.stringify({ sent: Number(count) })}\n`));
