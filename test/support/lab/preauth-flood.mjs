/**
 * Floods a host with messages of senders that have not authenticated, at a steady rate; run inside a namespace as a
 * program of its own, as root: the packets have IP headers of its own making.
 *
 *   node preauth-flood.mjs OWN DESTINATION RATE SECONDS KIND FILE
 *     FILE holds JSON: { "init", "esp", "auth", "fragment" }, each the hexadecimal bytes of a message without the
 *     non-ESP marker. KIND is what is sent of them, RATE times a second:
 *       init      requests from forged addresses, each with an SPI of its own, to ports 500 and 4500
 *       cookies   the same from 10,000 addresses that are routed to here, with the cookie when one is demanded
 *       garbage   IKE headers with random SPIs and random bytes behind, and random bytes alone, to both ports
 *       esp       ESP with unknown SPIs to port 4500
 *       auth      IKE_AUTH with random bytes on half-open SAs that were opened before, to port 4500
 *       fragments the same in encrypted fragments (RFC 7383), and some of unknown SPIs
 *     Prints {"sent","answered"}.
 */
import { randomFillSync } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import koffi from 'koffi';

const libc = koffi.load(null);
const socket = libc.func('int socket(int domain, int type, int protocol)');
const setsockopt = libc.func('int setsockopt(int fd, int level, int option, const void *value, uint32_t length)');
const sendmmsg = libc.func('int sendmmsg(int fd, uintptr_t messages, unsigned int count, int flags)');
const recv = libc.func('int64_t recv(int fd, void *data, size_t length, int flags)');

const AF_INET = 2;
const SOCK_RAW = 3;
const IPPROTO_RAW = 255;
const IPPROTO_UDP = 17;
const MSG_DONTWAIT = 0x40;
/** Messages of one call, and bytes of a packet. */
const BATCH = 64;
const PACKET = 2_048;
const HEADERS = 28;
const IKE_HEADER = 28;
const COOKIE = 16_390;
const HALF_OPEN = 4;
/** 10.66.0.0/16 is routed to here. */
const OWN_NETWORK = 0x0a42_0000;
const OWN_ADDRESSES = 10_000;

const [own, destination, rateText, secondsText, kind, file] = /** @type {string[]} */ (process.argv.slice(2));
const rate = Number(rateText);
const seconds = Number(secondsText);
/** @type {Record<string, Buffer>} */
const messages = Object.fromEntries(
  Object.entries(JSON.parse(readFileSync(String(file), 'utf8'))).map(([name, hex]) => [name, Buffer.from(hex, 'hex')]),
);

/** @param {string} text */
const address = (text) => text.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
const [OWN, DESTINATION] = [address(own), address(destination)];

const data = Buffer.alloc(BATCH * PACKET);
const headers = Buffer.alloc(BATCH * 64);
const vectors = Buffer.alloc(BATCH * 16);
const name = Buffer.alloc(16);
name.writeUInt16LE(AF_INET, 0);
name.writeUInt32BE(DESTINATION, 4);
for (let i = 0; i < BATCH; i++) {
  vectors.writeBigUInt64LE(koffi.address(data) + BigInt(i * PACKET), i * 16);
  headers.writeBigUInt64LE(koffi.address(name), i * 64);
  headers.writeUInt32LE(16, i * 64 + 8);
  headers.writeBigUInt64LE(koffi.address(vectors) + BigInt(i * 16), i * 64 + 16);
  headers.writeBigUInt64LE(1n, i * 64 + 24);
}
const raw = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
const sniffer = kind === 'cookies' ? socket(AF_INET, SOCK_RAW, IPPROTO_UDP) : -1;
if (raw < 0 || (kind === 'cookies' && sniffer < 0)) throw new Error('a raw socket cannot be had');
const buffer = Buffer.alloc(4);
buffer.writeInt32LE(8 << 20);
for (const [fd, option] of [
  [raw, 32],
  [sniffer, 33],
]) {
  if (fd >= 0) setsockopt(fd, 1, option, buffer, 4);
}
const random = Buffer.alloc(1 << 20);
let randomAt = random.length;

/** Random bytes that nobody else has had, over and over again. @param {number} length */
function fresh(length) {
  if (randomAt + length > random.length) {
    randomFillSync(random, 0, 65_536);
    for (let at = 65_536; at < random.length; at += 65_536) random.copy(random, at, 0, 65_536);
    // The copies must not be the same.
    for (let at = 65_536; at < random.length; at += 4_096) random.writeUInt32LE((at * 2_654_435_761) >>> 0, at);
    randomAt = 0;
  }
  randomAt += length;
  return random.subarray(randomAt - length, randomAt);
}

let slot = 0;
let sent = 0;
let answered = 0;
let turn = 0;

/** Puts a datagram into the batch. @param {number} from @param {number} fromPort @param {number} port @param {Buffer} bytes */
function put(from, fromPort, port, bytes) {
  const at = slot * PACKET;
  const marker = port === 4500 && kind !== 'esp' ? 4 : 0;
  const length = HEADERS + marker + bytes.length;
  data.writeUInt32BE(0x4500_0000 | length, at);
  data.writeUInt32BE(0, at + 4);
  data.writeUInt32BE(0x4011_0000, at + 8);
  data.writeUInt32BE(from, at + 12);
  data.writeUInt32BE(DESTINATION, at + 16);
  data.writeUInt16BE(fromPort, at + 20);
  data.writeUInt16BE(port, at + 22);
  data.writeUInt32BE((length - 20) << 16, at + 24);
  data.fill(0, at + HEADERS, at + HEADERS + marker);
  bytes.copy(data, at + HEADERS + marker);
  vectors.writeBigUInt64LE(BigInt(length), slot * 16 + 8);
  if (++slot === BATCH) flush();
  return at + HEADERS + marker;
}

function flush() {
  for (let first = 0; first < slot; ) {
    const done = sendmmsg(raw, koffi.address(headers) + BigInt(first * 64), slot - first, MSG_DONTWAIT);
    // What the system would not take is lost, as it would be on a line.
    if (done <= 0) break;
    sent += done;
    first += done;
  }
  slot = 0;
}

/** @param {Buffer} message @param {Buffer} cookie */
function withCookie(message, cookie) {
  const payload = Buffer.alloc(8);
  payload[0] = message.readUInt8(16);
  payload.writeUInt16BE(8 + cookie.length, 2);
  payload.writeUInt16BE(COOKIE, 6);
  const all = Buffer.concat([message.subarray(0, IKE_HEADER), payload, cookie, message.subarray(IKE_HEADER)]);
  all[16] = 41;
  all.writeUInt32BE(all.length, 24);
  return all;
}

/** The cookie that a message demands. @param {Buffer} message */
function cookieOf(message) {
  if (message.length < IKE_HEADER + 8 || message.readUInt8(16) !== 41) return undefined;
  if (message.readUInt16BE(IKE_HEADER + 6) !== COOKIE) return undefined;
  return message.subarray(IKE_HEADER + 8, IKE_HEADER + message.readUInt16BE(IKE_HEADER + 2));
}

/** The SPIs that `n` half-open SAs have, opened from one address. @param {number} n @returns {Promise<Buffer[]>} */
async function openHalf(n) {
  const found = [];
  const udp = createSocket('udp4');
  await new Promise((resolve) => udp.bind(40_500, own, () => resolve(undefined)));
  /** @param {Buffer} message @returns {Promise<Buffer | undefined>} */
  const ask = (message) => {
    const answer = new Promise((resolve) => udp.once('message', resolve));
    udp.send(message, 500, destination);
    return Promise.race([answer, new Promise((resolve) => setTimeout(resolve, 1_000))]);
  };
  for (let i = 0; i < n; i++) {
    const message = Buffer.from(/** @type {Buffer} */ (messages.init));
    message.set(fresh(8), 0);
    let reply = await ask(message);
    if (reply !== undefined && cookieOf(reply) !== undefined) reply = await ask(withCookie(message, cookieOf(reply)));
    if (reply !== undefined && reply.readUInt32BE(8) !== 0) found.push(Buffer.from(reply.subarray(0, 16)));
  }
  udp.close();
  if (found.length === 0) throw new Error('no half-open SA could be opened');
  return found;
}

const halfOpen = kind === 'auth' || kind === 'fragments' ? await openHalf(HALF_OPEN) : [];

/** Answers cookies that came. */
function answerCookies() {
  const packet = Buffer.alloc(PACKET);
  for (let i = 0; i < 4 * BATCH; i++) {
    const length = Number(recv(sniffer, packet, PACKET, MSG_DONTWAIT));
    if (length <= 0) return;
    const cookie = cookieOf(packet.subarray(HEADERS, Math.max(HEADERS, length)));
    if (cookie === undefined || packet.readUInt16BE(20) !== 500) continue;
    const message = withCookie(/** @type {Buffer} */ (messages.init), cookie);
    packet.copy(message, 0, HEADERS, HEADERS + 8);
    put(packet.readUInt32BE(16), packet.readUInt16BE(22), 500, message);
    answered++;
  }
}

function next() {
  const i = turn++;
  const port = i % 2 === 0 ? 500 : 4500;
  switch (kind) {
    case 'init': {
      const spoofed = 0x0a00_0000 + (((i * 2_654_435_761) >>> 8) & 0xff_ffff);
      const at = put(spoofed, 1_024 + (i % 60_000), port, /** @type {Buffer} */ (messages.init));
      data.set(fresh(8), at);
      return;
    }
    case 'cookies': {
      const at = put(OWN_NETWORK + 1 + (i % OWN_ADDRESSES), 500, 500, /** @type {Buffer} */ (messages.init));
      data.set(fresh(8), at);
      return;
    }
    case 'garbage': {
      const message = i % 4 < 2 ? fresh(400) : Buffer.concat([fresh(16), messages.auth.subarray(16, 28), fresh(300)]);
      if (i % 4 >= 2) message.writeUInt32BE(message.length, 24);
      put(OWN, 40_000, port, message);
      return;
    }
    case 'esp': {
      const message = Buffer.from(fresh(500));
      message.writeUInt32BE(0x1000_0000 + ((i >>> 0) % 0x0fff_ffff), 0);
      put(OWN, 4500, 4500, message);
      return;
    }
    case 'auth':
    case 'fragments': {
      const template = /** @type {Buffer} */ (kind === 'auth' ? messages.auth : messages.fragment);
      const at = put(OWN, 40_500, port, template);
      const known = halfOpen[i % halfOpen.length];
      if (kind === 'auth' || i % 2 === 0) data.set(/** @type {Buffer} */ (known), at);
      else data.set(fresh(16), at);
      const body = at + IKE_HEADER + (kind === 'auth' ? 4 : 8);
      data.set(fresh(template.length - (body - at)), body);
      if (kind === 'fragments') {
        data.writeUInt16BE(1 + (i % 8), at + IKE_HEADER + 4);
        data.writeUInt16BE(8, at + IKE_HEADER + 6);
      }
    }
  }
}

const begin = performance.now();
const pause = new Int32Array(new SharedArrayBuffer(4));
while (performance.now() - begin < seconds * 1_000) {
  const due = Math.min(((performance.now() - begin) * rate) / 1_000 - sent - slot, rate / 20);
  // Half of them are answers to cookies.
  const fresh = kind === 'cookies' ? Math.ceil(due / 2) : due;
  if (kind === 'none') sent += due;
  else for (let i = 0; i < fresh; i++) next();
  if (kind === 'cookies') answerCookies();
  flush();
  Atomics.wait(pause, 0, 0, 1);
}
process.stdout.write(`${JSON.stringify({ sent, answered })}\n`);
